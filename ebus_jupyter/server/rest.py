"""Buses over plain HTTP: for shell scripts, dashboards, and languages without a client. Bodies are JSON.

| | |
| --- | --- |
| ``GET  ebus/api/buses?after=&limit=&find=`` | the named buses within reach, page by page |
| ``GET  ebus/api/buses/{scope}/{name}/messages?since=&limit=`` | the messages in the log |
| ``POST ebus/api/buses/{scope}/{name}/messages`` | write: ``{"value": …}``; 201 and the offset |
| ``GET  ebus/api/buses/{scope}/{name}/events?since=`` | a stream of server-sent events (`events`) |
| ``GET  ebus/api/openapi.json`` | the description of all this for programs (`openapi`) |

A page of a foreign origin is refused, as at the WebSocket. A request is authenticated by Jupyter's identity provider, as in
the rest of Jupyter's API; a write with a cookie needs ``X-XSRFToken``. Its user participates for the length of the request, as
a sender of kind "client". The Authorizer is asked as for the WebSocket. Scope "user" is that user's own; scope "kernel" is not
accessible here.

Reading creates no bus; writing does, with the defaults. Values that JSON can't represent are encoded as in
`core.protocol.json_value`.

A write may carry ``Idempotency-Key``: any text that is not used again, such as a fresh UUID. A repeated request with the
same key is not written again, but answered with the first offset. A key is for one write, and means something else to each
user.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import partial
from typing import Any

import msgspec
from jupyter_server.auth.decorator import authorized
from tornado import web

import ebus_jupyter
from ebus_jupyter.core.protocol import frames, json_value
from ebus_jupyter.core.protocol.message import BusSpec
from ebus_jupyter.core.protocol.position import Position
from ebus_jupyter.errors import ProtocolError, TooLarge

from .events import EventsHandler
from .openapi import BUSES, BUSES_DEFAULT, LIMIT, LIMIT_DEFAULT, document
from .request_client import Missed, filtered_by_of
from .rest_handler import RestHandler, encode_json
from .services import Services

FIELDS = 4096
"""More commas than a body has besides those of its value."""

_KEY = re.compile(r"[!-~]{16,128}")


class Write(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a POST: either ``value`` or ``deleted`` is given."""

    value: Any = msgspec.UNSET
    key: str | None = None
    deleted: bool = False
    to: str | list[str] | None = None
    expect: int | float | None = None  # JSON does not tell 3.0 from 3


_decode_write = msgspec.json.Decoder(Write).decode


class BusesHandler(RestHandler):
    """``ebus/api/buses``"""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        self.check_query("after", "limit", "find")
        after, find = self.get_query_argument("after", ""), self.get_query_argument("find", "")
        limit = self.limit(BUSES, BUSES_DEFAULT)
        async with self.client() as client:
            page = await client.buses(after, limit, find)
        self.answer({"buses": [_summary(bus) for bus in page.buses], "next": page.following or None})


def _summary(bus: dict[str, Any]) -> dict[str, Any]:
    spec = msgspec.convert(bus["spec"], BusSpec, strict=False)
    return {
        "address": bus["address"],
        "scope": bus["scope"],
        "name": bus["name"],
        "spec": {
            "type": spec.type,
            "schema": spec.schema,
            "emits": spec.emits,
            "retain": spec.retain,
            "size": spec.size,
            "filter": spec.filter,
        },
        "participants": bus["participants"],
        "last": bus["last"],
    }


class MessagesHandler(RestHandler):
    """``ebus/api/buses/{scope}/{name}/messages``"""

    allows = "GET, POST, OPTIONS"

    @web.authenticated
    @authorized
    async def get(self, scope: str, name: str) -> None:
        limit = self.limit(LIMIT, LIMIT_DEFAULT)
        since = self.since()
        room = self.services.broker.limits.batch_bytes
        messages: list[bytes] = []
        missed: int | None = 0
        async with self.services.turns.of(self.user_name), self.client() as client:
            bus = await client.open(scope, name, create=False)
            filtered_by = filtered_by_of(bus)
            reading = await client.read(bus, "start" if since is None else since, live=False)
            position = reading.position
            more = False
            async for batch in reading:
                for item in batch:
                    if isinstance(item, Missed):
                        missed = item.skipped
                        position = Position(bus.epoch, item.resume_after)
                    elif len(messages) < limit and (room > 0 or not messages):
                        form = partial(json_value.message, item, filtered_by)
                        messages.append(await self.in_json(form, len(item.value)))
                        room -= len(messages[-1])
                        position = Position(bus.epoch, item.offset, item.message_id)
                    else:
                        more = True
                        break
                if more or ((len(messages) == limit or room <= 0) and reading.more):
                    more = True
                    break
            else:
                position = reading.position
        rest = encode_json({"next": str(position), "more": more, "missed": missed})
        self.set_status(200)
        self.finish(b'{"messages":[' + b",".join(messages) + b"]," + rest[1:])

    @web.authenticated
    @authorized
    async def post(self, scope: str, name: str) -> None:
        write, value = await self.on_thread(self._write, len(self.request.body))
        to = [write.to] if isinstance(write.to, str) else write.to
        async with self.client(may_write=True, instance=self._instance()) as client:
            bus = await client.open(scope, name, create=True)
            offset = await client.write(bus, value, key=write.key, deleted=write.deleted, to=to, expect=write.expect)
        self.answer({"offset": offset}, 201)

    def _write(self) -> tuple[Write, bytes]:
        """The write that the body describes, and its encoded value."""
        body = self.request.body
        limits = self.services.broker.limits
        if len(body) > limits.batch_bytes:
            raise TooLarge(
                f"a request of {len(body)} bytes is over this server's limit `batch_bytes` ({limits.batch_bytes}).",
                limit="batch_bytes",
            )
        # Each comma stands between two items, or in a text: it is a byte of the value at least. Decoded, it would be many.
        if body.count(b",") > limits.value_bytes + FIELDS:
            raise TooLarge(
                f"the value has more than {limits.value_bytes} bytes; no more may travel (the server's limit `value_bytes`).",
                limit="value_bytes",
            )
        try:
            write = _decode_write(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f'the body is not a write in JSON, such as {{"value": 1}}: {error}.') from None
        if write.deleted == (write.value is not msgspec.UNSET):
            raise ProtocolError('a write has either a "value" or "deleted": true.')
        if write.expect is not None:
            if not (0 <= write.expect < 1 << 53 and write.expect == int(write.expect)):
                raise ProtocolError(f'"expect" is an offset, not {write.expect}.')
            write.expect = int(write.expect)
        return write, b"\xc0" if write.deleted else json_value.from_json(write.value)

    def _instance(self) -> str:
        key = self.request.headers.get("Idempotency-Key")
        if key is None:
            return ""
        if not _KEY.fullmatch(key):
            raise ProtocolError("an Idempotency-Key has 16 to 128 printable ASCII characters; use a fresh UUID.")
        secret = self.settings["cookie_secret"]
        user = self.current_user.username.encode()
        said = b"ebus_jupyter idempotency %d %b %b" % (len(user), user, key.encode())
        return hmac.new(secret, said, hashlib.sha256).hexdigest()[:32]


class StatusHandler(RestHandler):
    """``ebus/api/status``: the version of this package, and of the protocol that its broker speaks."""

    needs_broker = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        self.answer({"version": ebus_jupyter.__version__, "protocol": frames.VERSION})


class OpenApiHandler(RestHandler):
    """``ebus/api/openapi.json``"""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        self.answer(document(self.base_url, ebus_jupyter.__version__))


def routes(services: Services) -> list[tuple[str, type[RestHandler], dict[str, Any]]]:
    """Return the handlers of the HTTP API, with their URLs below the server's base URL."""
    arguments = {"services": services}
    bus = r"ebus/api/buses/([^/]+)/([^/]+)"
    return [
        (r"ebus/api/status", StatusHandler, arguments),
        (r"ebus/api/openapi\.json", OpenApiHandler, arguments),
        (r"ebus/api/buses", BusesHandler, arguments),
        (bus + "/messages", MessagesHandler, arguments),
        (bus + "/events", EventsHandler, arguments),
    ]
