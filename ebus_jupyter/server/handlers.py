"""The WebSocket that participants connect to, and the pages' client code.

Authentication at ``{base}ebus/ws``:

- *A kernel* sends the token that this server gave it: ``Authorization: ebus TOKEN``. With that header nothing else is
  tried, so a kernel is never mistaken for a person because of a cookie.
- *A page or another client* is authenticated by Jupyter's identity provider (cookie, token). A connection with an
  ``Origin`` comes from a browser and is a page; one without is a client.
- A page of a *foreign origin* is refused even with a valid token, which is stricter than Jupyter's own sockets: the token
  identifies the user, not the page. ServerApp.allow_origin, ServerApp.allow_origin_pat and EBus.allow_origin name the
  origins that may connect.
- Jupyter's Authorizer is asked as described in `access`. While a connection lasts, the identity provider and the Authorizer
  are asked again (`recheck`).

A refused handshake is answered with HTTP status 403 and the JSON object ``{"code", "text"}``. A connection that violates
the protocol receives a ``bye`` frame with the reason before it is closed.

``{base}ebus/client.js`` is public, like Jupyter's own static files: it is published source code without secrets, and pages
of allowed origins import it before they have credentials.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from typing import Any

import msgspec
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.auth.identity import User
from jupyter_server.base.handlers import JupyterHandler
from tornado import web
from tornado.iostream import StreamClosedError
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol

from ebus_jupyter.broker.outlet import Connection
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import (
    BackendError,
    ConnectionLost,
    EbusError,
    Forbidden,
    ProtocolError,
    TooLarge,
    Unauthenticated,
)

from .access import BusAuthorizer, ensure_origin_allowed, participant
from .recheck import Recheck
from .services import Services
from .tokens import Grant
from .websocket import WebSocket

UNSUPPORTED, POLICY, TOO_BIG = 1003, 1008, 1009
"""WebSocket close codes."""


class HandshakeRefused(web.HTTPError):
    """The handshake is refused; ``error`` is the answer."""

    def __init__(self, status: int, error: EbusError) -> None:
        super().__init__(status, error.text)
        self.error = error


class SocketHandler(JupyterHandler):
    """``{base}ebus/ws``: attaches one participant to the broker."""

    bus: Address | None = None
    """The bus that the Authorizer is asked about; None: connecting at all."""

    def initialize(self, services: Services) -> None:
        self._services = services
        self._grant: Grant | None = None
        self._authorizer: BusAuthorizer | None = None
        self._may_write = True
        self._connection: Connection | None = None
        self._websocket: WebSocket | None = None

    # --- the handshake ----------------------------------------------------------------------------------------------

    async def prepare(self) -> None:  # type: ignore[override]
        self._recheck = Recheck(self, self._services.identities, self.log)
        try:
            ensure_origin_allowed(self, self._services.allow_origin)
        except Forbidden as foreign:
            raise HandshakeRefused(403, foreign) from None
        if not self.check_host():
            name = self.request.host
            raise HandshakeRefused(
                403, Forbidden(f"this server is not called {name!r} (see ServerApp.allow_remote_access).")
            )
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "ebus":
            self._authenticate_kernel(token.strip())
        else:
            await self._authenticate_user()
        if self.current_user is not None:  # a kernel that no request started belongs to the server, which may do all
            await self._authorize()
        try:
            await self._services.ready()
        except BackendError as unavailable:
            raise HandshakeRefused(503, unavailable) from None

    def _authenticate_kernel(self, token: str) -> None:
        grant = self._services.tokens.find(token)
        if grant is None:
            raise HandshakeRefused(
                403,
                Unauthenticated(
                    "this kernel's token (EBUS_TOKEN) is not one that this server gave to a running kernel: the kernel "
                    "was shut down, or the server was restarted. Start a new kernel from this server."
                ),
            )
        self._grant = grant
        self.current_user = self._jupyter_current_user = grant.user

    async def _authenticate_user(self) -> None:
        try:
            await JupyterHandler.prepare(self, _redirect_to_login=False)
        except web.HTTPError as error:
            if error.status_code != 403:
                raise
        self._services.identities.settle(self)
        if self.current_user is None:
            raise HandshakeRefused(
                403,
                Unauthenticated(
                    "this server does not know you: the token or cookie is missing or wrong. Log in to Jupyter, or "
                    "send the server's token as 'Authorization: token TOKEN' (`jupyter server list` shows it)."
                ),
            )

    async def _authorize(self) -> None:
        self._authorizer = BusAuthorizer(self)
        if not await self._authorizer.allows("read"):
            name = self._participant().user
            raise HandshakeRefused(
                403, Forbidden(f"{name!r} may not use buses here; ask the server's administrator (resource 'ebus').")
            )
        self._may_write = await self._authorizer.allows("write")

    def _participant(self) -> Participant:
        if self._grant is not None:
            return participant("kernel", self._grant.user, self._grant.kernel_id)
        return participant("page" if "Origin" in self.request.headers else "client", self.current_user)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        failure = kwargs.get("exc_info", (None, None))[1]
        error = failure.error if isinstance(failure, HandshakeRefused) else None
        answer = {"code": error.code if error else "error", "text": error.text if error else self._reason}
        self.set_header("Content-Type", "application/json")
        self.finish(msgspec.json.encode(answer))

    async def get(self) -> None:
        handshake = ServerProtocol()
        answer = handshake.accept(Request(self.request.path, Headers(self.request.headers.get_all())))
        self.set_status(answer.status_code)
        for name, value in answer.headers.raw_items():
            self.set_header(name, value)
        if answer.status_code != 101:
            await self.finish(bytes(answer.body or b""))
            return
        self.clear_header("Content-Type")
        try:
            await self.flush()
            stream = self.detach()
            # What the client has sent behind its request is in the stream's buffer already.
            early = asyncio.ensure_future(stream.read_bytes(1 << 16, partial=True))
        except StreamClosedError:
            return
        stream.io_loop.remove_handler(stream.socket)
        self._attach(stream.socket, early.result() if early.done() else b"")

    # --- the connection ---------------------------------------------------------------------------------------------

    def _attach(self, connected: socket.socket, early: bytes) -> None:
        services = self._services
        limits = services.broker.limits
        # Compression is not offered: a frame is built once for all its receivers, so it can't be compressed for each.
        self._websocket = WebSocket(
            connected,
            self,
            early,
            # A message that is only somewhat too large is read, so that it can be answered.
            message_bytes=2 * limits.batch_bytes,
            buffer_bytes=2 * (limits.send_bytes + limits.control_bytes) + limits.batch_bytes,
            ping_seconds=services.ping_interval,
        )
        if self._grant is not None:
            self._grant.on_revoke.add(self._revoked)
        who = self._participant()
        try:
            self._connection = services.broker.attach(
                who,
                self._websocket,
                may_write=self._may_write,
                authorize=self._authorizer.per_bus if self._authorizer is not None else None,
                ip=self.request.remote_ip or "",
            )
        except ConnectionLost:  # the server is shutting down
            self._websocket.abort()
            return
        if self._authorizer is not None:
            self._recheck.start(self._authorizer, self._reassess, self._recheck_failed, identify=self._grant is None)
        if who.kernel_id:
            services.kernels.report(who.kernel_id)

    async def _reassess(self, user: User | None, may_write: bool) -> None:
        if self._connection is not None and self._authorizer is not None:
            await self._connection.reassess(self._participant(), may_write)

    def _recheck_failed(self, error: EbusError, reconnect: bool) -> None:
        self._bye(POLICY, error, reconnect=reconnect)

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        """Hand a message to the broker; see `websocket.Receiver`."""
        if self._connection is None:
            return None
        limit = self._services.broker.limits.batch_bytes
        if isinstance(message, str):
            text = "frames are binary (MessagePack), and this was a text message. Use a client of this package."
            self._bye(UNSUPPORTED, ProtocolError(text))
        elif len(message) > limit:
            self._bye(
                TOO_BIG,
                TooLarge(
                    f"a message of {len(message)} bytes is over this server's limit `batch_bytes` ({limit}). "
                    "Send less at once, or raise EBus.batch_bytes."
                ),
            )
        else:
            return self._connection.receive(message)
        return None

    def on_hang_up(self) -> None:
        if self._connection is not None:
            self._connection.hung_up()

    def on_close(self) -> None:
        self._recheck.stop()
        if self._grant is not None:
            self._grant.on_revoke.discard(self._revoked)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _revoked(self) -> None:
        self._bye(POLICY, Unauthenticated("this kernel was shut down, which has revoked its token."))

    def _bye(self, code: int, error: EbusError, *, reconnect: bool = False) -> None:
        if self._websocket is not None:
            bye = frames.encode(frames.Bye(error.code, error.text, reconnect))
            self._websocket.send_packed(WebSocket.pack([frames.join([bye])]))
            self._websocket.close(code, error.code)
        self.on_close()

    def log_exception(self, *exc_info: Any) -> None:
        if isinstance(exc_info[1], HandshakeRefused):
            error = exc_info[1].error
            self.log.info("ebus: connection_refused ip=%s code=%s: %s", self.request.remote_ip, error.code, error)
        else:
            super().log_exception(*exc_info)


class ClientHandler(JupyterHandler, web.StaticFileHandler):
    """``{base}ebus/client.js`` and the files it imports.

    A URL with ``?v=…`` is cached for good; without it, browsers revalidate at each load.
    """

    @allow_unauthenticated
    def get(self, path: str, include_body: bool = True) -> Any:
        return super().get(path, include_body)

    @allow_unauthenticated
    def head(self, path: str) -> Any:
        return super().head(path)

    def compute_etag(self) -> str | None:
        return web.StaticFileHandler.compute_etag(self)

    def get_content_type(self) -> str:
        # Not from the system's table of types: where that says text/plain, browsers refuse to import a module.
        return "application/json" if (self.absolute_path or "").endswith(".map") else "text/javascript; charset=utf-8"

    def set_extra_headers(self, path: str) -> None:
        versioned = "v" in self.request.arguments
        self.set_header("Cache-Control", "max-age=31536000, immutable" if versioned else "no-cache")
