"""Connections outlive their requests, and the rights that they began with may end before them.

Every `RECHECK_SECONDS` each connection is looked at again, a WebSocket and an event stream alike: does the identity provider
still know who sent its request, and does the Authorizer still allow what it does? Log-out ends the connections of its cookie
at once. So no right is relied on for longer than about three seconds.

A page whose frames travel through a kernel acts as that kernel; its connection is looked at as the kernel's.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from jupyter_server.auth.identity import User

from ebus_jupyter.errors import ConnectionLost, EbusError, Forbidden, Unauthenticated

from .access import BusAuthorizer, participant
from .identity import Identities

RECHECK_SECONDS = 2.5

SETTLED_SECONDS = 60.0
"""The same where nothing but a log-out or the age of a cookie can change the answers: with Jupyter's own identity provider,
and the Authorizer that allows everything."""


class Recheck:
    """Looks at one connection again, until it is closed.

    Args:
        handler: The handler of its request, before the identity provider was asked.
        identities: The identity provider.
        log: Where a provider or an Authorizer that fails is reported.
    """

    def __init__(self, handler: Any, identities: Identities, log: logging.Logger) -> None:
        self._handler = handler
        self._probe = copy.copy(handler)
        self._identities = identities
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._end: Callable[[EbusError, bool], None] = lambda error, reconnect: None

    def start(
        self,
        authorizer: BusAuthorizer,
        reassess: Callable[[User | None, bool], Awaitable[None]],
        end: Callable[[EbusError, bool], None],
        *,
        identify: bool = True,
    ) -> None:
        """Begin.

        Args:
            authorizer: Asks the Authorizer for this connection.
            reassess: Called with the user and with whether it may write: the broker is to look at each bus.
            end: Called with the reason if the connection is to be closed, and with whether coming back may help.
            identify: False for a kernel, which has a token of its own.
        """
        self._end = end
        if identify:
            self._identities.on_logout.add(self._logged_out)
        self._task = asyncio.ensure_future(self._run(authorizer, reassess, identify))

    def stop(self) -> None:
        """The connection is closed. Safe to call twice, and before `start`."""
        self._identities.on_logout.discard(self._logged_out)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._task = None

    async def _run(
        self, authorizer: BusAuthorizer, reassess: Callable[[User | None, bool], Awaitable[None]], identify: bool
    ) -> None:
        is_settled = self._identities.is_settled and authorizer.per_bus is None
        while self._task is not None:
            await asyncio.sleep(SETTLED_SECONDS if is_settled else RECHECK_SECONDS)
            try:
                before = participant("client", self._handler.current_user)
                if identify and not await self._identify():
                    return
                if authorizer.per_bus is None and participant("client", self._handler.current_user) == before:
                    continue  # this Authorizer allows everything: most servers' does
                if not await authorizer.allows("read"):
                    name = self._handler.current_user.username if self._handler.current_user else "this kernel"
                    self._end(Forbidden(f"{name!r} may no longer use buses here."), False)
                    return
                await reassess(self._handler.current_user, await authorizer.allows("write"))
            except asyncio.CancelledError:
                raise
            except Exception:  # of the provider or the Authorizer: the next attempt may succeed
                self._log.exception("ebus: a connection's rights could not be looked at again")

    async def _identify(self) -> bool:
        """Ask who is behind the request. False where the connection has ended by that."""
        user = await self._identities.ask_again(self._probe)
        known = self._handler.current_user
        if user is None:
            self._end(Unauthenticated("the login that this connection began with has ended. Log in again."), False)
            return False
        if known is None or user.username != known.username:
            self._end(ConnectionLost("the server knows this client as another user now."), True)
            return False
        self._handler.current_user = user
        return True

    def _logged_out(self, cookie: bytes, user: str) -> None:
        own = self._identities.cookie_digest(self._probe)
        if own and own == cookie:
            self._end(Unauthenticated("you have logged out. Log in again to use buses."), False)
        elif own and user and self._handler.current_user is not None and self._handler.current_user.username == user:
            # Another login of the same user: it comes back, if its own cookie is still good.
            self._end(ConnectionLost("this user has logged out."), True)
