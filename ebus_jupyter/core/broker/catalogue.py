"""The catalogue: which named buses are kept, sorted, so that a list of them is read page by page.

No list walks all buses: a page begins where the last one has ended, looks at no more than `EXAMINED` buses, and holds no more
than the client asked for and than fit. What is kept counts for the user who has made it.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator

import msgspec

from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.message import BusSpec, Participant

from .account import Account, Accounts

EXAMINED = 2_000
"""The most buses that are looked at for one page."""

Scope = tuple[str, str]
"""A scope and its owner."""


class Listed(msgspec.Struct, frozen=True, gc=False):
    """A kept bus."""

    address: Address
    spec: BusSpec
    size: int
    account: Account


class Catalogue:
    """The named buses that the backend keeps, by address.

    Args:
        accounts: The accounts of those who have made them.
    """

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._listed: dict[str, Listed] = {}
        self._scopes: list[Scope] = []  # those with buses, sorted
        self._uris: dict[Scope, list[str]] = {}  # sorted

    def __len__(self) -> int:
        return len(self._listed)

    def __contains__(self, uri: object) -> bool:
        return uri in self._listed

    def __getitem__(self, uri: str) -> Listed:
        return self._listed[uri]

    def add(self, address: Address, spec: BusSpec, now: float) -> None:
        """A bus is kept, or has another spec."""
        uri, scope = str(address), (address.scope, address.owner)
        before = self._listed.get(uri)
        account = self._accounts.of_user(spec.maker, now)
        size = spec_size(spec)
        if before is not None:
            _release(before)
        else:
            uris = self._uris.get(scope)
            if uris is None:
                self._uris[scope] = [uri]
                insort(self._scopes, scope)
            else:
                insort(uris, uri)
        self._listed[uri] = Listed(address, spec, size, account)
        account.add("buses", 1)
        account.add("specs", size)

    def remove(self, uri: str) -> None:
        """A bus is kept no longer. Without effect where it was not."""
        found = self._listed.pop(uri, None)
        if found is None:
            return
        _release(found)
        scope = (found.address.scope, found.address.owner)
        uris = self._uris[scope]
        del uris[bisect_right(uris, uri) - 1]
        if not uris:
            del self._uris[scope]
            del self._scopes[bisect_right(self._scopes, scope) - 1]

    def in_scope(self, scope: str, owner: str) -> list[str]:
        """The addresses of the buses of one scope."""
        return list(self._uris.get((scope, owner), ()))

    def after(self, cursor: Address | None, who: Participant) -> Iterator[Listed]:
        """The buses whose scopes ``who`` is in, in the order of pages, those behind ``cursor`` alone."""
        for scope in self._reach(who):
            if cursor is not None and scope < (cursor.scope, cursor.owner):
                continue
            uris = self._uris.get(scope, ())
            is_within = cursor is not None and scope == (cursor.scope, cursor.owner)
            for i in range(bisect_right(uris, str(cursor)) if is_within else 0, len(uris)):
                yield self._listed[uris[i]]

    def _reach(self, who: Participant) -> list[Scope]:
        if who.kind == "server":
            return list(self._scopes)
        own = [("hub", ""), ("server", ""), ("user", who.user), *(("hub", group) for group in who.groups if group)]
        if who.kernel_id:
            own.append(("kernel", who.kernel_id))
        return sorted(own)


def _release(listed: Listed) -> None:
    listed.account.add("buses", -1)
    listed.account.add("specs", -listed.size)


def spec_size(spec: BusSpec) -> int:
    """The bytes that count for a bus's spec."""
    return len(msgspec.msgpack.encode(spec))
