"""Raises every locked version to the newest that ``pyproject.toml`` and ``js/package.json`` admit.

    python scripts/lock.py

Writes ``constraints.txt``, one file for all environments, systems and Python versions, and ``js/package-lock.json``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import npm

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = "3.11"
EXTRAS = ("bench", "collaboration", "demo", "dev", "fuzz", "whiteboard")
LOCKS = ("constraints.txt", "js/package-lock.json")
PLACES = re.compile(r"\w+://|\bfile:|(^|\s)/")
"""Names of a registry or of a folder of this machine, which mean nothing elsewhere."""


def main() -> int:
    command = [
        Path(sys.executable).parent / "uv", "pip", "compile", "--quiet", "--upgrade",
        "--universal", "--python-version", OLDEST_PYTHON,
        "--no-emit-index-url", "--no-emit-find-links", "--custom-compile-command", "make lock",
        *(part for extra in EXTRAS for part in ("--extra", extra)),
        "--group", "build", "--output-file", "constraints.txt", "pyproject.toml",
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    if npm.npm("update", "--package-lock-only", "--silent") != 0:
        return 1
    places = [place for name in LOCKS for place in named_places(name)]
    if places:
        print("the lock files name places that others cannot reach:", *places, sep="\n  ", file=sys.stderr)
        return 1
    subprocess.run(["git", "diff", "--stat", "--", *LOCKS], cwd=ROOT, check=False)
    return 0


def named_places(name: str) -> list[str]:
    """Lines of a lock file that name a registry or a folder; a package's own ``funding`` and home pages may."""
    lines = (ROOT / name).read_text().splitlines()
    if name.endswith(".json"):
        return [f"{name}: {line.strip()}" for line in lines if '"resolved"' in line]
    return [f"{name}: {line}" for line in lines if PLACES.search(line)]


if __name__ == "__main__":
    sys.exit(main())
