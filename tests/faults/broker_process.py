"""A broker on a WebSocket and a SQLite file, as a process that can be killed.

``python -m tests.faults.broker_process FILE PORT`` prints its port once it is ready. Every connection counts as Ann's kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from ebus_jupyter.backends.sqlite import SqliteBackend
from ebus_jupyter.broker.host import Broker
from ebus_jupyter.core.protocol.message import Participant

ANN = Participant("", "kernel", "ann", "Ann", "k1")


class Outlet:
    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._size = 0
        self._drained: Callable[[], None] | None = None

    @staticmethod
    def pack(parts: list[bytes]) -> bytes:
        return b"".join(parts)

    def send_packed(self, packed: bytes) -> None:
        self._size += len(packed)
        self.queue.put_nowait(packed)

    def buffered(self) -> int:
        return self._size

    def on_drain(self, callback: Callable[[], None]) -> None:
        self._drained = callback

    def close(self, code: int, reason: str) -> None:
        self.queue.put_nowait(None)

    async def carry(self, socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while (message := await self.queue.get()) is not None:
                await socket.send(message)
                self._size -= len(message)
                if not self._size and self._drained is not None:
                    drained, self._drained = self._drained, None
                    drained()
        await socket.close()


async def main(file: str, port: int) -> None:
    broker = Broker(SqliteBackend(file))
    await broker.start()

    async def handle(socket: ServerConnection) -> None:
        outlet = Outlet()
        connection = broker.attach(ANN, outlet)
        carrying = asyncio.create_task(outlet.carry(socket))
        try:
            async for message in socket:
                assert isinstance(message, bytes)
                await (connection.receive(message) or asyncio.sleep(0))
        except ConnectionClosed:
            pass
        finally:
            connection.close()
            carrying.cancel()

    async with serve(handle, "127.0.0.1", port, max_size=None, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
