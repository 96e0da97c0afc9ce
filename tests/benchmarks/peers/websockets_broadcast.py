"""`websockets.broadcast`, as its documentation shows. No log, no types, no bounds."""

from __future__ import annotations

import asyncio

from websockets.asyncio.server import ServerConnection, broadcast, serve

from . import base


class Websockets(base.ModulePeer):
    name = "websockets.broadcast"


async def main() -> None:
    clients: set[ServerConnection] = set()

    async def handle(client: ServerConnection) -> None:
        assert client.request is not None
        if client.request.path == Websockets.WRITE:
            async for message in client:
                broadcast(clients, message)
            return
        clients.add(client)
        try:
            await client.wait_closed()
        finally:
            clients.discard(client)

    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
