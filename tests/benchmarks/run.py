"""Which benchmarks there are, and how they are run: every peer in every round, one after the other, so that what else the
machine does meets all of them alike. A figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import fanout, report, writing
from .measure import Row, median
from .peers.base import FanOut, Unavailable
from .peers.comm import Comm
from .peers.floor import Floor
from .peers.jupyter import EBus, Events
from .peers.websockets_broadcast import Websockets
from .report import Figure, Section

RESULTS = Path(__file__).parent / "results"

SPREAD = (
    Figure("deliveries_per_cpu_second", "deliveries", "/s of server CPU", True),
    Figure("cpu_microseconds", "server CPU a delivery", "µs"),
    Figure("deliveries_per_second", "deliveries", "/s", True),
    Figure("wait_p50_ms", "lone message, last subscriber p50", "ms", False),
    Figure("wait_p99_ms", "p99", "ms", False),
    Figure("megabytes", "memory", "MB"),
)
DRAG = (SPREAD[0], SPREAD[1], *SPREAD[3:5])
WRITES = (
    Figure("writes_per_second", "acked writes", "/s", True),
    Figure("client_microseconds", "client's CPU a write", "µs", False),
    Figure("server_microseconds", "server's", "µs", False),
    Figure("wait_p50_us", "lone write → ack p50", "µs", False),
    Figure("wait_p99_us", "p99", "µs", False),
)
REPLAY = (Figure("replay_ms", "replay", "ms", False),)


@dataclass(frozen=True)
class Effort:
    """How much is done. The defaults take a few minutes. ``memory``: whether ours is measured without its log's file too."""

    rounds: int = 3
    seconds: float = 2.0
    subscribers: int = 100
    pages: int = 20
    size: int = 200
    lone: int = 200
    writes: int = 40_000
    in_flight: int = 200
    replay: int = 10_000
    memory: bool = True


Peers = dict[str, Callable[[], Row]]
Note = Callable[[str], None]


def measured(section: Section, peers: Peers, rounds: int, note: Note) -> Section:
    """Fill the section. A peer that can't be had, or fails, is left out by name, and the others go on."""
    taken: dict[str, list[Row]] = {name: [] for name in peers}
    for n in range(1, rounds + 1):
        for name, measure in peers.items():
            if name in section.missing:
                continue
            note(f"{section.title}: {name}, round {n} of {rounds}")
            try:
                taken[name].append(measure())
            except Unavailable as missing:
                section.missing[name] = str(missing)
            except Exception as failure:
                logging.getLogger(__name__).debug("a peer failed", exc_info=True)
                section.missing[name] = f"it failed: {failure!r}"
    section.rows = {name: median(rows) for name, rows in taken.items() if rows and name not in section.missing}
    return section


def fan_out(effort: Effort, note: Note) -> list[Section]:
    ours = EBus("sqlite")
    section = Section(f"Fan-out: 1 writer → {effort.subscribers} subscribers, {effort.size} B", ours.name, SPREAD)
    peers: list[FanOut] = [ours, *([EBus("memory")] if effort.memory else []), Floor(), Websockets(), Events()]
    measure = partial(
        fanout.measure, subscribers=effort.subscribers, size=effort.size, seconds=effort.seconds, lone=effort.lone
    )
    return [measured(section, _each(peers, measure), effort.rounds, note)]


def pages(effort: Effort, note: Note) -> list[Section]:
    ours = EBus("sqlite", state=True)
    section = Section(f"A shared widget: one page's change → {effort.pages} pages", ours.name, DRAG)
    measure = partial(
        fanout.measure,
        subscribers=effort.pages,
        size=effort.size,
        seconds=effort.seconds,
        lone=effort.lone,
        burst=1,
        ahead=20,
    )
    return [measured(section, _each([ours, Comm()], measure), effort.rounds, note)]


def _each(peers: list[FanOut], measure: Callable[[FanOut], object]) -> Peers:
    return {peer.name: lambda peer=peer: asyncio.run(measure(peer)) for peer in peers}  # type: ignore


def writes(effort: Effort, note: Note) -> list[Section]:
    ours = "ebus_jupyter (sqlite)"
    written = Section(f"A kernel's acked writes, {effort.size} B, {effort.in_flight} in flight", ours, WRITES)
    joined = Section(f"A late joiner reads {effort.replay:,} messages, {effort.size} B", ours, REPLAY)
    bare = {"writes": effort.writes, "in_flight": effort.in_flight, "lone": effort.lone * 5, "size": effort.size}
    kept = {**bare, "replay": effort.replay}
    peers: Peers = {ours: lambda: writing.ebus("sqlite", **kept)}
    if effort.memory:
        peers["ebus_jupyter (memory)"] = lambda: writing.ebus("memory", **kept)
    peers["bare WebSocket echo"] = lambda: asyncio.run(writing.bare(**bare))
    peers["nats-py, JetStream"] = lambda: asyncio.run(writing.jetstream(**kept))
    measured(written, peers, effort.rounds, note)
    joined.rows = {name: row for name, row in written.rows.items() if REPLAY[0].name in row}
    joined.missing = written.missing
    return [written, joined]


BENCHMARKS: dict[str, Callable[[Effort, Note], list[Section]]] = {"fanout": fan_out, "writes": writes, "pages": pages}


def main(arguments: list[str] | None = None) -> None:
    standard = Effort()
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="BENCHMARK", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--rounds", type=int, default=standard.rounds)
    parser.add_argument("--seconds", type=float, default=standard.seconds, help="how long each fan-out goes on")
    parser.add_argument("--subscribers", type=int, default=standard.subscribers)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder for the JSON and the plot")
    asked = parser.parse_args(arguments)
    unknown = set(asked.only) - set(BENCHMARKS)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    effort = Effort(rounds=asked.rounds, seconds=asked.seconds, subscribers=asked.subscribers)

    def note(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    sections = [section for name in asked.only or BENCHMARKS for section in BENCHMARKS[name](effort, note)]
    print(report.table(sections))
    report.write(sections, asked.results, note)
    note(f"The figures and the plot are in {asked.results}")
