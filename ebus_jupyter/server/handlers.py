"""What the extension answers: the bus's socket, the page's client, and who we are.

Who may connect to ``{base}ebus/ws``:

- *A kernel*, by the token that the server gave it: ``Authorization: ebus TOKEN``. Where that header is given nothing
  else is tried, so a kernel never passes for a person because of a cookie.
- *A page or another client*, by whatever Jupyter's identity provider accepts (cookie, token). A connection with an
  ``Origin`` comes from a browser and is a page; one without is a client.
- A page of a *foreign origin* is turned away even with a good token, which is stricter than Jupyter's own sockets: the
  token says whose server it is, not whose page. `ServerApp.allow_origin`, `allow_origin_pat` and `EBus.allow_origin`
  let origins in.
- Jupyter's Authorizer is asked for ``ebus``: "read" to connect, "write" to write, and both again for each bus (it finds
  the bus's address in the handler's attribute ``bus``).

Who is turned away gets HTTP 403 and JSON ``{"code", "text"}``. A connection that misbehaves gets a ``bye`` frame that
names the reason, then the socket is closed.

``{base}ebus/client.js`` is public like Jupyter's own static files: it is this package's published source, with no
secret in it, and pages of allowed origins must be able to import it before they have credentials.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import msgspec
from jupyter_core.utils import ensure_async
from jupyter_server.auth.authorizer import AllowAllAuthorizer
from jupyter_server.auth.decorator import allow_unauthenticated, authorized
from jupyter_server.auth.identity import User
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.utils import origin_matches_pat
from tornado import web
from tornado.iostream import IOStream, StreamBufferFullError
from tornado.websocket import WebSocketHandler

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import BackendError, EbusError, Forbidden, ProtocolError, TooLarge, Unauthenticated

from .kernels import Grant, participant

if TYPE_CHECKING:
    from ebus_jupyter.broker.outlet import Connection

    from .extension import EBus

RESOURCE = "ebus"
Action = Literal["read", "write"]

AT_ONCE = 1 << 17
"""The largest message, in bytes, that is given to a socket directly: Windows takes no more in one go (says tornado)."""

UNSUPPORTED, TOO_BIG, POLICY = 1003, 1009, 1008
"""Codes that a WebSocket is closed with."""


class HandshakeRefused(web.HTTPError):
    """Turned away at the door, with one of our errors as the answer."""

    def __init__(self, status: int, error: EbusError) -> None:
        super().__init__(status, error.text)
        self.error = error


class Outlet:
    """The way out to one client: frames that were built before, straight to the socket, or to its stream where that waits.

    tornado's `write_message` would build the frame again for each client and make a task for each call; the stream's
    `write` makes a future for each, which takes as long as to send it.
    """

    __slots__ = ("_buffered", "_close", "_last", "_pending", "_stream")

    def __init__(self, stream: IOStream, close: Callable[[int, str], None]) -> None:
        self._stream = stream
        self._close = close
        self._last: asyncio.Future[None] | None = None
        self._pending: deque[tuple[asyncio.Future[None], int]] = deque()
        self._buffered = 0

    @staticmethod
    def pack(parts: list[bytes]) -> bytes:
        """An unmasked binary WebSocket frame."""
        size = sum(map(len, parts))
        if size < 126:
            head = bytes((0x82, size))
        elif size < 1 << 16:
            head = b"\x82\x7e" + size.to_bytes(2, "big")
        else:
            head = b"\x82\x7f" + size.to_bytes(8, "big")
        return b"".join([head, *parts])

    def send_packed(self, packed: bytes) -> None:
        stream = self._stream
        if stream.closed():  # the handler's on_close says so
            return
        sent = 0
        if len(packed) <= AT_ONCE and not stream.writing():
            try:
                sent = stream.write_to_fd(memoryview(packed))
            except OSError:  # full, or broken: the stream's own write knows what to do
                sent = 0
            if sent == len(packed):
                return
        try:
            self._last = stream.write(memoryview(packed)[sent:])
        except StreamBufferFullError:
            stream.close()
            return
        if stream.writing():
            self._pending.append((self._last, len(packed) - sent))
            self._buffered += len(packed) - sent

    def buffered(self) -> int:
        """A message counts until all of it is taken."""
        pending = self._pending
        while pending and pending[0][0].done():
            self._buffered -= pending.popleft()[1]
        return self._buffered

    def on_drain(self, callback: Callable[[], None]) -> None:
        if self._last is None or self._last.done():
            asyncio.get_running_loop().call_soon(callback)
        else:
            self._last.add_done_callback(lambda _: callback())

    def close(self, code: int, reason: str) -> None:
        self._close(code, reason)


class SocketHandler(WebSocketHandler, JupyterHandler):
    """``{base}ebus/ws``.

    Jupyter's WebSocketMixin is left out: its `ping_interval` is in milliseconds where tornado's is in seconds.
    """

    bus: Address | None = None
    """The bus that the Authorizer is being asked about; None: about connecting at all."""

    def initialize(self, ebus: EBus) -> None:
        self._ebus = ebus
        self._grant: Grant | None = None
        self._writable = False
        self._connection: Connection | None = None
        self._outlet: Outlet | None = None
        self._asking = asyncio.Lock()

    # --- at the door ------------------------------------------------------------------------------------------------

    async def prepare(self) -> None:  # type: ignore[override]
        if not self.check_host():
            name = self.request.host
            raise HandshakeRefused(
                403, Forbidden(f"this server isn't called {name!r} (see ServerApp.allow_remote_access).")
            )
        kind, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "ebus":
            self._admit_kernel(token.strip())
        else:
            await self._admit_user()
        if not self.check_origin():
            raise HandshakeRefused(
                403,
                Forbidden(
                    f"pages of {self.request.headers.get('Origin')} may not use this server's buses. "
                    "Add that origin to EBus.allow_origin in the server's configuration if you trust it."
                ),
            )
        if not await self._may("read"):
            name = self._who().user
            raise HandshakeRefused(
                403, Forbidden(f"{name!r} may not use buses here; ask whoever runs the server (resource 'ebus').")
            )
        self._writable = await self._may("write")
        try:
            await self._ebus.ready()
        except BackendError as gone:
            raise HandshakeRefused(503, gone) from None

    def _admit_kernel(self, token: str) -> None:
        grant = self._ebus.tokens.find(token)
        if grant is None:
            raise HandshakeRefused(
                403,
                Unauthenticated(
                    "this kernel's token (EBUS_TOKEN) is not one that this server gave to a running kernel: the kernel "
                    "was shut down, or the server was started anew. Start a new kernel from this server."
                ),
            )
        self._grant = grant
        self.current_user = self._jupyter_current_user = grant.user

    async def _admit_user(self) -> None:
        try:
            await JupyterHandler.prepare(self, _redirect_to_login=False)
        except web.HTTPError as refused:
            if refused.status_code != 403:
                raise
        if self.current_user is None:
            raise HandshakeRefused(
                403,
                Unauthenticated(
                    "this server does not know you: the token or cookie is missing, or wrong. Log in to Jupyter, or "
                    "send the server's token as 'Authorization: token TOKEN' (`jupyter server list` shows it)."
                ),
            )

    def check_origin(self, origin: str = "") -> bool:
        headers = self.request.headers
        origin = headers.get("Origin", "").lower()
        if not origin or headers.get("Sec-Fetch-Site") == "same-origin":
            return True
        if urlsplit(origin).netloc == headers.get("Host", "").lower():
            return True
        allowed = {*self._ebus.allow_origin, self.allow_origin}
        pattern = self.allow_origin_pat
        return "*" in allowed or origin in allowed or bool(pattern and origin_matches_pat(pattern, origin))

    async def _may(self, action: Action, bus: Address | None = None) -> bool:
        user: User | None = self.current_user
        if user is None:
            return self._grant is not None  # a kernel that the server started by itself
        async with self._asking:
            self.bus = bus
            return bool(await ensure_async(self.authorizer.is_authorized(self, user, action, RESOURCE)))

    def _who(self) -> Participant:
        if self._grant is not None:
            return participant("kernel", self._grant.user, self._grant.kernel_id)
        return participant("page" if "Origin" in self.request.headers else "client", self.current_user)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        failure = kwargs.get("exc_info", (None, None))[1]
        error = failure.error if isinstance(failure, HandshakeRefused) else None
        answer = {"code": error.code if error else "error", "text": error.text if error else self._reason}
        self.set_header("Content-Type", "application/json")
        self.finish(msgspec.json.encode(answer))

    # --- the connection ---------------------------------------------------------------------------------------------

    @property
    def ping_interval(self) -> float:
        return self._ebus.ping_interval

    @property
    def ping_timeout(self) -> float:
        return self._ebus.ping_interval

    @property
    def max_message_size(self) -> int:
        # tornado cuts a connection off in mid-message, without a word: what is just too large is read, and answered.
        return 2 * self._ebus.limits.batch_bytes

    def get_compression_options(self) -> None:
        """None: frames are built before it is known who gets them, so they can't be compressed one by one."""

    def open(self, *args: str, **kwargs: str) -> None:
        assert self.ws_connection is not None
        stream = self.ws_connection.stream
        assert stream is not None
        limits = self._ebus.limits
        self.set_nodelay(True)
        stream.max_write_buffer_size = 2 * (limits.send_bytes + limits.control_bytes) + limits.batch_bytes
        if self._grant is not None:
            self._grant.on_revoke.add(self._revoked)
        who = self._who()
        authorize = None if isinstance(self.authorizer, AllowAllAuthorizer) else self._authorize
        self._outlet = Outlet(stream, self._close)
        self._connection = self._ebus.broker.attach(
            who,
            self._outlet,
            may_write=self._writable,
            authorize=authorize,
            ip=self.request.remote_ip or "",
        )
        if who.kernel_id:
            self._ebus.kernels.tell(who.kernel_id)

    async def _authorize(self, bus: Address, action: str) -> bool:
        return await self._may("write" if action == "write" else "read", bus)

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        """tornado reads on when what is returned is done."""
        if self._connection is None:
            return None
        if isinstance(message, str):
            text = "frames are binary (MessagePack), and this was a text message. Use a client of this package."
            self._bye(UNSUPPORTED, ProtocolError(text))
        elif len(message) > self._ebus.limits.batch_bytes:
            self._bye(
                TOO_BIG,
                TooLarge(
                    f"a message of {len(message)} bytes is over this server's limit `batch_bytes` "
                    f"({self._ebus.limits.batch_bytes}). Send less at once, or raise EBus.batch_bytes."
                ),
            )
        else:
            return self._connection.receive(message)
        return None

    def on_close(self) -> None:
        if self._grant is not None:
            self._grant.on_revoke.discard(self._revoked)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _revoked(self) -> None:
        self._bye(POLICY, Unauthenticated("this kernel was shut down, and its token with it."))

    def _bye(self, code: int, error: EbusError) -> None:
        if self._outlet is not None:
            self._outlet.send_packed(
                Outlet.pack([frames.join([frames.encode(frames.Bye(error.code, error.text, False))])])
            )
        self._close(code, error.code)
        self.on_close()

    def _close(self, code: int, reason: str) -> None:
        self.close(code, reason.encode()[:120].decode(errors="ignore"))

    def log_exception(self, *exc_info: Any) -> None:
        if isinstance(exc_info[1], HandshakeRefused):
            self.log.log(logging.INFO, "ebus: turned away %s: %s", self.request.remote_ip, exc_info[1].error.text)
        else:
            super().log_exception(*exc_info)


class ClientHandler(JupyterHandler, web.StaticFileHandler):
    """``{base}ebus/client.js`` and what belongs to it. With ``?v=…`` it never changes; without, browsers ask again."""

    @allow_unauthenticated
    def get(self, path: str, include_body: bool = True) -> Any:
        return super().get(path, include_body)

    @allow_unauthenticated
    def head(self, path: str) -> Any:
        return super().head(path)

    def compute_etag(self) -> str | None:
        return web.StaticFileHandler.compute_etag(self)

    def get_content_type(self) -> str:
        # Not asked of the system's table of types: where it says text/plain, browsers refuse to import a module.
        return "application/json" if (self.absolute_path or "").endswith(".map") else "text/javascript; charset=utf-8"

    def set_extra_headers(self, path: str) -> None:
        fixed = "v" in self.request.arguments
        self.set_header("Cache-Control", "max-age=31536000, immutable" if fixed else "no-cache")


class StatusHandler(APIHandler):
    """``{base}ebus/api/status``: the version of this package, and of the protocol that its broker speaks."""

    auth_resource = RESOURCE

    def initialize(self, version: str) -> None:
        self._version = version

    @web.authenticated
    @authorized
    async def get(self) -> None:
        await self.finish(msgspec.json.encode({"version": self._version, "protocol": frames.VERSION}))
