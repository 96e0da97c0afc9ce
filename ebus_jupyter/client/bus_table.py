"""The list of buses as a table of text, for the command line and the magics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ebus_jupyter.core.protocol.message import BusSpec
from ebus_jupyter.terminal import printable

HEAD = ("SCOPE", "NAME", "TYPE", "RETAIN", "HERE", "LAST")


def table(buses: Iterable[dict[str, Any]]) -> str:
    """Format the result of `Client.buses`, one line a bus.

    The columns are scope, name, type, what is retained, the number of participants, and the last offset: "-" for a bus
    whose log is not loaded. Each cell is made `printable`: the makers of the buses have chosen the names and the types.
    """
    rows = [HEAD, *(tuple(map(printable, _row(bus))) for bus in buses)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(bus: dict[str, Any]) -> tuple[str, ...]:
    spec, defaults = bus["spec"], BusSpec()
    retain, size = spec.get("retain", defaults.retain), spec.get("size", defaults.size)
    last = "-" if bus["last"] is None else str(bus["last"])
    kept = "latest" if retain == "latest" else f"{retain} {size}"
    return (bus["scope"], bus["name"], spec.get("type") or "any", kept, str(bus["participants"]), last)
