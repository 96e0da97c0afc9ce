"""Identity, origins and authorization, for the WebSocket and for the HTTP API.

Every participant is authenticated by Jupyter's identity provider, or is a kernel with a token of its own (`tokens`).
Jupyter's Authorizer is asked with resource ``ebus``: action "read" to connect, "write" to write, and both again for each
bus. It finds the bus's address in the handler's attribute ``bus``, which is None while it decides on the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from jupyter_core.utils import ensure_async
from jupyter_server.auth.authorizer import AllowAllAuthorizer
from jupyter_server.auth.identity import User
from jupyter_server.utils import origin_matches_pat
from tornado.httputil import HTTPHeaders

from ebus_jupyter.broker.outlet import Authorizer
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.message import Kind, Participant
from ebus_jupyter.errors import Forbidden, shorten
from ebus_jupyter.terminal import printable

from .identity import is_anonymous

RESOURCE = "ebus"
"""The resource that Jupyter's Authorizer is asked about."""


def participant(kind: Kind, user: User | None, kernel_id: str = "") -> Participant:
    """Describe a connection by what the identity provider knows of its user. The broker adds the id."""
    if user is None:
        return Participant("", kind, "", "", kernel_id)
    # Others read the display name, which people may choose: what would hide or reorder the text around it is no part of it.
    name = printable(user.display_name or user.name or "")
    groups = getattr(user, "groups", None) or (getattr(user, "hub_user", None) or {}).get("groups") or ()
    return Participant("", kind, user.username, name, kernel_id, tuple(map(str, groups)), anonymous=is_anonymous(user))


def ensure_origin_allowed(handler: Any, configured: Iterable[str]) -> None:
    """Refuse a request of a page that may not use this server's buses: at the socket, in the HTTP API, and in preflights.

    Args:
        handler: The request's handler.
        configured: The origins of ``EBus.allow_origin``.

    Raises:
        Forbidden: The page is of a foreign origin.
    """
    allowed = {*configured, handler.allow_origin}
    if not is_origin_allowed(handler.request.headers, allowed, handler.allow_origin_pat):
        raise Forbidden(
            f"pages of {shorten(origin_of(handler.request.headers), 80)} may not use this server's buses. "
            "Add that origin to EBus.allow_origin in the server's configuration if you trust it."
        )


def origin_of(headers: HTTPHeaders) -> str:
    """The origin of the page that sent a request, in lower case: "" for a client that is no browser, "null" for an unknown one.

    Browsers leave ``Origin`` out of some requests that they send for other pages, such as an image's. What they say beside it
    tells these from a script's.
    """
    origin = headers.get("Origin", "").lower()
    if origin:
        return origin
    try:
        referer = urlsplit(headers.get("Referer", "").lower())
    except ValueError:
        return "null"
    if referer.netloc:
        return f"{referer.scheme}://{referer.netloc}"
    return "" if headers.get("Sec-Fetch-Site", "none").lower() in ("none", "same-origin") else "null"


def is_origin_allowed(headers: HTTPHeaders, allowed: set[str], pattern: str | None) -> bool:
    """Decide whether a page of this request's origin may connect.

    A request without an origin does not come from a browser, and is allowed.

    Args:
        headers: The request's headers.
        allowed: Origins, in lower case, that may connect besides the server's own; "*" allows all.
        pattern: A regular expression that further origins match; empty for none.
    """
    origin = origin_of(headers)
    # Pages can't set this header. It tells the server's own page where a proxy has changed the name of the host.
    if not origin or headers.get("Sec-Fetch-Site", "").lower() == "same-origin":
        return True
    try:
        host = urlsplit(origin).netloc
    except ValueError:
        return "*" in allowed
    if host and host == headers.get("Host", "").lower():
        return True
    return "*" in allowed or origin in allowed or bool(pattern and origin_matches_pat(pattern, origin))


class BusRequestHandler(Protocol):
    """The part of a handler that `BusAuthorizer` uses."""

    bus: Address | None
    current_user: Any

    @property
    def authorizer(self) -> Any: ...


class BusAuthorizer:
    """Asks Jupyter's Authorizer on behalf of one connection.

    Args:
        handler: The request's handler. Its attribute ``bus`` is set for the duration of each question.
    """

    def __init__(self, handler: BusRequestHandler) -> None:
        self._handler = handler
        self._lock = asyncio.Lock()  # an asynchronous Authorizer may read `handler.bus` late

    async def allows(self, action: Literal["read", "write"], bus: Address | None = None) -> bool:
        """Ask whether the handler's user may read or write ``bus``, or any bus at all."""
        handler = self._handler
        async with self._lock:
            handler.bus = bus
            verdict = handler.authorizer.is_authorized(handler, handler.current_user, action, RESOURCE)
            return bool(await ensure_async(verdict))

    @property
    def per_bus(self) -> Authorizer | None:
        """The function that the broker calls for each bus; None where the Authorizer allows everything."""
        return None if isinstance(self._handler.authorizer, AllowAllAuthorizer) else self._allows_bus

    async def _allows_bus(self, bus: Address, action: str) -> bool:
        return await self.allows("write" if action == "write" else "read", bus)
