"""Buses over plain HTTP: for shell scripts, dashboards, and languages without a client. All of it is JSON.

| | |
| --- | --- |
| ``GET  ebus/api/buses`` | the named buses within reach |
| ``GET  ebus/api/buses/{scope}/{name}/messages?since=&limit=`` | what is kept |
| ``POST ebus/api/buses/{scope}/{name}/messages`` | write: ``{"value": …}``; 201 and the offset |
| ``GET  ebus/api/buses/{scope}/{name}/events?since=`` | a stream of server-sent events |
| ``GET  ebus/api/openapi.json`` | all this, for programs (`openapi`) |

Who asks is known by Jupyter's identity provider, as in the rest of Jupyter's API (a write with a cookie needs
``X-XSRFToken``), and takes part for the length of the request, as a sender of kind "client". The Authorizer is asked as
for the socket. Scope "user" is the asker's own; "kernel" is no one's here.

BusReading creates no bus; writing does, with the defaults. Values that JSON has no word for are as in
`core.protocol.json_value`.

A write may carry ``Idempotency-Key``: any text that nobody else will choose, such as a fresh UUID. Sent again with the same
key, it is not written again but answered as the first time; a key is for one write.

An error is ``{"code", "text", "details"}`` with the code of `ebus_jupyter.errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import math
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec
from jupyter_core.utils import ensure_async
from jupyter_server.auth.authorizer import AllowAllAuthorizer
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web
from tornado.iostream import StreamClosedError

import ebus_jupyter
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol import json_value as asjson
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.message import BusSpec
from ebus_jupyter.errors import Closed, ConnectionLost, EbusError, ProtocolError, TooLarge, Unauthenticated

from .kernels import participant
from .openapi import LIMIT, LIMIT_DEFAULT, document
from .request_client import Missed, Position, RequestClient, Since, since

if TYPE_CHECKING:
    from .extension import EBus

STATUS = {
    "type_mismatch": 422,
    "filtered": 422,
    "forbidden": 403,
    "too_large": 413,
    "rate_limited": 429,
    "conflict": 409,
    "spec_conflict": 409,
    "filter_unavailable": 503,
    "connection_lost": 503,
    "backend": 503,
    "closed": 410,
    "lagged": 410,
    "no_such_bus": 404,
    "invalid_name": 400,
    "unknown_scope": 400,
    "protocol": 400,
    "unauthenticated": 401,
}
"""The HTTP status of each error; 500 for what is not here."""

CODE = {400: "protocol", 403: "forbidden", 404: "no_such_bus", 405: "protocol"}
"""The code of an error that HTTP has before the bus comes into it."""

_KEY = re.compile(r"[!-~]{16,128}")
_encode = msgspec.json.Encoder().encode


class Write(msgspec.Struct, forbid_unknown_fields=True):
    """What is posted. Either ``value`` or ``deleted`` is there."""

    value: Any = msgspec.UNSET
    key: str | None = None
    deleted: bool = False
    to: str | list[str] | None = None
    expect: int | float | None = None  # JSON does not tell 3.0 from 3


_read = msgspec.json.Decoder(Write).decode


class BusHandler(APIHandler):
    """What all of them share: who asks, the visit, and how errors look."""

    auth_resource = "ebus"
    allows = "GET, OPTIONS"
    bus: Address | None = None
    """The bus that the Authorizer is being asked about; None: about the request at all."""

    def initialize(self, ebus: EBus) -> None:
        self._ebus = ebus
        self._visit: RequestClient | None = None

    async def prepare(self) -> None:  # type: ignore[override]
        await super().prepare()
        await self._ebus.ready()

    @contextlib.asynccontextmanager
    async def visit(self, *, may_write: bool = False, instance: str = "") -> AsyncIterator[RequestClient]:
        """Take part, as the user who asks."""
        who = participant("client", self.current_user)
        authorize = None if isinstance(self.authorizer, AllowAllAuthorizer) else self._may
        broker, ip = self._ebus.broker, self.request.remote_ip or ""

        async with RequestClient(
            lambda outlet: broker.attach(who, outlet, may_write=may_write, authorize=authorize, ip=ip), instance
        ) as self._visit:
            yield self._visit

    async def _may(self, bus: Address, action: str) -> bool:
        self.bus = bus
        return bool(await ensure_async(self.authorizer.is_authorized(self, self.current_user, action, "ebus")))

    def on_connection_close(self) -> None:
        if self._visit is not None:
            self._leaving = asyncio.ensure_future(self._visit.leave())

    def since(self) -> Since:
        text = self.get_query_argument("since", None)
        return None if text is None else since(text)

    def answer(self, found: Any, status: int = 200) -> None:
        self.set_status(status)
        self.finish(_encode(found))

    # --- errors -----------------------------------------------------------------------------------------------------

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        failure = kwargs.get("exc_info", (None, None))[1]
        if isinstance(failure, web.HTTPError) and status_code == 403 and self._stranger:
            failure = Unauthenticated("this server does not know you: send its token as 'Authorization: token TOKEN'.")
            kwargs["exc_info"] = (type(failure), failure, None)
        if isinstance(failure, EbusError):
            status_code = STATUS.get(failure.code, 500)
        super().send_error(status_code, **kwargs)

    @property
    def _stranger(self) -> bool:
        # Asked without `current_user`, which can't be asked before the identity provider was.
        return getattr(self, "_jupyter_current_user", None) is None

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        failure = kwargs.get("exc_info", (None, None))[1]
        if isinstance(failure, EbusError):
            answer = {"code": failure.code, "text": failure.text, "details": failure.details}
            if failure.temporary:
                self.set_header("Retry-After", str(math.ceil(failure.details.get("retry_after", 1))))
        else:
            said = failure.log_message if isinstance(failure, web.HTTPError) else None
            answer = {"code": CODE.get(status_code, "error"), "text": said or self._reason, "details": {}}
        if status_code == 405:
            self.set_header("Allow", self.allows)
        if status_code == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        self.finish(_encode(answer))

    def log_exception(self, *exc_info: Any) -> None:
        if isinstance(exc_info[1], EbusError):
            self.log.info("ebus: refused %s: %s", self.request.path, exc_info[1].text)
        else:
            super().log_exception(*exc_info)


class BusesHandler(BusHandler):
    """``ebus/api/buses``"""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        async with self.visit() as visit:
            found = await visit.buses()
        self.answer([_described(bus) for bus in found])


def _described(bus: dict[str, Any]) -> dict[str, Any]:
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


class MessagesHandler(BusHandler):
    """``ebus/api/buses/{scope}/{name}/messages``"""

    allows = "GET, POST, OPTIONS"

    @web.authenticated
    @authorized
    async def get(self, scope: str, name: str) -> None:
        limit = self._limit()
        where = self.since()
        found: list[dict[str, Any]] = []
        missed: int | None = 0
        async with self.visit() as visit:
            bus = await visit.open(scope, name, create=False)
            reading = await visit.read(bus, "start" if where is None else where, live=False)
            position = reading.position
            more = False
            async for batch in reading:
                for item in batch:
                    if isinstance(item, Missed):
                        missed = item.skipped
                        position = Position(bus.epoch, item.resume_after)
                    elif len(found) < limit:
                        found.append(asjson.message(item))
                        position = Position(bus.epoch, item.offset, found[-1]["id"])
                    else:
                        more = True
                if more or (len(found) == limit and reading.more):
                    more = True
                    break
            else:
                position = reading.position
        self.answer({"messages": found, "next": str(position), "more": more, "missed": missed})

    @web.authenticated
    @authorized
    async def post(self, scope: str, name: str) -> None:
        write = self._write()
        value = b"\xc0" if write.deleted else asjson.from_json(write.value)
        to = [write.to] if isinstance(write.to, str) else write.to
        async with self.visit(may_write=True, instance=self._instance()) as visit:
            bus = await visit.open(scope, name, create=True)
            offset = await visit.write(bus, value, key=write.key, deleted=write.deleted, to=to, expect=write.expect)
        self.answer({"offset": offset}, 201)

    def _limit(self) -> int:
        text = self.get_query_argument("limit", str(LIMIT_DEFAULT))
        if not re.fullmatch(r"\d{1,6}", text, re.ASCII) or not 1 <= int(text) <= LIMIT:
            raise ProtocolError(f"limit={text[:20]!r} is outside 1…{LIMIT}.")
        return int(text)

    def _write(self) -> Write:
        body = self.request.body
        bound = self._ebus.limits.batch_bytes
        if len(body) > bound:
            raise TooLarge(
                f"a request of {len(body)} bytes is over this server's limit `batch_bytes` ({bound}).",
                limit="batch_bytes",
            )
        try:
            write = _read(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f'the body is not the JSON of a write, such as {{"value": 1}}: {error}.') from None
        if write.deleted == (write.value is not msgspec.UNSET):
            raise ProtocolError('a write has either a "value" or "deleted": true.')
        if write.expect is not None:
            if not (0 <= write.expect < 1 << 53 and write.expect == int(write.expect)):
                raise ProtocolError(f'"expect" is an offset, not {write.expect}.')
            write.expect = int(write.expect)
        return write

    def _instance(self) -> str:
        key = self.request.headers.get("Idempotency-Key")
        if key is None:
            return ""
        if not _KEY.fullmatch(key):
            raise ProtocolError("Idempotency-Key has 16 to 128 printable ASCII characters; a fresh UUID is a good one.")
        secret = self.settings["cookie_secret"]
        return hmac.new(secret, b"ebus_jupyter idempotency " + key.encode(), hashlib.sha256).hexdigest()[:32]


class EventsHandler(BusHandler):
    """``ebus/api/buses/{scope}/{name}/events``

    Each message is an event whose id is a `Position`, which a browser sends back as Last-Event-ID when it reconnects: it
    then goes on where it was, or gets an event ``lagged`` that says what it missed. An event ``closed`` ends the stream when
    the bus ends. Comments keep the connection open.
    """

    @web.authenticated
    @authorized
    async def get(self, scope: str, name: str) -> None:
        where = self._where()
        async with self.visit() as visit:
            bus = await visit.open(scope, name, create=False)
            reading = await visit.read(bus, where, live=True)
            self.set_header("Content-Type", "text/event-stream; charset=utf-8")
            self.set_header("Cache-Control", "no-store")
            self.set_header("X-Accel-Buffering", "no")
            self.write("retry: 1000\n\n")
            keep_alive = asyncio.ensure_future(self._keep_alive())
            try:
                await self.flush()
                async for batch in reading:
                    for item in batch:
                        self._tell(bus, item)
                    await (
                        self.flush()
                    )  # when it has left; meanwhile the broker hands over no more than a bounded amount
            except Closed as closed:
                self.write(_event("closed", {"code": closed.code, "text": closed.text, "details": closed.details}))
            except (ConnectionLost, StreamClosedError):
                pass  # whoever listens comes back, and resumes
            finally:
                keep_alive.cancel()
        if not self._gone:
            await self.finish()

    def _where(self) -> Since:
        resume = self.request.headers.get("Last-Event-ID")
        if not resume:
            return self.since()
        # An id from elsewhere is a place in some other history, and whoever sends it is told that. An error would end it.
        return Position.parse(resume) or Position("0", 0)

    def _tell(self, bus: frames.Opened, item: frames.Delivery | Missed) -> None:
        if isinstance(item, frames.Delivery):
            found = asjson.message(item)
            self.write(_event("", found, Position(bus.epoch, item.offset, found["id"])))
        else:
            lag = ebus_jupyter.Lagged(skipped=item.skipped, resume_after=item.resume_after)
            told = {"code": lag.code, "text": lag.text, "details": lag.details}
            self.write(_event("lagged", told, Position(bus.epoch, item.resume_after)))

    _gone = False

    def on_connection_close(self) -> None:
        self._gone = True
        super().on_connection_close()

    async def _keep_alive(self) -> None:
        pause = self._ebus.ping_interval
        while pause:
            await asyncio.sleep(pause)
            self.write(": still here\n\n")
            with contextlib.suppress(StreamClosedError):
                await self.flush()


def _event(kind: str, data: Any, id_: Position | None = None) -> bytes:
    lines = [*([f"event: {kind}"] if kind else []), *([f"id: {id_}"] if id_ is not None else [])]
    return "".join(f"{line}\n" for line in lines).encode() + b"data: " + _encode(data) + b"\n\n"


class OpenApiHandler(BusHandler):
    """``ebus/api/openapi.json``"""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        self.answer(document(self.base_url, ebus_jupyter.__version__))


def routes(ebus: EBus) -> list[tuple[str, type[BusHandler], dict[str, Any]]]:
    """What the extension serves of this."""
    ours = {"ebus": ebus}
    bus = r"ebus/api/buses/([^/]+)/([^/]+)"
    return [
        (r"ebus/api/openapi\.json", OpenApiHandler, ours),
        (r"ebus/api/buses", BusesHandler, ours),
        (bus + "/messages", MessagesHandler, ours),
        (bus + "/events", EventsHandler, ours),
    ]
