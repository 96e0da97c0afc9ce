"""The process's ebus thread: an event loop that runs while the main thread runs a cell."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import NamedTuple


class LoopThread(NamedTuple):
    """An event loop, and the thread that runs it."""

    pid: int
    loop: asyncio.AbstractEventLoop
    ident: int


_running: LoopThread | None = None
_lock = threading.Lock()


def loop_thread() -> LoopThread:
    """This process's ebus thread; started by the first call, and again in a forked child."""
    global _running
    with _lock:
        if _running is None or _running.pid != os.getpid():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, name="ebus", daemon=True)
            thread.start()
            assert thread.ident is not None
            _running = LoopThread(os.getpid(), loop, thread.ident)
        return _running
