"""A WebSocket on a plain socket: any thread sends, one thread receives, nothing waits for an event loop.

`websockets` provides the protocol without I/O; this module carries its bytes. A message that a program sends goes to the
socket on the program's own thread, and a message that arrives is handed over by the thread that waits for it: no task and no
queue lies between. Where the socket takes no more, the receiving thread sends the rest.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from urllib.parse import urljoin, urlsplit, urlunsplit

import msgspec
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import USER_AGENT, Response
from websockets.protocol import State
from websockets.uri import parse_uri

from ebus_jupyter.errors import ConnectionLost, EbusError, Forbidden, Unauthenticated, from_wire

PING_SECONDS = 20.0
"""How long a connection may be silent before it is pinged. After as long again without any data it counts as lost."""

OPEN_SECONDS = 10.0
"""How long the server may take to answer a new connection."""

CLOSE_SECONDS = 2.0
"""How long `WebSocketLine.close` waits for the server's half of the closing handshake."""

REDIRECTS = 5
"""How many redirects of the opening handshake are followed; only ones that stay on the same host."""

RECEIVE_BYTES = 1 << 16
"""The most that is taken from the socket at once."""


def websocket_url(url: str) -> str:
    """The URL of the broker's socket, for the URL of a Jupyter server.

    >>> websocket_url("http://127.0.0.1:8888/user/ann/")
    'ws://127.0.0.1:8888/user/ann/ebus/ws'
    """
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path if parts.path.endswith("/ebus/ws") else parts.path.rstrip("/") + "/ebus/ws"
    return urlunsplit((scheme, parts.netloc, path, "", ""))


def check_address(url: str, token: str) -> None:
    """Refuse what no attempt to connect can be made with.

    Raises:
        ValueError: ``url`` is no URL of a server, or ``token`` has a character that no HTTP header can have.
    """
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https", "ws", "wss") and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")
    except ValueError:  # a port or a name that can't be; UnicodeError, too
        is_url = False
    if not is_url:
        raise ValueError(f"url must be that of a Jupyter server, such as http://127.0.0.1:8888/, and is {url[:100]!a}.")
    if not (token.isascii() and token.isprintable()):
        raise ValueError(
            "token has a character that no token has, such as a line break. `jupyter server list` shows the right one."
        )


def tls_context(url: str, certificate: str) -> ssl.SSLContext | None:
    """The TLS context for ``url``; None where it needs none.

    Args:
        url: A ``ws:`` or ``wss:`` URL.
        certificate: A file with the certificate to trust, where the server made its own; "": the system's authorities.
    """
    if not url.startswith("wss:"):
        return None
    try:
        context = ssl.create_default_context(cafile=certificate or None)
    except OSError as error:
        raise ConnectionLost(
            f"the certificate {certificate} can't be read ({error}). Give the path of the server's certificate, in PEM format."
        ) from None
    # A server's own certificate is pinned by the file itself; it seldom names the address that kernels use.
    context.check_hostname = not certificate
    if certificate:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def unreachable(url: str, reason: object) -> ConnectionLost:
    """Nobody answers at ``url``, or nobody can be asked."""
    if isinstance(reason, OSError) and reason.errno in (errno.EMFILE, errno.ENFILE):
        return ConnectionLost(
            f"there is no room for a connection to {url} ({reason}). Close files and clients that are not used any more, or "
            "raise the limit of open files (`ulimit -n`)."
        )
    if isinstance(reason, ssl.SSLCertVerificationError):
        return ConnectionLost(
            f"the certificate of {url} is not one that this process trusts ({reason.verify_message}). Where the server made "
            "its own, give its file: ebus.connect(…, certificate=PATH), or EBUS_CERT in the environment."
        )
    return ConnectionLost(f"no ebus broker answers at {url} ({reason}). Is the Jupyter server running?")


def refusal(url: str, status: int, body: bytes) -> EbusError:
    """The error for a handshake that the server answered with an HTTP ``status`` other than 101.

    An answer of ebus_jupyter itself names its error. Any other comes from something in front of it, and the error has the
    detail ``by_proxy``: a proxy may refuse everyone while the server behind it restarts.
    """
    try:
        answer = msgspec.json.decode(body or b"", type=dict[str, str])
        return from_wire(answer["code"], answer["text"])
    except (msgspec.MsgspecError, KeyError):
        pass
    if status == 404:
        return ConnectionLost(f"{url} is a server without ebus_jupyter: install it there and restart it.")
    if status in (401, 403):
        cls = Unauthenticated if status == 401 else Forbidden
        text = f"{url} refused the token (HTTP {status}). Take a fresh one from the server, and check the URL."
        return cls(text, by_proxy=True)
    return ConnectionLost(
        f"{url} answered with HTTP {status}: look at the log of the server, or of the proxy before it."
    )


class WebSocketLine:
    """One connection to a broker behind a WebSocket.

    `send`, `wake` and `close` may be called from any thread and never block; `receive` belongs to one thread.

    Args:
        connected: The socket, after the opening handshake.
        protocol: The protocol's state, open.
        early: Frames that came in one piece with the handshake.
    """

    def __init__(self, connected: socket.socket, protocol: ClientProtocol, early: list[Frame]) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._protocol = protocol
        # TLS can't be read and written at once, nor can the protocol: one lock for all that touches either.
        self._lock = threading.Lock()
        self._unsent: deque[memoryview] = deque()
        self._half_closed = False
        self._broken = False  # nothing can be sent any more
        self._ended = False  # nothing arrives any more
        self._early = early
        self._parts: list[bytes] = []
        self._is_text = False
        self._wake_receiver, self._woken = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._woken.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(connected, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._wants_write = False
        self._heard = time.monotonic()
        self._pinged = False
        self._closing_until: float | None = None

    # --- any thread -------------------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """How many bytes wait until the socket takes them."""
        return sum(map(len, self._unsent)) if self._unsent else 0

    def send(self, data: bytes) -> None:
        """Send one message.

        Raises:
            ConnectionLost: The connection has ended; nothing says whether ``data`` arrived.
        """
        with self._lock:
            if self._protocol.state is not State.OPEN:
                raise ConnectionLost("the connection to the server has ended.")
            self._protocol.send_binary(data)
            self._write()
            blocked = self._broken or (bool(self._unsent) and not self._wants_write)
        if blocked:
            self.wake()

    def wake(self) -> None:
        """Make `receive` return."""
        with contextlib.suppress(OSError):  # full: it will wake; closed: it has ended
            self._wake_receiver.send(b"\0")

    def close(self) -> None:
        """Begin the closing handshake; `receive` ends within `CLOSE_SECONDS`. Safe to call twice, and by a finaliser."""
        if self._closing_until is None:
            self._closing_until = time.monotonic() + CLOSE_SECONDS
        # Where the line is in use, by another thread or by the one that this call has interrupted, `receive` does it.
        if self._lock.acquire(blocking=False):
            try:
                self._say_goodbye()
            finally:
                self._lock.release()
        self.wake()

    def forked(self) -> None:
        """In a forked child: give up its copies of the sockets. The parent's are not affected."""
        self._selector.close()
        for each in (self._socket, self._wake_receiver, self._woken):
            each.close()

    def fail(self) -> None:
        """End the connection at once; `receive` says so. Safe to call twice."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.wake()

    # --- the receiving thread ---------------------------------------------------------------------------------------

    def receive(self, timeout: float | None) -> list[bytes]:
        """Wait for messages.

        Args:
            timeout: Seconds to wait; None: until something happens.

        Returns:
            The messages that have arrived, in order. None at all after ``timeout``, or `wake`.

        Raises:
            ConnectionLost: The connection has ended. Whatever arrived before has been returned.
        """
        readable, writable = self._select(0.0 if self._early else timeout)
        messages: list[bytes] = []
        with self._lock:
            early, self._early = self._early, []
            for frame in early:
                self._frame(frame, messages)
            if writable:
                self._write()
            if self._closing_until is not None:
                self._say_goodbye()
            if (readable or self._broken) and self._read():
                self._heard, self._pinged = time.monotonic(), False
            for event in self._protocol.events_received():
                if isinstance(event, Frame):
                    self._frame(event, messages)
            self._write()  # what the protocol answers by itself: pongs, the closing handshake
            if not messages:
                self._check_alive()
        return messages

    def abandon(self) -> None:
        """Close the sockets of a connection that has ended, or that nobody receives from any more."""
        with self._lock:
            try:
                self._half_closed = True
                self._unsent.clear()
                self._end()
            finally:
                self._selector.close()
                for each in (self._socket, self._wake_receiver, self._woken):
                    each.close()

    def _select(self, timeout: float | None) -> tuple[bool, bool]:
        wants_write = bool(self._unsent)
        if wants_write is not self._wants_write:
            self._wants_write = wants_write
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wants_write else 0)
            self._selector.modify(self._socket, events)
        now = time.monotonic()
        due = self._heard + PING_SECONDS * (2 if self._pinged else 1)
        if self._closing_until is not None:
            due = min(due, self._closing_until)
        wait = max(0.0, due - now)
        readable = writable = False
        for key, events in self._selector.select(wait if timeout is None else min(wait, max(0.0, timeout))):
            if key.fileobj is self._woken:
                with contextlib.suppress(OSError):
                    self._woken.recv(4096)
            else:
                readable = readable or bool(events & selectors.EVENT_READ)
                writable = writable or bool(events & selectors.EVENT_WRITE)
        return readable, writable

    def _check_alive(self) -> None:
        now = time.monotonic()
        if self._protocol.state is State.CLOSED:
            code, reason = self._protocol.close_code, self._protocol.close_reason
            raise ConnectionLost(f"the connection to the server has ended ({reason or code}).")
        if self._closing_until is not None and now >= self._closing_until:
            raise ConnectionLost("the connection to the server was closed.")
        if now >= self._heard + 2 * PING_SECONDS:
            raise ConnectionLost(f"the server has sent nothing for {2 * PING_SECONDS:g} s.")
        if not self._pinged and now >= self._heard + PING_SECONDS and self._protocol.state is State.OPEN:
            self._pinged = True
            self._protocol.send_ping(b"")
            self._write()

    # --- with the lock held -----------------------------------------------------------------------------------------

    def _frame(self, frame: Frame, messages: list[bytes]) -> None:
        if frame.opcode is Opcode.CONT:
            self._parts.append(bytes(frame.data))
        elif frame.opcode in (Opcode.BINARY, Opcode.TEXT):
            self._is_text = frame.opcode is Opcode.TEXT
            self._parts = [bytes(frame.data)]
        else:
            return
        if frame.fin and not self._is_text:  # a broker says nothing in text
            messages.append(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
        if frame.fin:
            self._parts = []

    def _read(self) -> bool:
        """Take what the socket has; returns whether that was anything."""
        some = False
        while not self._ended:
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if self._broken:
                    self._end()
                return some
            except OSError:
                data = b""
            if not data:
                self._end()
                return some
            some = True
            self._protocol.receive_data(data)
            # TLS may hold more than the selector knows of; a plain socket is asked again when it is readable.
            if not (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
                return some
        return some

    def _write(self) -> None:
        """Give the socket what waits, as far as it takes it."""
        unsent = self._unsent
        for data in self._protocol.data_to_send():
            if data:
                unsent.append(memoryview(data))
            else:
                self._half_closed = True
        try:
            while unsent:
                sent = self._socket.send(unsent[0])
                if sent == len(unsent[0]):
                    unsent.popleft()
                else:
                    unsent[0] = unsent[0][sent:]
            if self._half_closed:
                self._half_closed = False
                if not isinstance(self._socket, ssl.SSLSocket):
                    self._socket.shutdown(socket.SHUT_WR)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            unsent.clear()
            self._broken = True  # what has arrived before is still read; then `receive` says so

    def _say_goodbye(self) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            self._write()

    def _end(self) -> None:
        """Nothing arrives any more. The protocol must be told once, and take nothing in afterwards."""
        if not self._ended:
            self._ended = True
            self._protocol.receive_eof()


def connect_line(url: str, authorization: str, *, certificate: str = "") -> WebSocketLine:
    """Connect to the broker of the Jupyter server at ``url``. Blocks for up to `OPEN_SECONDS`.

    Args:
        url: The server's base URL.
        authorization: The value of the Authorization header.
        certificate: A file with the certificate to trust, where the server made its own.

    Raises:
        ConnectionLost: Nobody answers there, or not as a server with ebus_jupyter does.
        Unauthenticated, Forbidden: The token is not known, or may not.
    """
    target = websocket_url(url)
    deadline = time.monotonic() + OPEN_SECONDS
    try:
        for _ in range(REDIRECTS):
            found = _handshake(target, authorization, certificate, deadline)
            if isinstance(found, WebSocketLine):
                return found
            if urlsplit(found).hostname != urlsplit(target).hostname or (target[:4], found[:4]) == ("wss:", "ws:/"):
                raise ConnectionLost(f"{url} redirects to {found}: give that server's own URL.")
            target = found
    except InvalidStatus as refused:
        raise refusal(url, refused.response.status_code, bytes(refused.response.body or b"")) from None
    except (OSError, WebSocketException, InvalidURI, EOFError, ValueError) as failed:  # ValueError: a redirect's URL
        raise unreachable(url, failed or type(failed).__name__) from None
    raise unreachable(url, f"more than {REDIRECTS} redirects")


def _handshake(target: str, authorization: str, certificate: str, deadline: float) -> WebSocketLine | str:
    """Open ``target``; returns where it redirects to, if it does."""
    uri = parse_uri(target)
    protocol = ClientProtocol(uri, max_size=None)
    request = protocol.connect()
    request.headers["Authorization"] = authorization
    request.headers["User-Agent"] = USER_AGENT
    plain = socket.create_connection((uri.host, uri.port), timeout=OPEN_SECONDS)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = tls_context(target, certificate)
        # TLS and the answer share one deadline: a server that accepts and stays silent is no server.
        plain.settimeout(max(0.001, deadline - time.monotonic()))
        connected = plain if context is None else context.wrap_socket(plain, server_hostname=uri.host)
        plain = connected
        protocol.send_request(request)
        connected.sendall(b"".join(protocol.data_to_send()))
        while protocol.state is State.CONNECTING:
            connected.settimeout(max(0.001, deadline - time.monotonic()))
            data = connected.recv(RECEIVE_BYTES)
            protocol.receive_data(data) if data else protocol.receive_eof()
            events = protocol.events_received()
            for event in events:
                if isinstance(event, Response) and event.status_code in (301, 302, 303, 307, 308):
                    location = urljoin(target.replace("ws", "http", 1), event.headers.get("Location", ""))
                    plain.close()
                    return location.replace("http", "ws", 1)
            if protocol.handshake_exc is not None:
                raise protocol.handshake_exc
            if not data:
                raise EOFError("the server closed the connection")
        return WebSocketLine(connected, protocol, [event for event in events if isinstance(event, Frame)])
    except BaseException:
        plain.close()
        raise
