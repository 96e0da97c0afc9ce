"""The benchmarks, and how they run: every peer in every round, one after the other, so that other load on the machine
affects all of them alike. A figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import fanout, large, notebook, report, scale, start, writing
from .measure import Row, allow_many_files, median
from .peers.base import FanOut, Unavailable
from .peers.comm import Comm
from .peers.floor import Floor
from .peers.jupyter import EBus, Events
from .peers.nats import Nats
from .peers.redis import Redis
from .peers.room import Room
from .peers.socketio import SocketIO
from .peers.tornado_write import Tornado
from .peers.websockets_broadcast import Websockets
from .peers.ypywidgets import YPyWidgets
from .report import Figure, Goal, Section
from .requirements import missing_requirements

OURS = EBus("sqlite").name

RESULTS = Path(__file__).parent / "results"

DELIVERIES = Figure("deliveries_per_cpu_second", "deliveries", "/s of server CPU", True)
CPU = Figure("cpu_microseconds", "server CPU per delivery", "µs")
LAST_P50 = Figure("wait_p50_ms", "lone message, last subscriber p50", "ms", False)
P95 = Figure("wait_p95_ms", "p95", "ms", False)
P99 = Figure("wait_p99_ms", "p99", "ms", False)
SPREAD = (
    DELIVERIES,
    CPU,
    Figure("deliveries_per_second", "deliveries", "/s", True),
    LAST_P50,
    P99,
    Figure("megabytes", "memory", "MB"),
)
WRITES = (
    Figure("writes_per_second", "acked writes", "/s", True),
    Figure("client_microseconds", "client CPU per write", "µs", False),
    Figure("server_microseconds", "server CPU per write", "µs", False),
    Figure("wait_p50_us", "lone write → ack p50", "µs", False),
    Figure("wait_p99_us", "p99", "µs", False),
)
JOIN = (
    Figure("replay_ms", "log replayed", "ms", False),
    Figure("state_ms", f"state of {writing.KEYS:,} keys", "ms", False),
)
SCALE = (
    Figure("connection_kilobytes", "per connection", "kB", False),
    Figure("bus_kilobytes", "per idle bus", "kB", False),
    Figure("connect_seconds", "time to connect all", "s"),
    Figure("subscribe_seconds", "time to open and subscribe to all buses", "s", False),
)
CELLS = (
    Figure("idle_p95_ms", "cell, idle p95", "ms"),
    Figure("busy_p95_ms", "under full load p95", "ms"),
    Figure("times_idle", "times idle", "", False),
    Figure("delayed_idle_p95_ms", "with delayed TCP ACKs: idle p95", "ms"),
    Figure("delayed_busy_p95_ms", "under full load p95", "ms"),
    Figure("delayed_times_idle", "times idle", ""),
)
ARRAYS = (
    Figure("array_ms", "array to all subscribers", "ms"),
    Figure("server_cpu_ms", "server CPU", "ms"),
    Figure("copies", "memory growth, in arrays", "", False),
)
SLOW = (DELIVERIES, Figure("grown_megabytes", "memory growth", "MB"))
START = (
    Figure("import_ms", "import ebus_jupyter", "ms", False),
    Figure("load_ext_ms", "%load_ext", "ms"),
    Figure("load_ext_cpu_ms", "%load_ext, CPU", "ms", False),
    Figure("server_extension_ms", "server extension", "ms", False),
)


@dataclass(frozen=True)
class Effort:
    """The amount of work. The defaults take several minutes. ``memory``: also measure ebus_jupyter with the memory backend."""

    rounds: int = 3
    seconds: float = 2.0
    subscribers: tuple[int, ...] = (100, 1_000)
    growth: tuple[int, ...] = (10, 100, 2_000)
    pages: int = 20
    size: int = 200
    lone: int = 200
    writes: int = 100_000
    in_flight: int = 5_000
    replay: int = 10_000
    connections: int = 2_000
    buses: int = 2_000
    cells: int = 100
    megabytes: int = 8
    starts: int = 5
    memory: bool = True


QUICK = Effort(
    rounds=1,
    seconds=0.05,
    subscribers=(3,),
    growth=(1, 2, 3),
    pages=2,
    lone=2,
    writes=400,
    in_flight=20,
    replay=100,
    connections=5,
    buses=5,
    cells=2,
    megabytes=1,
    starts=1,
    memory=False,
)
"""Enough to check that everything runs; the figures mean nothing."""


SLOW_SECONDS = 20.0
"""A peer that takes longer for a round runs one round only."""

Peers = dict[str, Callable[[], Row]]
Note = Callable[[str], None]


def measured(section: Section, peers: Peers, rounds: int, note: Note) -> Section:
    """Fill the section. A peer that is not available, or fails, is reported as failed; the others continue."""
    taken: dict[str, list[Row]] = {name: [] for name in peers}
    slow: set[str] = set()
    for n in range(1, rounds + 1):
        for name, measure in peers.items():
            if name in section.missing or name in slow:
                continue
            began = time.perf_counter()
            note(f"{section.title}: {name}, round {n} of {rounds}")
            try:
                taken[name].append(measure())
                if name != section.ours and time.perf_counter() - began > SLOW_SECONDS:
                    slow.add(name)
            except Unavailable as missing:
                section.missing[name] = str(missing)
            except Exception as failure:
                logging.getLogger(__name__).debug("a peer failed", exc_info=True)
                section.missing[name] = f"it failed: {failure!r}"
    section.rows = {name: median(rows) for name, rows in taken.items() if rows and name not in section.missing}
    return section


def fan_out(effort: Effort, note: Note) -> list[Section]:
    return [_fan_out(effort, note, subscribers) for subscribers in effort.subscribers]


def _fan_out(effort: Effort, note: Note, subscribers: int) -> Section:
    ours, floor, broadcast, events, nats = EBus("sqlite"), Floor(), Websockets(), Events(), Nats()
    goals = (
        Goal(DELIVERIES.name, 30, events.name),
        Goal(DELIVERIES.name, 8, broadcast.name),
        Goal(DELIVERIES.name, 1, nats.name),
        Goal(DELIVERIES.name, 1 / 2, floor.name),
        Goal(LAST_P50.name, 1 / 1.3, broadcast.name),
    )
    section = Section(f"Fan-out: 1 writer → {subscribers:,} subscribers, {effort.size} B", ours.name, SPREAD, goals)
    peers: list[FanOut] = [ours, *([EBus("memory")] if effort.memory else [])]
    peers += [floor, broadcast, events, nats, Tornado(), SocketIO(), Redis(), Room()]
    measure = partial(
        fanout.measure,
        subscribers=subscribers,
        size=effort.size,
        seconds=effort.seconds,
        lone=max(1, effort.lone * 100 // max(100, subscribers)),
    )
    return measured(section, _each(peers, measure), effort.rounds, note)


def growth(effort: Effort, note: Note) -> list[Section]:
    """The cost of a delivery, from few subscribers to many."""
    rows = {f"{count:,} subscribers": count for count in effort.growth}
    first, *_, last = rows
    section = Section(
        "Fan-out: the cost of a delivery as the number of subscribers grows", last, (DELIVERIES, CPU, LAST_P50)
    )
    section.goals = (Goal(DELIVERIES.name, 0.8, first),)
    peers: Peers = {
        name: lambda count=count: asyncio.run(  # type: ignore
            fanout.measure(EBus("sqlite"), subscribers=count, size=effort.size, seconds=effort.seconds, lone=5)
        )
        for name, count in rows.items()
    }
    return [measured(section, peers, effort.rounds, note)]


def pages(effort: Effort, note: Note) -> list[Section]:
    ours, comm = EBus("sqlite", state=True), Comm()
    goals = (Goal(P95.name, 16), Goal(LAST_P50.name, 5, comm.name))
    title = f"A shared widget dragged at 60 Hz: one page's change → {effort.pages} pages"
    section = Section(title, ours.name, (DELIVERIES, CPU, LAST_P50, P95, P99), goals)
    measure = partial(
        fanout.measure,
        subscribers=effort.pages,
        size=effort.size,
        seconds=effort.seconds,
        lone=effort.lone,
        burst=1,
        ahead=20,
        pause=1 / 60,
        quick_ack=True,
    )
    return [measured(section, _each([ours, comm, YPyWidgets()], measure), effort.rounds, note)]


def lone_message(effort: Effort, note: Note) -> list[Section]:
    """A lone message from one participant to another."""
    lone, warm_up = effort.lone * 5, effort.lone
    measure = partial(fanout.measure, subscribers=1, size=effort.size, seconds=0.1, lone=lone, warm_up=warm_up)
    ours, bare = EBus("sqlite"), Tornado()
    ways: dict[str, tuple[Callable[[], Row], float, float]] = {
        "page → page": (lambda: asyncio.run(measure(ours)), 0.67, 0.50),
        "kernel → kernel": (lambda: writing.kernel_to_kernel(lone=lone, warm_up=warm_up), 0.45, 0.45),
    }
    sections = []
    for way, (measure_ours, p50, p99) in ways.items():
        goals = (Goal(LAST_P50.name, p50, bare.name), Goal(P99.name, p99, bare.name))
        section = Section(f"A lone message, {way}, compared with a bare relay", ours.name, (LAST_P50, P99), goals)
        sections.append(measured(section, {ours.name: measure_ours, **_each([bare], measure)}, effort.rounds, note))
    return sections


def _each(peers: list[FanOut], measure: Callable[[FanOut], object]) -> Peers:
    return {peer.name: lambda peer=peer: asyncio.run(measure(peer)) for peer in peers}  # type: ignore


def writes(effort: Effort, note: Note) -> list[Section]:
    ours, echo, jetstream = OURS, "bare WebSocket echo", "nats-py, JetStream"
    goals = (
        Goal(WRITES[0].name, 100_000),
        Goal(WRITES[0].name, 4.9, jetstream),
        Goal(WRITES[1].name, 5.5),  # what it was before the client had no event loop
        Goal(WRITES[3].name, 0.60, echo),
    )
    title = f"A kernel's acked writes, {effort.size} B, {effort.in_flight:,} in flight"
    written = Section(title, ours, WRITES, goals)
    joined = Section(f"A late joiner: {effort.replay:,} messages, {effort.size} B", ours, JOIN)
    joined.goals = (Goal(JOIN[0].name, 150), Goal(JOIN[1].name, 20))
    bare = {"writes": effort.writes, "in_flight": effort.in_flight, "lone": effort.lone * 5, "size": effort.size}
    kept = {**bare, "replay": effort.replay}
    peers: Peers = {ours: lambda: writing.ebus("sqlite", **kept)}
    if effort.memory:
        peers["ebus_jupyter (memory)"] = lambda: writing.ebus("memory", **kept)
    peers[echo] = lambda: asyncio.run(writing.bare(**bare))
    peers[jetstream] = lambda: asyncio.run(writing.jetstream(**kept))
    measured(written, peers, effort.rounds, note)
    joined.rows = {name: row for name, row in written.rows.items() if JOIN[0].name in row}
    joined.missing = written.missing
    return [written, joined]


def many(effort: Effort, note: Note) -> list[Section]:
    goals = (Goal(SCALE[0].name, 25), Goal(SCALE[1].name, 2), Goal(SCALE[3].name, 2))
    section = Section(f"{effort.connections:,} connections, {effort.buses:,} buses", OURS, SCALE, goals)
    measure = partial(scale.measure, connections=effort.connections, buses=effort.buses)
    return [measured(section, {OURS: lambda: asyncio.run(measure())}, 1, note)]


def cells(effort: Effort, note: Note) -> list[Section]:
    section = Section("Fairness: a cell while the buses are under full load", OURS, CELLS)
    section.goals = (Goal(CELLS[2].name, 2),)
    measure = partial(notebook.measure, cells=effort.cells, subscribers=effort.pages, size=effort.size)
    return [measured(section, {OURS: lambda: asyncio.run(measure())}, effort.rounds, note)]


def big(effort: Effort, note: Note) -> list[Section]:
    readers = 10  # with one copy for each subscriber, memory would grow by more than this number of arrays
    goals = (Goal(ARRAYS[2].name, readers),)
    arrays = Section(f"Arrays of {effort.megabytes} MB → {readers} subscribers", OURS, ARRAYS, goals)
    measure = partial(large.arrays, subscribers=readers, megabytes=effort.megabytes, count=5)
    measured(arrays, {OURS: lambda: asyncio.run(measure())}, effort.rounds, note)

    with_slow, without = "with 5 stalled subscribers", "all read"
    slow = Section("Slow subscribers among fast ones", with_slow, SLOW, (Goal(DELIVERIES.name, 0.9, without),))
    spread = partial(large.slow_reader, subscribers=effort.pages, size=effort.size, seconds=effort.seconds)
    peers: Peers = {
        with_slow: lambda: asyncio.run(spread(stalled=5)),
        without: lambda: asyncio.run(spread(stalled=0)),
    }
    return [arrays, measured(slow, peers, effort.rounds, note)]


def start_up(effort: Effort, note: Note) -> list[Section]:
    ours = "ebus_jupyter"
    goals = (Goal(START[0].name, 15), Goal(START[2].name, 10), Goal(START[3].name, 100))
    section = Section("Start-up", ours, START, goals)
    return [measured(section, {ours: lambda: start.measure(effort.starts)}, 1, note)]


BENCHMARKS: dict[str, Callable[[Effort, Note], list[Section]]] = {
    "fanout": fan_out,
    "growth": growth,
    "lone-message": lone_message,
    "writes": writes,
    "pages": pages,
    "scale": many,
    "cells": cells,
    "large": big,
    "start": start_up,
}


def main(arguments: list[str] | None = None) -> None:
    standard = Effort()
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"parts to run: {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--rounds", type=int, default=standard.rounds, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=standard.seconds, help="duration of each fan-out")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON and the plot")
    parser.add_argument("--quick", action="store_true", help="only check that everything runs")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - set(BENCHMARKS)
    if unknown:
        parser.error(f"unknown part: {', '.join(sorted(unknown))}; the parts are {', '.join(BENCHMARKS)}")
    effort = QUICK if options.quick else Effort(rounds=options.rounds, seconds=options.seconds)
    allow_many_files()

    def note(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    for what, advice in missing_requirements():
        note(f"Missing: {what}. {advice}")
    sections = [section for name in options.parts or BENCHMARKS for section in BENCHMARKS[name](effort, note)]
    print(report.table(sections))
    report.write(sections, options.results)
    note(f"Wrote the figures and the plot to {options.results}")
    failed = {name for section in sections for name in section.missing}
    if failed:
        sys.exit(f"not measured: {', '.join(sorted(failed))}")
