"""Identity, origins and authorization, for the WebSocket and for the HTTP API.

Every participant is authenticated by Jupyter's identity provider, or is a kernel with a token of its own (`tokens`).
Jupyter's Authorizer is asked with resource ``ebus``: action "read" to connect, "write" to write, and both again for each
bus. It finds the bus's address in the handler's attribute ``bus``, which is None while it decides on the connection.
"""

from __future__ import annotations

import asyncio
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

RESOURCE = "ebus"
"""The resource that Jupyter's Authorizer is asked about."""


def participant(kind: Kind, user: User | None, kernel_id: str = "") -> Participant:
    """Describe a connection by what the identity provider knows of its user. The broker adds the id."""
    if user is None:
        return Participant("", kind, "", "", kernel_id)
    groups = getattr(user, "groups", None) or (getattr(user, "hub_user", None) or {}).get("groups") or ()
    return Participant("", kind, user.username, user.display_name or user.name, kernel_id, tuple(map(str, groups)))


def is_origin_allowed(headers: HTTPHeaders, allowed: set[str], pattern: str | None) -> bool:
    """Decide whether a page of this request's origin may connect.

    A request without an origin does not come from a browser, and is allowed.

    Args:
        headers: The request's headers.
        allowed: Origins, in lower case, that may connect besides the server's own; "*" allows all.
        pattern: A regular expression that further origins match; empty for none.
    """
    origin = headers.get("Origin", "").lower()
    if not origin or headers.get("Sec-Fetch-Site") == "same-origin":
        return True
    if urlsplit(origin).netloc == headers.get("Host", "").lower():
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
