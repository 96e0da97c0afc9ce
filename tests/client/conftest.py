"""Clients of one broker, in this process, each on the ebus thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ebus_jupyter.backends.base import Backend
from ebus_jupyter.broker.host import Broker
from ebus_jupyter.broker.outlet import Authorizer
from ebus_jupyter.client.client import Client
from ebus_jupyter.client.loop_thread import loop_thread
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import Kind, Participant
from ebus_jupyter.errors import ConnectionLost
from ebus_jupyter.transports.local import LocalTransport


class Line:
    """A line between clients and a broker. The line can be cut, and the broker restarted."""

    def __init__(self, limits: Limits, durable: Backend | None = None) -> None:
        self.up = True
        self._tried = threading.Event()
        self._limits = limits
        self._durable = durable
        self._open: list[LocalTransport] = []
        self._clients: list[Client] = []
        self.loop = loop_thread().loop
        self.start()

    def start(self) -> None:
        self.broker = Broker(self._durable, limits=self._limits)
        self.run(self.broker.start())

    def restart(self) -> None:
        """Stop the broker; let a client fail to connect; start another broker."""
        self.run(self.broker.aclose())
        self._tried.clear()
        assert self._tried.wait(10)
        self.start()

    def run(self, job: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(job, self.loop).result(10)

    def client(
        self,
        user: str = "alice",
        kernel: str = "k1",
        kind: Kind = "kernel",
        *,
        authorize: Authorizer | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> Client:
        async def connect() -> LocalTransport:
            self._tried.set()
            if not self.up:
                raise ConnectionLost("the line is cut")
            who = Participant("", kind, user, user.title(), kernel if kind == "kernel" else "")
            self._open.append(LocalTransport(lambda outlet: self.broker.attach(who, outlet, authorize=authorize)))
            return self._open[-1]

        client = Client(connect, where="the test's broker", loop=loop)
        self._clients.append(client)
        return client

    def cut(self) -> None:
        """Lose every connection, and allow no new one until `mend`."""
        self.up = False

        async def lose() -> None:
            for transport in self._open:
                await transport.aclose()

        self.run(lose())

    def mend(self) -> None:
        self.up = True

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.run(self.broker.aclose())


@pytest.fixture
def make_line() -> Iterator[Callable[..., Line]]:
    made: list[Line] = []

    def make(durable: Backend | None = None, **limits: float) -> Line:
        made.append(Line(Limits(**limits), durable))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for line in made:
        line.close()


@pytest.fixture
def line(make_line: Callable[..., Line]) -> Line:
    return make_line()
