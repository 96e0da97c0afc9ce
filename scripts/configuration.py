"""Writes ``docs/configuration.md`` from what the server extension can be told. ``make docs`` runs it; a test holds it."""

from __future__ import annotations

import sys
from pathlib import Path

from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.server.extension import EBus

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

HEAD = """# Configuration

Everything is set in `jupyter_server_config.py` as `c.EBus.NAME = …`, or on the command line as `--EBus.NAME=…`.
This page is made from the code (`make docs`).

## The server
"""


def page() -> str:
    """The page's text."""
    traits = EBus.class_own_traits(config=True)
    rows = [HEAD, "| name | default | what it is |", "| --- | --- | --- |"]
    limits = set(Limits.__struct_fields__)
    rows += [_row(name, traits[name]) for name in sorted(set(traits) - limits)]
    rows += ["", "## Bounds", "", "Sizes are in bytes, times in seconds, rates a second.", ""]
    rows += ["| name | default | what it bounds |", "| --- | --- | --- |"]
    rows += [_row(name, traits[name]) for name in Limits.__struct_fields__]
    return "\n".join(rows) + "\n"


def _row(name: str, trait: object) -> str:
    help_ = " ".join(str(getattr(trait, "help", "")).split()).replace("|", "\\|")
    return f"| `{name}` | `{trait.default()!r}` | {help_} |"  # type: ignore[attr-defined]


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE} written\n")
