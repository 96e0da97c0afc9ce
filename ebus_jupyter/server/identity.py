"""Who is behind a request: the user that Jupyter's identity provider names, or the holders of the server's token as one.

Jupyter's default identity provider knows people by a cookie. A request with the server's token alone gets a new, random user
each time. On a bus such a client would be somebody else after each reconnect, and could vote once more. So all clients that
have shown nothing but the token are one user here, the same one at each connection, in the HTTP API and in the kernels that
they start; `Participant.anonymous` tells it from people. Each client instance still has an id of its own. An identity provider
that maps tokens to users is not affected, nor is a page with a cookie.

`Identities` wraps methods of the identity provider: the one that makes random users, to know them, and those that log in and
out, to end the connections that a cookie has opened with the cookie.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server import CallContext
from jupyter_server.auth.identity import IdentityProvider, PasswordIdentityProvider, User
from tornado import web
from tornado.httputil import HTTPHeaders

LOGGED_OUT_KEPT = 10_000
"""How many cookies that were logged out are remembered: the last ones."""

_MARK = "_ebus_random_user"


class Identities:
    """The identity provider of one server, as this extension asks it.

    Args:
        provider: Jupyter's identity provider.
        secret: The server's cookie secret.

    Attributes:
        on_logout: Callbacks that are called with the digest of the cookie that was logged out, and with its user.
    """

    def __init__(self, provider: Any, secret: bytes) -> None:
        self._provider = provider
        self._secret = secret
        self._logged_out: dict[bytes, None] = {}
        self.on_logout: set[Callable[[bytes, str], None]] = set()

    def start(self) -> None:
        """Wrap the provider's methods."""
        self._provider.generate_anonymous_user = self._random_user
        self._provider.clear_login_cookie = self._clear_login_cookie
        self._provider.set_login_cookie = self._set_login_cookie

    def stop(self) -> None:
        """Restore them."""
        for name in ("generate_anonymous_user", "clear_login_cookie", "set_login_cookie"):
            vars(self._provider).pop(name, None)

    @property
    def is_settled(self) -> bool:
        """True if a user whom the provider knows stays known until log-out: its answers are in the cookie and the token."""
        return type(self._provider) in (IdentityProvider, PasswordIdentityProvider)

    def settle(self, handler: Any) -> None:
        """The provider has answered for a request: replace a random user by the one of the token's holders.

        A request whose cookie was logged out has no user.
        """
        user = handler.current_user
        if user is not None and getattr(handler, _MARK, None) is user:
            handler.current_user = handler._jupyter_current_user = self.token_user(handler)
        elif user is not None and self._was_logged_out(handler):
            handler.current_user = handler._jupyter_current_user = None

    def token_user(self, handler: Any) -> User:
        """The user that stands for everyone who holds the request's token."""
        token = self._provider.get_token(handler) or ""
        digest = hmac.digest(self._secret, b"ebus_jupyter token " + token.encode(), hashlib.sha256).hex()
        return AnonymousUser(f"token-{digest[:16]}", "Anonymous", "Anonymous")

    def of_request(self) -> User | None:
        """The user of the request that is being handled; None outside of a request."""
        handler = CallContext.get(CallContext.JUPYTER_HANDLER)
        user: User | None = getattr(handler, "current_user", None)
        if user is not None and getattr(handler, _MARK, None) is user:
            return self.token_user(handler)
        return user

    async def ask_again(self, probe: web.RequestHandler) -> User | None:
        """Ask the provider once more who is behind a request: None where it does not know any more.

        Args:
            probe: A copy of the request's handler, from before the provider was first asked: it remembers nothing.
        """
        asked: Any = copy.copy(probe)
        asked._headers = HTTPHeaders()
        try:
            asked.current_user = asked._jupyter_current_user = await ensure_async(self._provider.get_user(asked))
        except web.HTTPError as refused:
            if refused.status_code not in (401, 403):
                raise
            return None
        self.settle(asked)
        user: User | None = asked.current_user
        return user

    def cookie_digest(self, handler: Any) -> bytes:
        """Names the login cookie of a request; empty where it has none."""
        cookie = handler.get_cookie(self._provider.get_cookie_name(handler))
        return hashlib.sha256(cookie.encode()).digest() if cookie else b""

    # --- the wrapped methods ----------------------------------------------------------------------------------------

    def _random_user(self, handler: Any) -> User:
        user: User = type(self._provider).generate_anonymous_user(self._provider, handler)
        setattr(handler, _MARK, user)
        return user

    def _clear_login_cookie(self, handler: Any) -> None:
        type(self._provider).clear_login_cookie(self._provider, handler)
        digest = self.cookie_digest(handler)
        if not digest:
            return
        while len(self._logged_out) >= LOGGED_OUT_KEPT:
            del self._logged_out[next(iter(self._logged_out))]
        self._logged_out[digest] = None
        user = getattr(handler, "_jupyter_current_user", None)
        for told in tuple(self.on_logout):
            told(digest, user.username if user is not None else "")

    def _set_login_cookie(self, handler: Any, user: User) -> None:
        type(self._provider).set_login_cookie(self._provider, handler, user)
        # A new login within a second of the last one has the very same cookie.
        cookie = getattr(handler, "_new_cookie", {}).get(self._provider.get_cookie_name(handler))
        if cookie is not None:
            self._logged_out.pop(hashlib.sha256(cookie.value.encode()).digest(), None)

    def _was_logged_out(self, handler: Any) -> bool:
        return bool(self._logged_out) and self.cookie_digest(handler) in self._logged_out


class AnonymousUser(User):
    """Everyone who holds the server's token and has shown nothing else."""


def is_anonymous(user: User | None) -> bool:
    """True if ``user`` stands for the holders of a token."""
    return isinstance(user, AnonymousUser)
