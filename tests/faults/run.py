"""Runs faults in chapters: each has a server, buses and participants of its own, and is checked at its end."""

from __future__ import annotations

import random
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from .check.records import load
from .check.table import Table
from .check.verdict import judge
from .faults import KernelFaults, PageFaults, ServerFaults, disturb_line
from .server import Starter
from .stage import Stage


def run(
    folder: Path,
    *,
    seconds: float,
    faults: int,
    seed: int,
    chapter_seconds: float = 60.0,
    chapters: Sequence[str] = ("server", "kernels"),
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
            try:
                play(here, starter, seed * 1000 + chapter, left, chapters[(chapter - 1) % len(chapters)])
            except Exception:  # of the suite itself, on a machine with too much to do: the next chapter has its turn
                table.broken.append(f"chapter {chapter} broke off, and does not count:\n{traceback.format_exc()}")
                tell(table.broken[-1])
                continue
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


KINDS = {"server": ServerFaults, "kernels": KernelFaults, "pages": PageFaults}
"""What a chapter is about. It has two participants of that kind (Python clients, for the server), and four raw ones."""


def play(folder: Path, starter: Starter, seed: int, seconds: float, about: str) -> None:
    """One chapter."""
    actors = {"processes" if about == "server" else about: 2}
    stage = Stage(folder, starter, seed, **{"processes": 0, **actors})
    stop = threading.Event()
    disturbers: list[threading.Thread] = []
    try:
        stage.open()
        rng = random.Random(seed)
        for n in range(len(stage.lines())):
            disturber = threading.Thread(target=disturb_line, args=(stage, n, rng.random(), stop), daemon=True)
            disturbers.append(disturber)
            disturber.start()
        faults = KINDS[about](stage)
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
