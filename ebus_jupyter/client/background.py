"""A thread for what must not run where it is found out: in a finaliser, which may run anywhere and under any lock.

Log records of the client's own threads go the same way. A logging handler is a program's code: it may block, or wait for a
lock whose owner is writing on a bus just then.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

logger = logging.getLogger("ebus_jupyter")

_Job = tuple[float, int, Callable[..., Any], tuple[Any, ...]]

_jobs: SimpleQueue[_Job] = SimpleQueue()  # its `put` may be called again while it runs, by a finaliser
_numbers = itertools.count()
_running_pid = 0
_is_starting = False
_lock = threading.RLock()  # a finaliser may come back here


def start() -> None:
    """Start the thread, unless it runs. Not to be called by a finaliser."""
    global _running_pid, _is_starting
    if _running_pid != os.getpid():
        with _lock:
            if _running_pid == os.getpid() or _is_starting:
                return
            _is_starting = True  # a second thread, of a finaliser that comes here, would put the jobs out of order
            try:
                threading.Thread(target=_run, args=(_jobs,), name="ebus-background", daemon=True).start()
                _running_pid = os.getpid()  # not before: where no thread can be had, the next call tries again
            finally:
                _is_starting = False


def later(seconds: float, function: Callable[..., Any], *args: Any) -> None:
    """Call ``function`` after that many seconds, on the background thread. May be called by a finaliser."""
    _jobs.put((time.monotonic() + seconds, next(_numbers), function, args))


def finish(timeout: float) -> None:
    """Wait until everything that was due by now has run. For the end of the process."""
    if _running_pid == os.getpid():
        done = threading.Event()
        later(0, done.set)
        done.wait(timeout)


def _run(jobs: SimpleQueue[_Job]) -> None:
    waiting: list[_Job] = []
    while True:
        # Nothing ends this thread, not even a want of memory: what is given up meanwhile would stay open for ever.
        with contextlib.suppress(BaseException):
            _work(jobs, waiting)


def _work(jobs: SimpleQueue[_Job], waiting: list[_Job]) -> None:
    while True:
        try:
            heapq.heappush(waiting, jobs.get(timeout=max(0.0, waiting[0][0] - time.monotonic()) if waiting else None))
        except Empty:
            _call(heapq.heappop(waiting))


def _call(job: _Job) -> None:
    _, _, function, args = job
    try:
        function(*args)
    except BaseException:
        with contextlib.suppress(BaseException):
            logger.exception("%s failed", getattr(function, "__qualname__", function))


def _after_fork() -> None:
    global _lock, _jobs, _is_starting
    _lock = threading.RLock()
    _is_starting = False
    _jobs = SimpleQueue()  # those were the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
