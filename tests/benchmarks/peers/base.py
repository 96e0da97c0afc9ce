"""What a benchmark asks of each peer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from tornado.web import Application

from tests.benchmarks.wire import Line, frame

ROOT = Path(__file__).parents[3]


class Unavailable(Exception):
    """The peer can't be had here; the message says what is missing."""


class Running(NamedTuple):
    """A server that runs: its process, and where it listens on this machine."""

    pid: int
    port: int


class FanOut(Protocol):
    """Spreads what one writer says to all who listen."""

    name: str

    def serve(self) -> AbstractContextManager[Running]:
        """Run the server, in a process of its own. Raises `Unavailable`."""

    async def listen(self, line: Line) -> None:
        """Make ``line`` a subscriber; returns once the server has taken it in."""

    async def enter(self, line: Line) -> None:
        """Make ``line`` the writer."""

    def pack(self, texts: list[str]) -> bytes:
        """The bytes with which the writer writes these, each a message of its own, at once."""


class Module:
    """A peer that is a module beside this one, run by `python`: it serves `LISTEN` to subscribers and `WRITE` to the writer."""

    LISTEN, WRITE = "/listen", "/write"

    def serve(self) -> AbstractContextManager[Running]:
        return python(type(self).__module__)

    async def listen(self, line: Line) -> None:
        await line.upgrade(self.LISTEN)

    async def enter(self, line: Line) -> None:
        await line.upgrade(self.WRITE)

    def pack(self, texts: list[str]) -> bytes:
        return b"".join([frame(text.encode()) for text in texts])


async def listen_with(application: Application) -> None:
    """Serve ``application`` on a free port, print it, and go on for ever: what a module run by `python` does."""
    server = application.listen(0, "127.0.0.1")
    (socket_,) = server._sockets.values()
    print(socket_.getsockname()[1], flush=True)
    await asyncio.Event().wait()


def environment(**more: str) -> dict[str, str]:
    """That of a process that can import these modules, and keeps what it compiled, as an installed package is."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", **more}


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextlib.contextmanager
def python(module: str, *args: str) -> Iterator[Running]:
    """Run ``module`` as a server that prints its port when it is ready."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *args], cwd=ROOT, env=environment(), stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            if not said.isdigit():
                raise Unavailable(f"{module} did not start")
            yield Running(process.pid, int(said))
        finally:
            process.kill()
