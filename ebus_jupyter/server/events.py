"""A bus as a stream of server-sent events: ``GET ebus/api/buses/{scope}/{name}/events?since=``.

The id of an event is a `Position`. A browser that reconnects sends the last one as ``Last-Event-ID``, and the stream
resumes there, or begins with an event ``lagged`` that says what was missed. An event ``closed`` ends the stream when the
bus ends. Comments keep an idle connection open.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any

from jupyter_server.auth.decorator import authorized
from tornado import web
from tornado.iostream import StreamClosedError

from ebus_jupyter.core.protocol import frames, json_value
from ebus_jupyter.core.protocol.position import Position
from ebus_jupyter.errors import Closed, ConnectionLost, EbusError, Lagged

from .request_client import Missed, Since, filtered_by_of
from .rest_handler import QUICK_BYTES, RestHandler, encode_json


class EventsHandler(RestHandler):
    """``ebus/api/buses/{scope}/{name}/events``"""

    lasts = True
    _is_disconnected = False

    @web.authenticated
    @authorized
    async def get(self, scope: str, name: str) -> None:
        where = self._resume_position()
        async with self.client() as client:
            bus = await client.open(scope, name, create=False)
            reading = await client.read(bus, where, live=True)
            self.set_header("Content-Type", "text/event-stream; charset=utf-8")
            self.set_header("Cache-Control", "no-store")
            self.set_header("X-Accel-Buffering", "no")
            self.write("retry: 1000\n\n")
            keep_alive = asyncio.ensure_future(self._keep_alive())
            try:
                await self.flush()
                async for batch in reading:
                    for item in batch:
                        size = len(item.value) if isinstance(item, frames.Delivery) else 0
                        self.write(await self.on_thread(partial(_event_of, bus, item), size))
                        if size > QUICK_BYTES:
                            await self.flush()
                    await self.flush()  # until the socket has taken it; the broker bounds what it sends meanwhile
            except Closed as closed:
                self.write(_event("closed", _error(closed)))
            except (ConnectionLost, StreamClosedError):
                pass  # a browser reconnects, and resumes
            finally:
                keep_alive.cancel()
        if not self._is_disconnected:
            await self.finish()

    def on_connection_close(self) -> None:
        self._is_disconnected = True
        super().on_connection_close()

    def _resume_position(self) -> Since:
        last_id = self.request.headers.get("Last-Event-ID")
        if not last_id:
            return self.since()
        # An unknown id is treated as a position in another history, so that its sender receives `lagged` and the messages.
        # An error would end an EventSource for good.
        return Position.parse(last_id) or Position("0", 0)

    async def _keep_alive(self) -> None:
        pause = self.services.ping_interval
        while pause:
            await asyncio.sleep(pause)
            self.write(": still here\n\n")
            with contextlib.suppress(StreamClosedError):
                await self.flush()


def _event_of(bus: frames.Opened, item: frames.Delivery | Missed) -> bytes:
    if isinstance(item, frames.Delivery):
        message = json_value.message(item, filtered_by_of(bus))
        return _event("", message, Position(bus.epoch, item.offset, message["id"]))
    lag = Lagged(skipped=item.skipped, resume_after=item.resume_after)
    return _event("lagged", _error(lag), Position(bus.epoch, item.resume_after))


def _error(error: EbusError) -> dict[str, Any]:
    return {"code": error.code, "text": error.text, "details": error.details}


def _event(kind: str, data: Any, id_: Position | None = None) -> bytes:
    lines = [*([f"event: {kind}"] if kind else []), *([f"id: {id_}"] if id_ is not None else [])]
    return "".join(f"{line}\n" for line in lines).encode() + b"data: " + encode_json(data) + b"\n\n"
