"""Measuring: the CPU time and memory of a process, percentiles, medians of rounds."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

import psutil

TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01
"""The resolution of CPU times: a process that used less counts as having used this much."""

Row = dict[str, float]
"""The result of one round of one peer: figures by name."""


def allow_many_files() -> None:
    """Allow this process and its children as many open files as the system permits."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def percentile(times: Sequence[float], share: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median(rows: Iterable[Row]) -> Row:
    """The median of each figure over the rounds."""
    rows = list(rows)
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


class Span:
    """Wall-clock and CPU seconds until `stop`. The CPU time is that of process ``pid``, without its children."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._cpu = self._used()
        self._began = time.perf_counter()
        self.wall = self.cpu = 0.0

    def stop(self) -> Span:
        self.wall = time.perf_counter() - self._began
        self.cpu = max(TICK_SECONDS, self._used() - self._cpu)
        return self

    def megabytes(self) -> float:
        """The resident memory of the process, now."""
        return float(self._process.memory_info().rss) / 2**20

    def _used(self) -> float:
        times: Any = self._process.cpu_times()
        return float(times.user + times.system)
