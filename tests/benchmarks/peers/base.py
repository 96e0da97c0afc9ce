"""The interface of a peer, and how its server is run."""

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

from tests.benchmarks.wire import RawClient, frame

ROOT = Path(__file__).parents[3]


class Unavailable(Exception):
    """The peer cannot run here; the message names what is missing."""


class Running(NamedTuple):
    """A running server: its process, and its port on this machine."""

    pid: int
    port: int


class FanOut(Protocol):
    """A server that sends what one writer writes to all subscribers."""

    name: str

    def serve(self) -> AbstractContextManager[Running]:
        """Run the server in a process of its own. Raises `Unavailable`."""

    async def subscribe(self, client: RawClient) -> None:
        """Make ``client`` a subscriber; returns when the server has added it."""

    async def join(self, client: RawClient) -> None:
        """Make ``client`` the writer."""

    def pack(self, texts: list[str]) -> bytes:
        """The bytes that write ``texts`` at once, each as a message of its own."""


class ModulePeer:
    """A peer in a module beside this one, run by `run_module`: it serves `LISTEN` to subscribers and `WRITE` to the writer."""

    LISTEN, WRITE = "/listen", "/write"

    def serve(self) -> AbstractContextManager[Running]:
        return run_module(type(self).__module__)

    async def subscribe(self, client: RawClient) -> None:
        await client.upgrade(self.LISTEN)

    async def join(self, client: RawClient) -> None:
        await client.upgrade(self.WRITE)

    def pack(self, texts: list[str]) -> bytes:
        return b"".join([frame(text.encode()) for text in texts])


async def serve_application(application: Application) -> None:
    """Serve ``application`` on a free port, print the port, and run for ever: the main function of a `run_module` module."""
    server = application.listen(0, "127.0.0.1")
    (socket_,) = server._sockets.values()
    print(socket_.getsockname()[1], flush=True)
    await asyncio.Event().wait()


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that can import these modules, with bytecode caching, like an installed package."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", **more}


def free_port() -> int:
    """A port that is free at the moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextlib.contextmanager
def run_module(module: str, *args: str) -> Iterator[Running]:
    """Run ``module`` as a server that prints its port when it is ready."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *args], cwd=ROOT, env=environment(), stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            printed = process.stdout.readline().strip()
            if not printed.isdigit():
                raise Unavailable(f"{module} did not start")
            yield Running(process.pid, int(printed))
        finally:
            process.kill()
