"""A broker and its clients on the test's own loop, without a server."""

from __future__ import annotations

import asyncio
from typing import Any

from ebus_jupyter.broker.host import Broker
from ebus_jupyter.client.client import Client
from ebus_jupyter.client.driver import LoopDriver
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.server.participants import ServerClient
from ebus_jupyter.transports.local import LocalTransport


class Room:
    def __init__(self) -> None:
        self.broker = Broker()
        self.clients: list[Client] = []

    async def __aenter__(self) -> Room:
        await self.broker.start()
        return self

    async def __aexit__(self, *raised: object) -> None:
        for client in self.clients:
            client.close()
        await self.broker.aclose()

    def server(self, name: str = "server") -> ServerClient:
        async def ready() -> None:
            pass

        client = ServerClient(self.broker, ready, asyncio.get_running_loop(), name)
        self.clients.append(client)
        return client

    def client(self, user: str) -> Client:
        """Make a user's client on the same loop, which it must not block either."""

        async def connect() -> LocalTransport:
            return LocalTransport(lambda outlet: self.broker.attach(Participant("", "client", user), outlet))

        client = Client(
            LoopDriver(connect, asyncio.get_running_loop()), where="the room", loop=asyncio.get_running_loop()
        )
        self.clients.append(client)
        return client


async def next_of(stream: Any) -> Any:
    """Wait for the next item of a stream, at most 10 seconds."""
    return await asyncio.wait_for(anext(stream), 10)
