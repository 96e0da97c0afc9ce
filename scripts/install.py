"""Installs the package, and what a command needs, into an environment of the checkout.

    python3 scripts/install.py dev                          into .venv
    python3 scripts/install.py collaboration --into DIR

Each package gets the version that ``constraints.txt`` names, whatever was released since; ``make lock`` raises it.
uv installs in seconds what pip takes a minute for. pip takes over where uv cannot be installed or reaches no index.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
CONSTRAINTS = "constraints.txt"
PURPOSES = {
    "demo": "the package and JupyterLab",
    "dev": "the package, what its tests need, and the linters",
    "bench": "the peers that the benchmark compares with",
    "fuzz": "the fuzzer of the decoders",
    "collaboration": "JupyterLab with jupyter-collaboration",
    "build": "what builds the wheel",
}
"""The extras of ``pyproject.toml`` that a command asks for, and what is in them."""


class Environment:
    """A virtual environment, with uv in it where uv can be had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = scripts / "python"
        self.uv = scripts / "uv"
        # Build dependencies are resolved apart from the others; each tool has its own name for their constraints. The
        # variables hold lists that a space separates, so the path must have none: it is relative to ROOT, as `_run` is.
        names = ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT", "UV_CONSTRAINT", "UV_BUILD_CONSTRAINT")
        self._environ = {
            **os.environ,
            **dict.fromkeys(names, CONSTRAINTS),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "VIRTUAL_ENV": str(folder),
        }

    def make(self) -> None:
        """Make the environment, unless it is there.

        Raises:
            SystemExit: ``venv`` failed; its message has been shown.
        """
        # An environment whose making was interrupted has a Python and no pip.
        if not self._has_pip() and self._run(sys.executable, "-m", "venv", self.folder) != 0:
            raise SystemExit("no virtual environment; on Debian and Ubuntu it needs the package python3-venv")
        if not self.uv.exists() and self._run(self.python, "-m", "pip", "install", "--quiet", "uv", quiet=True) != 0:
            say("uv cannot be installed here; pip does its work, which takes some minutes.")

    def _has_pip(self) -> bool:
        return self.python.exists() and self._run(self.python, "-c", "import pip", quiet=True) == 0

    def install(self, *what: str, **environ: str) -> None:
        """Install requirements, with the versions of ``constraints.txt``.

        Raises:
            SystemExit: They cannot be installed; the reason has been shown.
        """
        if self.uv.exists():
            if self._run(self.uv, "pip", "install", "--quiet", *what, **environ) == 0:
                return
            say("uv failed; trying pip …")
        if self._run(self.python, "-m", "pip", "install", "--quiet", *what, **environ) != 0:
            raise SystemExit(f"the installation failed: {' '.join(what)}")

    def _run(self, *command: str | Path, quiet: bool = False, **environ: str) -> int:
        errors = subprocess.DEVNULL if quiet else None
        return subprocess.call(
            [str(part) for part in command], cwd=ROOT, env={**self._environ, **environ}, stderr=errors
        )


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("purpose", choices=PURPOSES)
    parser.add_argument("--into", type=Path, default=ROOT / ".venv", help="the environment's folder (default: .venv)")
    asked = parser.parse_args()

    environment = Environment(asked.into.absolute())
    say(f"Installing {PURPOSES[asked.purpose]} into {os.path.relpath(asked.into, ROOT)} …")
    environment.make()
    if asked.purpose == "build":
        environment.install("build")
    else:
        # The page's client is built for `.venv` and serves the other environments too.
        environ = {} if asked.into == parser.get_default("into") else {"EBUS_SKIP_JS": "1"}
        environment.install("--editable", f".[{asked.purpose}]", **environ)


if __name__ == "__main__":
    if sys.version_info < OLDEST:
        raise SystemExit("Python 3.11 or newer is needed; name one with `make PYTHON=…`")
    main()
