"""Taking a figure: a process's CPU and memory, percentiles, medians of rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

import psutil

Row = dict[str, float]
"""What one round of one peer came to: the figure's name and its number."""


def allow_many_files() -> None:
    """Let this process, and those that it starts, have as many connections as the system allows."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def percentile(times: Sequence[float], share: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median(rows: Iterable[Row]) -> Row:
    """Figure by figure, over the rounds."""
    rows = list(rows)
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


TICK = 0.01
"""The system counts CPU time in hundredths of a second; a starved process may have used less than one."""


class Span:
    """The wall and CPU seconds from here to `stop`. The CPU is that of process ``pid``, its children left out."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._cpu = self._used()
        self._began = time.perf_counter()
        self.wall = self.cpu = 0.0

    def stop(self) -> Span:
        self.wall = time.perf_counter() - self._began
        self.cpu = max(self._used() - self._cpu, TICK)
        return self

    def megabytes(self) -> float:
        """The process's resident memory now."""
        return float(self._process.memory_info().rss) / 2**20

    def _used(self) -> float:
        times: Any = self._process.cpu_times()
        return float(times.user + times.system)
