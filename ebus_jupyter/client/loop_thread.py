"""The process's background event loops, each on a thread of its own, so that it runs while the main thread runs a cell."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from typing import NamedTuple

from . import guard


class LoopThread(NamedTuple):
    """An event loop, and the thread that runs it."""

    pid: int
    loop: asyncio.AbstractEventLoop
    ident: int


_running: dict[str, LoopThread] = {}
_lock = threading.RLock()  # a finaliser may come back here


def loop_thread(name: str = "ebus") -> LoopThread:
    """This process's loop thread of that name; started by the first call, and again in a forked child.

    Args:
        name: "ebus" (default) runs the embedded broker and its clients; others keep apart what may block, such as callbacks.
    """
    with _lock:
        running = _running.get(name)
        if running is None or running.pid != os.getpid():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_run, args=(loop,), name=name, daemon=True)
            try:
                thread.start()
            except BaseException:
                loop.close()  # or its descriptors would stay open
                raise
            assert thread.ident is not None
            running = _running[name] = LoopThread(os.getpid(), loop, thread.ident)
        return running


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run ``loop`` until it is stopped. A `SystemExit` of one task ends `run_forever`; the others are not to end with it."""
    is_stopped = False
    while not is_stopped:
        try:
            loop.run_forever()
            is_stopped = True
        except BaseException as error:
            guard.log_soon(logging.ERROR, "something that runs on a background loop of ebus has failed", error)


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # the parent's may have been held at that moment


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
