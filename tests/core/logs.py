"""The durable logs of a play: what the next server finds after this one was killed."""

from __future__ import annotations

import shutil
from collections.abc import Coroutine
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ebus_jupyter.backends.base import Backend
from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.backends.sqlite import SqliteBackend
from tests.backends.shared import SharedMemory


def perform(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the backend of a play may not wait")


class Logs:
    """Logs in memory, which the next server finds complete."""

    backend: Backend

    def __init__(self) -> None:
        self.backend = MemoryBackend()

    def kill(self) -> None:
        """Kill the server; `backend` is then the backend of the next one."""

    def close(self) -> None:
        """End the play."""


class SharedLogs(Logs):
    """Logs of an engine that several servers share."""

    backend: SharedMemory

    def __init__(self) -> None:
        self.backend = SharedMemory()


class FileLogs(Logs):
    """Logs in a file. The next server finds the file as it was when this one was killed, without having closed it."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="ebus-play-")
        self._files = count()
        self.backend = self._open()

    def _open(self) -> SqliteBackend:
        return SqliteBackend(Path(self._folder.name, f"{next(self._files)}.db"))

    def kill(self) -> None:
        old = self.backend
        assert isinstance(old, SqliteBackend)
        self.backend = new = self._open()
        for suffix in ("", "-wal"):
            left = old.path.with_name(old.path.name + suffix)
            if left.exists():
                shutil.copyfile(left, new.path.with_name(new.path.name + suffix))
        perform(old.aclose())

    def close(self) -> None:
        perform(self.backend.aclose())
        self._folder.cleanup()
