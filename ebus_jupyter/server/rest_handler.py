"""The base of the HTTP API's handlers: a client on the broker for each request, and errors as JSON.

An error is answered with ``{"code", "text", "details"}``, where the code is one of `ebus_jupyter.errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import msgspec
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.auth.identity import User
from jupyter_server.base.handlers import APIHandler
from tornado import web

from ebus_jupyter.broker.outlet import Connection
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.errors import EbusError, ProtocolError, Unauthenticated
from ebus_jupyter.terminal import printable
from ebus_jupyter.transports.local import LocalTransport

from .access import RESOURCE, BusAuthorizer, ensure_origin_allowed, participant
from .recheck import Recheck
from .request_client import RequestClient, Since, parse_since
from .services import Services

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
"""The HTTP status of each error code; 500 for a code that is not listed."""

CODE = {400: "protocol", 403: "forbidden", 404: "no_such_bus", 405: "protocol"}
"""The error code of each HTTP status that tornado or Jupyter answers with before a bus is involved."""

ALLOWED_HEADERS = "Accept, Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-XSRFToken"
"""The request headers that a page of an allowed origin may send."""

QUICK_BYTES = 1 << 14
"""The most bytes of a value whose conversion from JSON or to it is no work that others would notice."""

T = TypeVar("T")

encode_json = msgspec.json.Encoder().encode


class RestHandler(APIHandler):
    """Base of the HTTP API's handlers.

    Attributes:
        allows: The HTTP methods of the resource, for the header ``Allow``.
        needs_broker: Whether requests wait for the broker's start.
        lasts: Whether an answer goes on for as long as its client listens, so that its rights are looked at again.
        bus: The bus that the Authorizer is asked about; None: the request as such.
    """

    auth_resource = RESOURCE
    allows = "GET, OPTIONS"
    needs_broker = True
    lasts = False
    bus: Address | None = None

    def initialize(self, services: Services) -> None:
        self.services = services
        self._client: RequestClient | None = None

    async def prepare(self) -> None:  # type: ignore[override]
        self._recheck = Recheck(self, self.services.identities, self.log)
        ensure_origin_allowed(self, self.services.allow_origin)
        await super().prepare()
        self.services.identities.settle(self)
        if self.needs_broker:
            await self.services.ready()

    def check_origin(self, origin_to_satisfy_tornado: str = "") -> bool:
        return True  # decided in `prepare`: Jupyter's own check lets every page in that has the token

    def set_cors_headers(self) -> None:
        origin = self.request.headers.get("Origin")
        if origin:  # an allowed one
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Vary", "Origin")
            if self.allow_credentials:
                self.set_header("Access-Control-Allow-Credentials", "true")

    @allow_unauthenticated
    def options(self, *args: Any, **kwargs: Any) -> None:
        self.set_header("Access-Control-Allow-Methods", self.allows)
        self.set_header("Access-Control-Allow-Headers", ALLOWED_HEADERS)
        self.set_status(204)
        self.finish()

    @contextlib.asynccontextmanager
    async def client(self, *, may_write: bool = False, instance: str = "") -> AsyncIterator[RequestClient]:
        """Participate as the authenticated user, until the block or the HTTP connection ends.

        Args:
            may_write: True if this request may write.
            instance: Identifies the client to the broker; a write that is repeated under the same one is written once.
        """
        who = participant("client", self.current_user)
        authorizer = BusAuthorizer(self)
        broker, ip = self.services.broker, self.request.remote_ip or ""
        attached: list[Connection] = []

        def attach(outlet: LocalTransport) -> Connection:
            attached.append(
                broker.attach(who, outlet, may_write=may_write, authorize=authorizer.per_bus, ip=ip),
            )
            return attached[-1]

        async def reassess(user: User | None, _: bool) -> None:
            await attached[-1].reassess(participant("client", user), may_write)

        async with RequestClient(attach, instance) as self._client:
            if self.lasts:
                self._recheck.start(authorizer, reassess, self._recheck_failed)
            try:
                yield self._client
            finally:
                self._recheck.stop()

    def _recheck_failed(self, error: EbusError, reconnect: bool) -> None:
        self.on_connection_close()

    def on_connection_close(self) -> None:
        if self._client is not None:
            self._closing = asyncio.ensure_future(self._client.aclose())

    def check_query(self, *names: str) -> None:
        """Raise `ProtocolError` where the query has other parameters than ``names`` (and those of Jupyter)."""
        unknown = sorted(set(self.request.query_arguments) - {*names, "token", "_xsrf"})
        if unknown:
            raise ProtocolError(f"there is no parameter {unknown[0][:20]!r} here; there are {', '.join(names)}.")

    def limit(self, most: int, default: int) -> int:
        """The query parameter ``limit``."""
        text = self.get_query_argument("limit", str(default))
        if not re.fullmatch(r"\d{1,6}", text, re.ASCII) or not 1 <= int(text) <= most:
            raise ProtocolError(f"limit={text[:20]!r} is outside 1…{most}.")
        return int(text)

    @property
    def user_name(self) -> str:
        """The user whose request this is."""
        return participant("client", self.current_user).user

    async def on_thread(self, function: Callable[[], T], size: int) -> T:
        """Call ``function``, which handles so many bytes: where they are many, beside the event loop."""
        return function() if size <= QUICK_BYTES else await asyncio.to_thread(function)

    async def in_json(self, form: Callable[[], Any], size: int) -> bytes:
        """What ``form`` makes of so many bytes, as JSON."""
        return await self.on_thread(lambda: encode_json(form()), size)

    def since(self) -> Since:
        text = self.get_query_argument("since", None)
        return None if text is None else parse_since(text)

    def answer(self, content: Any, status: int = 200) -> None:
        self.set_status(status)
        self.finish(encode_json(content))

    # --- errors -----------------------------------------------------------------------------------------------------

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        failure = kwargs.get("exc_info", (None, None))[1]
        if isinstance(failure, web.HTTPError) and status_code == 403 and self._is_anonymous:
            failure = Unauthenticated("this server does not know you: send its token as 'Authorization: token TOKEN'.")
            kwargs["exc_info"] = (type(failure), failure, None)
        if isinstance(failure, EbusError):
            status_code = STATUS.get(failure.code, 500)
        super().send_error(status_code, **kwargs)

    @property
    def _is_anonymous(self) -> bool:
        # `current_user` raises where the request failed before the identity provider was asked.
        return getattr(self, "_jupyter_current_user", None) is None

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        failure = kwargs.get("exc_info", (None, None))[1]
        if isinstance(failure, EbusError):
            error = {"code": failure.code, "text": failure.text, "details": failure.details}
            if failure.temporary:
                self.set_header("Retry-After", str(math.ceil(failure.details.get("retry_after", 1))))
        else:
            message = failure.log_message if isinstance(failure, web.HTTPError) else None
            error = {"code": CODE.get(status_code, "error"), "text": message or self._reason, "details": {}}
        if status_code == 405:
            self.set_header("Allow", self.allows)
        if status_code == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        self.finish(encode_json(error))

    def log_exception(self, *exc_info: Any) -> None:
        if isinstance(exc_info[1], EbusError):
            path, error = printable(self.request.path), exc_info[1]
            self.log.info(
                "ebus: request_refused ip=%s path=%s code=%s: %s", self.request.remote_ip, path, error.code, error
            )
        else:
            super().log_exception(*exc_info)
