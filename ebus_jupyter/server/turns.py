"""Turns: how many requests of one user are read for at once.

The answer to one request may have megabytes. The next requests of the same user wait for their turn, as the few bytes that
they are.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

AT_ONCE = 4
"""The requests of one user that are answered at once."""


class Turns:
    """The turns of all users. It belongs to one event loop."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._users: dict[
            str, tuple[asyncio.Semaphore, int]
        ] = {}  # with the number of requests that have or wait for a turn

    def __len__(self) -> int:
        return len(self._users)

    @contextlib.asynccontextmanager
    async def of(self, user: str) -> AsyncIterator[None]:
        """Wait for a turn of ``user``, and have it until the block ends."""
        semaphore, requests = self._users.get(user, (None, 0))
        if semaphore is None:
            semaphore = asyncio.Semaphore(self._at_once)
        self._users[user] = semaphore, requests + 1
        try:
            async with semaphore:
                yield
        finally:
            semaphore, requests = self._users[user]
            if requests == 1:
                del self._users[user]
            else:
                self._users[user] = semaphore, requests - 1
