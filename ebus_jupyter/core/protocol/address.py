"""The identity of a bus: a scope, the owner of that scope, and a name.

| scope | participants | owner |
| --- | --- | --- |
| ``kernel`` | one kernel and the pages that show its widgets | the kernel's id |
| ``user`` | all kernels, tabs and notebooks of one user | the username |
| ``server`` | everyone authenticated on this Jupyter server | "" |
| ``hub`` | everyone on a JupyterHub (``hub:GROUP``: one of its groups) | "" or the group |

An `Address` prints as a URI, ``ebus:user/alice/votes``. A name alone is not enough for a page to enter a kernel's bus or
an unnamed one: it takes a *capability*, which only the broker can make and which travels behind the address
(``ebus:kernel/4f…/votes#CAPABILITY``).

>>> Address.parse("ebus:server/votes")
Address(scope='server', owner='', name='votes')
>>> str(Address("user", "alice@example.org", "votes"))
'ebus:user/alice%40example.org/votes'
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import NamedTuple
from urllib.parse import quote, unquote

from ebus_jupyter.errors import Forbidden, InvalidName, NoSuchBus, UnknownScope, shorten

from .message import Participant

SCOPES = ("kernel", "user", "server", "hub")
UNNAMED = "~"
"""The first character of the names that the broker gives to unnamed buses. No other name may begin with it."""

_NAME = re.compile(r"\w[\w.:@-]*", re.UNICODE)


class Address(NamedTuple):
    """The identity of a bus within one broker."""

    scope: str
    owner: str
    name: str

    def __str__(self) -> str:
        path = [self.scope, self.owner, self.name] if self.owner else [self.scope, self.name]
        return "ebus:" + "/".join(quote(part, safe="~:") for part in path)

    @classmethod
    def parse(cls, uri: str) -> Address:
        """Read the output of `str`; a capability behind ``#`` is ignored.

        Raises:
            InvalidName: ``uri`` is not the URI of a bus.
        """
        scheme, _, rest = uri.partition("#")[0].partition(":")
        path = [unquote(part) for part in rest.split("/")]
        if scheme != "ebus" or len(path) not in (2, 3) or not all(path):
            raise InvalidName(f"{shorten(uri, 80)!r} is not the URI of a bus; one looks like ebus:server/votes.")
        return cls(path[0], path[1] if len(path) == 3 else "", path[-1])

    @property
    def unnamed(self) -> bool:
        """True if the broker made the name."""
        return self.name.startswith(UNNAMED)

    @property
    def guarded(self) -> bool:
        """True if a page needs a capability to enter."""
        return self.scope == "kernel" or self.unnamed

    def capability(self, secret: bytes) -> str:
        """The proof, which only the holder of ``secret`` can make, that its bearer was given this bus."""
        return hmac.new(secret, str(self).encode(), hashlib.sha256).hexdigest()[:40]


def check_name(name: str, longest: int) -> str:
    """Return ``name`` if a bus may have it.

    Args:
        name: The name.
        longest: The most characters that it may have.

    Raises:
        InvalidName: ``name`` is empty, too long, or holds a character that a name can't have.
    """
    if not isinstance(name, str) or not name or len(name) > longest or not _NAME.fullmatch(name):
        shown = repr(shorten(name, 40)) if isinstance(name, str) else f"a value of type {type(name).__name__}"
        raise InvalidName(
            f"{shown} can't name a bus: use 1 to {longest} letters, digits and any of . _ - : @ "
            "beginning with a letter, a digit or _."
        )
    return name


def check_scope(scope: str) -> str:
    """Return ``scope`` if it exists.

    Raises:
        UnknownScope: There is no such scope.
    """
    kind, _, group = scope.partition(":") if isinstance(scope, str) else ("", "", "")
    if kind not in SCOPES or (group and kind != "hub") or scope.endswith(":"):
        shown = repr(shorten(scope, 40)) if isinstance(scope, str) else f"of type {type(scope).__name__}"
        raise UnknownScope(f"there is no scope {shown}; choose one of {', '.join(SCOPES)} (or hub:GROUP).")
    return scope


def resolve(scope: str, name: str, who: Participant, *, owner: str = "", shared_engine: bool = False) -> Address:
    """The address that ``who`` means by a scope and a name.

    Args:
        scope: "kernel", "user", "server", "hub" or "hub:GROUP".
        name: The bus's name.
        who: The participant.
        owner: The owner of the scope where that is not ``who`` itself, as for a page that enters a kernel's bus. Such an
            address opens only with its capability, so naming another's gains nothing.
        shared_engine: True if this broker shares its buses with the hub's other servers.

    Raises:
        UnknownScope: The scope does not exist, or not on this broker.
        Forbidden: The participant has no such scope: only a kernel has a scope "kernel".
        NoSuchBus: The participant is not in the hub's group.
    """
    check_scope(scope)
    kind, _, group = scope.partition(":")
    if kind == "hub":
        if not shared_engine:
            raise UnknownScope(
                "scope 'hub' needs a broker that all servers of the hub share, and this server has none. "
                "Run `jupyter ebus serve` as a JupyterHub service (see the deployment page), or use scope 'server'."
            )
        if group and group not in who.groups:
            raise NoSuchBus(f"no bus {name!r} in scope {scope!r} within your reach.")
        return Address("hub", group, name)
    if owner:
        return Address(kind, owner, name)
    if kind == "server":
        return Address("server", "", name)
    if kind == "user":
        return Address("user", who.user, name)
    if not who.kernel_id:
        raise Forbidden(
            "scope 'kernel' belongs to a kernel: open the bus in the kernel, and hand it to the page with a widget "
            "(its handle carries the capability)."
        )
    return Address("kernel", who.kernel_id, name)


def may_enter(address: Address, who: Participant, capability: str, secret: bytes) -> bool:
    """True if ``who`` may open ``address``, by being in its scope or by holding its capability.

    Without a ``secret``, no capability counts.
    """
    if capability and secret and hmac.compare_digest(capability.encode(), address.capability(secret).encode()):
        return True
    if who.kind == "server":
        return True
    if address.unnamed:
        return False
    match address.scope:
        case "server":
            return not address.owner
        case "user":
            return address.owner == who.user
        case "kernel":
            return bool(who.kernel_id) and address.owner == who.kernel_id
        case "hub":
            return not address.owner or address.owner in who.groups
        case _:
            return False
