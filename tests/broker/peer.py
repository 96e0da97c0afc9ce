"""A participant that exchanges plain frames with a broker in this process."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import msgspec

from ebus_jupyter.broker.host import Broker
from ebus_jupyter.broker.outlet import Authorizer
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Kind, Participant
from ebus_jupyter.errors import EbusError
from ebus_jupyter.transports.base import Transport
from ebus_jupyter.transports.local import LocalTransport

F = TypeVar("F", bound=frames.Frame)


class Peer:
    """One connection. Frames that it does not read wait in its transport."""

    def __init__(self, transport: Transport, instance: str = "") -> None:
        self.transport = transport
        self.instance = instance or secrets.token_hex(16)
        self.frames: list[frames.BrokerFrame] = []
        self._messages: AsyncIterator[bytes] = aiter(transport)
        self._written = 0

    @classmethod
    async def join(
        cls,
        broker: Broker,
        user: str = "ann",
        *,
        kind: Kind = "page",
        kernel: str = "",
        authorize: Authorizer | None = None,
        outlet: type[LocalTransport] = LocalTransport,
    ) -> Peer:
        who = Participant("", kind, user, user.title(), kernel)
        peer = cls(outlet(lambda end: broker.attach(who, end, authorize=authorize)))
        await peer.hello()
        return peer

    async def hello(self) -> frames.Welcome:
        await self.send(frames.Hello(frames.VERSION, self.instance))
        return await self.expect(frames.Welcome)

    async def send(self, *sent: frames.ClientFrame) -> None:
        await self.transport.send(frames.join([frames.encode(frame) for frame in sent]))

    async def read(self) -> frames.BrokerFrame | None:
        """The next frame; None at the end of the connection."""
        while not self.frames:
            try:
                async with asyncio.timeout(20):
                    self.frames = frames.from_broker(await anext(self._messages))
            except StopAsyncIteration:
                return None
        return self.frames.pop(0)

    async def expect(self, kind: type[F]) -> F:
        """The next frame of that kind; frames before it are skipped. An error that comes first is raised."""
        while (frame := await self.read()) is not None:
            if isinstance(frame, kind):
                return frame
            if isinstance(frame, frames.Error):
                raise frame.exception()
        raise AssertionError(f"the connection ended before a {kind.__name__}")

    async def open(self, name: str | None, scope: str = "server", **spec: Any) -> frames.Opened:
        await self.send(frames.Open(1, scope, name, spec))
        return await self.expect(frames.Opened)

    async def subscribe(self, bus: int) -> frames.Subscribed:
        await self.send(frames.Subscribe(1, bus))
        return await self.expect(frames.Subscribed)

    async def publish(self, bus: int, value: Any, *, id: int = 0, **fields: Any) -> int:
        """Send a write, and return the sender's count for it."""
        self._written = id or self._written + 1
        raw = msgspec.Raw(msgspec.msgpack.encode(value))
        await self.send(frames.Publish(bus, self._written, raw, **fields))
        return self._written

    async def write(self, bus: int, value: Any, **fields: Any) -> int:
        """Write, and wait for the offset. Raises the error that refuses the write."""
        await self.publish(bus, value, **fields)
        return (await self.expect(frames.Ok)).offset

    async def values(self, count: int) -> list[Any]:
        return [msgspec.msgpack.decode((await self.expect(frames.Delivery)).value) for _ in range(count)]

    async def refusal(self) -> EbusError:
        while not isinstance(frame := await self.read(), frames.Error):
            assert frame is not None, "the connection ended before an error"
        return frame.exception()
