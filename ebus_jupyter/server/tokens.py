"""The tokens by which kernels authenticate.

- *One token per kernel*, random, bound to the kernel's id and to the user whose request started the kernel. A kernel that
  no request started (a scheduler, another extension) acts for nobody: its user is "", which no identity provider returns.
- *A token lives as long as its kernel*, over restarts, until the server forgets the kernel.
- *The server stores no token*, only its hash.

A token identifies a kernel. It does not isolate kernels from each other, since all of them run as one OS user.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable

from jupyter_server.auth.identity import User


class Grant:
    """The kernel and the user that one token stands for.

    Attributes:
        kernel_id: The kernel.
        user: The user who started it; None for a kernel that no request started.
        on_revoke: Callbacks that are called once, when the token is revoked.
    """

    __slots__ = ("_digest", "kernel_id", "on_revoke", "user")

    def __init__(self, digest: bytes, kernel_id: str, user: User | None) -> None:
        self._digest = digest
        self.kernel_id = kernel_id
        self.user = user
        self.on_revoke: set[Callable[[], None]] = set()

    def matches(self, digest: bytes) -> bool:
        return hmac.compare_digest(self._digest, digest)


class Tokens:
    """The valid tokens: one for each running kernel."""

    def __init__(self) -> None:
        self._grants: dict[str, Grant] = {}

    def issue(self, kernel_id: str, user: User | None) -> str:
        """Make a new token for a kernel and revoke its previous one."""
        self.revoke(kernel_id)
        token = "ebus-" + secrets.token_urlsafe(32)
        self._grants[kernel_id] = Grant(_digest(token), kernel_id, user)
        return token

    def find(self, token: str) -> Grant | None:
        """Return what ``token`` stands for, in a time that does not depend on how much of a guess is right."""
        digest, found = _digest(token), None
        for grant in self._grants.values():
            if grant.matches(digest):
                found = grant
        return found

    def revoke(self, kernel_id: str) -> None:
        """Invalidate the kernel's token, if it has one."""
        grant = self._grants.pop(kernel_id, None)
        if grant is not None:
            for callback in tuple(grant.on_revoke):
                callback()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
