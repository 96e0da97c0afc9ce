"""Where a kernel connects, when the program does not say.

1. ``EBUS_URL`` and ``EBUS_TOKEN`` in its environment: the server extension puts them there when a kernel starts.
2. Neither: a broker embedded in the process. `Client.where` says plainly that nothing leaves it.

Never a server picked from a list of running ones: it may be another user's.
"""

from __future__ import annotations

import os
import threading

from ebus_jupyter.transports.base import Connect, Transport
from ebus_jupyter.transports.websocket import connect_websocket

from .client import Client

_default: tuple[int, Client] | None = None
_lock = threading.Lock()

KERNEL_SCHEME = "ebus"
"""The Authorization scheme of the tokens that the server extension gives its kernels; others are the server's own."""


def default_client() -> Client:
    """This process's own client; made when first asked for, and anew in a forked child or after it was closed."""
    global _default
    with _lock:
        if _default is None or _default[0] != os.getpid() or _default[1].session.closed is not None:
            _default = os.getpid(), _make()
        return _default[1]


def _make() -> Client:
    url, token = os.environ.get("EBUS_URL", ""), os.environ.get("EBUS_TOKEN", "")
    if url:
        return remote_client(url, token, certificate=os.environ.get("EBUS_CERT", ""))
    from .embedded import connect_embedded

    return Client(
        connect_embedded,
        where="a broker in this process (nothing leaves it)",
        relay=lambda: connect_embedded("page"),
        embedded=True,
    )


def remote_client(url: str, token: str, *, certificate: str = "") -> Client:
    """A client of the Jupyter server at ``url``. A kernel's own token begins with ``ebus-``; any other is the server's."""
    scheme = KERNEL_SCHEME if token.startswith("ebus-") else "token"

    async def connect() -> Transport:
        return await connect_websocket(url, f"{scheme} {token}", certificate=certificate)

    factory: Connect = connect
    return Client(factory, where=f"the Jupyter server at {url}")
