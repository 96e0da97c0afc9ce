"""The end of a process, and its copies: a process that ends waits for the answers to its writes; a fork has no connection.

A process that ends waits for at most `EXIT_SECONDS`, over all its clients. A child of ``multiprocessing`` runs no `atexit`
handlers where it was forked, so there it is ``multiprocessing`` that is asked. In a forked child, whatever was inherited
raises `Closed`, and whatever waits for an answer has it: the sockets and threads are the parent's.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from typing import Protocol
from weakref import WeakSet

from ebus_jupyter.errors import Closed, EbusError

from . import background, guard, unseen

EXIT_SECONDS = 3.0
"""The time that a process that ends waits for the answers to its writes, over all its clients."""


class Ending(Protocol):
    """A connection, as the end of its process concerns it."""

    def flush_at_exit(self, timeout: float) -> None:
        """Wait for the answers to writes, and log how many have none."""

    def forked(self, error: EbusError) -> None:
        """This is a copy in a forked child: end it with ``error``, without a lock, a thread or a socket."""


LOG_SECONDS = 1.0
"""The time that a process that ends waits until what is to be logged has been."""

_connections: WeakSet[Ending] = WeakSet()
_told_pid = 0
"""The process whose end ``multiprocessing`` tells of."""


def watch(connection: Ending) -> None:
    """Tell ``connection`` of the process's end, and of forks."""
    background.start()
    _connections.add(connection)
    _ask_multiprocessing()


def _ask_multiprocessing() -> None:
    global _told_pid
    multiprocessing = sys.modules.get("multiprocessing")  # there in each of its children
    if multiprocessing is not None and multiprocessing.parent_process() is not None and _told_pid != os.getpid():
        from multiprocessing.util import Finalize

        _told_pid = os.getpid()
        Finalize(None, _end, exitpriority=-100)  # behind its own


def _end() -> None:
    deadline = time.monotonic() + EXIT_SECONDS
    for connection in list(_connections):
        guard.attempt(connection.flush_at_exit, max(0.0, deadline - time.monotonic()))
    background.finish(LOG_SECONDS)
    guard.attempt(unseen.tell_all)


def _end_at_exit() -> None:
    if _told_pid != os.getpid():
        _end()


def _after_fork() -> None:
    for connection in list(_connections):
        error = Closed(
            "this process was forked, and the ebus connections of its parent do not work here. Open what you need anew in "
            "the child (ebus.bus, ebus.connect), or start it with the multiprocessing method 'spawn'.",
            reason="forked",
        )
        guard.attempt(connection.forked, error)
    _connections.clear()


atexit.register(_end_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
