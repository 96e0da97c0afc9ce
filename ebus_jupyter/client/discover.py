"""The client that a process uses when the program names no server.

1. ``EBUS_URL`` and ``EBUS_TOKEN`` are in the environment: the server extension puts them there when a kernel starts.
2. Otherwise the broker is embedded in the process, and `Client.where` says that nothing leaves it.

A server is never picked from a list of running ones: it may be another user's.
"""

from __future__ import annotations

import os
import threading

from ebus_jupyter.transports.base import Transport
from ebus_jupyter.transports.websocket import check_address, connect_line

from .arguments import text
from .client import Client
from .driver import LoopDriver, SocketDriver
from .loop_thread import loop_thread

KERNEL_SCHEME = "ebus"
"""The Authorization scheme of the tokens that the server extension gives its kernels; others are the server's own."""

_default: tuple[int, Client] | None = None
_lock = threading.RLock()  # a finaliser may come back here


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # the parent's may have been held at that moment


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def default_client() -> Client:
    """This process's own client; made by the first call, and again in a forked child or after it was closed."""
    global _default
    with _lock:
        if _default is None or _default[0] != os.getpid() or _default[1].connection.session.closed is not None:
            _default = os.getpid(), _make()
        return _default[1]


def _make() -> Client:
    url, token = os.environ.get("EBUS_URL", ""), os.environ.get("EBUS_TOKEN", "")
    if url:
        return remote_client(url, token, certificate=os.environ.get("EBUS_CERT", ""))
    from .embedded import connect_embedded

    ebus = loop_thread()
    return Client(
        LoopDriver(connect_embedded, ebus.loop, ebus.ident),
        where="a broker in this process (nothing leaves it)",
        relay=lambda: connect_embedded("page"),
        embedded=True,
    )


def remote_client(url: str, token: str, *, certificate: str = "") -> Client:
    """A client of the Jupyter server at ``url``.

    Args:
        url: The server's base URL.
        token: A kernel's own token, which begins with ``ebus-``, or a token of the server.
        certificate: Path of a file with the certificate to trust, for a server with a self-signed one.

    Raises:
        ValueError: ``url`` is no URL of a server, or ``token`` can't be one.
    """
    url = text(url, "url").strip()
    token = text(token, "token").strip()  # a token from a file ends in a line break
    check_address(url, token)
    certificate = text(os.fspath(certificate) if isinstance(certificate, os.PathLike) else certificate, "certificate")
    scheme = KERNEL_SCHEME if token.startswith("ebus-") else "token"

    authorization = f"{scheme} {token}"

    async def relay() -> Transport:
        from ebus_jupyter.transports.websocket_asyncio import connect_websocket

        return await connect_websocket(url, authorization, certificate=certificate)

    driver = SocketDriver(lambda: connect_line(url, authorization, certificate=certificate))
    return Client(driver, where=f"the Jupyter server at {url}", relay=relay)
