"""``python -m tests.faults --seconds 3600``: faults, and the table of what they showed. Ends with 1 if a law was violated."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from .run import KINDS, run

LONG_SECONDS = 300
"""From here on there are chapters about pages, which need a browser."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--faults", type=int, default=10**9, help="stop after so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the records of violations are kept")
    parser.add_argument("--chapters", nargs="*", choices=KINDS, help="what they are about, in turn")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="ebus-faults-"))
    chapters = ["server", "kernels", "server", "pages"] if given.seconds >= LONG_SECONDS else ["server", "kernels"]
    table = run(
        folder, seconds=given.seconds, faults=given.faults, seed=given.seed, chapters=given.chapters or chapters
    )
    print(table)
    for violation in table.violations[:40]:
        print(violation)
    if table.violations:
        print(f"The records are in {folder}.")
    for broken in table.broken:
        print(broken)
    return bool(table.violations or table.broken)


if __name__ == "__main__":
    sys.exit(main())
