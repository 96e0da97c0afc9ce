"""A thread for what must not run where it is found out: in a finaliser, which may run anywhere and under any lock."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from . import guard

_Job = tuple[float, int, Callable[..., Any], tuple[Any, ...]]

_jobs: SimpleQueue[_Job] = SimpleQueue()  # its `put` may be called again while it runs, by a finaliser
_numbers = itertools.count()
_running_pid = 0
_lock = threading.Lock()


def start() -> None:
    """Start the thread, unless it runs. Not to be called by a finaliser."""
    global _running_pid
    if _running_pid != os.getpid():
        with _lock:
            if _running_pid != os.getpid():
                _running_pid = os.getpid()
                threading.Thread(target=_run, name="ebus-background", daemon=True).start()


def later(seconds: float, function: Callable[..., Any], *args: Any) -> None:
    """Call ``function`` after that many seconds, on the background thread. May be called by a finaliser."""
    _jobs.put((time.monotonic() + seconds, next(_numbers), function, args))


def _run() -> None:
    waiting: list[_Job] = []
    while True:
        try:
            heapq.heappush(waiting, _jobs.get(timeout=max(0.0, waiting[0][0] - time.monotonic()) if waiting else None))
        except Empty:
            _call(heapq.heappop(waiting))


def _call(job: _Job) -> None:
    _, _, function, args = job
    guard.attempt(function, *args)


def _after_fork() -> None:
    global _lock, _jobs
    _lock = threading.Lock()
    _jobs = SimpleQueue()  # those were the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
