"""Runs faults in chapters: each has a server, buses and participants of its own, and is checked at its end."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .check.records import load
from .check.table import Table
from .check.verdict import judge
from .faults import ServerFaults, disturb_line
from .server import Starter
from .stage import Process, Stage


def run(
    folder: Path,
    *,
    seconds: float,
    faults: int,
    seed: int,
    chapter_seconds: float = 60.0,
    tell: Callable[[str], None] = print,
) -> Table:
    """Let faults happen for ``seconds``, or until there were ``faults``; the folder of a chapter with a violation is kept."""
    table = Table()
    starter = Starter()
    until = time.monotonic() + seconds
    chapter = 0
    try:
        while time.monotonic() < until and sum(table.faults.values()) < faults:
            chapter += 1
            here = folder / f"chapter-{chapter}"
            left = min(chapter_seconds, until - time.monotonic())
            before = len(table.violations)
            play(here, starter, seed * 1000 + chapter, left)
            judge(load(here / "records"), table)
            count = sum(table.faults.values())
            tell(
                f"chapter {chapter}: {count} faults, {len(table.violations)} violations, {table.total[1]:,} messages heard"
            )
            for violation in table.violations[before : before + 10]:
                tell(f"  {violation}")
            if len(table.violations) == before:
                shutil.rmtree(here)
    finally:
        starter.close()
    return table


def play(folder: Path, starter: Starter, seed: int, seconds: float) -> None:
    """One chapter."""
    stage = Stage(folder, starter, seed)
    stop = threading.Event()
    disturbers: list[threading.Thread] = []
    try:
        stage.open()
        rng = random.Random(seed)
        for n in range(len(stage.processes)):
            line = stage.processes[n].line
            assert line is not None
            name = lambda n=n: stage.processes[n].name  # noqa: E731
            disturbers.append(
                threading.Thread(target=disturb_line, args=(stage, name, line, rng.random(), stop), daemon=True)
            )
        for raw, _, line in stage.raws:
            name = lambda raw=raw: raw.name  # noqa: E731
            disturbers.append(
                threading.Thread(target=disturb_line, args=(stage, name, line, rng.random(), stop), daemon=True)
            )
        for disturber in disturbers:
            disturber.start()
        faults = ServerFaults(stage)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            faults.one()
            stage.stopped.wait(rng.uniform(0.0, 1.0))
        stop.set()
        for disturber in disturbers:
            disturber.join()
        stage.close()
    finally:
        stop.set()
        stage.abandon()


__all__ = ["Process", "play", "run"]
