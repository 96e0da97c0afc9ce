"""Rights: what a connection may do on a bus.

A right follows from what the connection has authenticated as: from its own right to write at all, from the server's
Authorizer (`Conn.permits`), and from the bus's access lists. Rights may change while a connection lasts; see
`BusRegistry.reassess`.

*Deleting* a bus takes more than writing to it. The user who made a bus may delete it. Everyone else may delete it only
where nobody is kept out of it (no access lists, no filter), and only with the rights to read and to write it: a letter box
can't be deleted by those who may only post into it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.message import BusSpec, Participant, allows, public
from ebus_jupyter.errors import Forbidden

from .bus import BusState
from .conn import Access, Conn
from .entry import Writer


def rights(conn: Conn, bus_permit: tuple[bool, bool], spec: BusSpec) -> tuple[bool, bool]:
    """Return whether a connection may read a bus, and whether it may write to it.

    Args:
        conn: The connection.
        bus_permit: The authorizer's answers about the bus.
        spec: The bus's specification.
    """
    read, write = bus_permit
    return read and allows(spec.readers, conn.who), write and conn.may_write and allows(spec.writers, conn.who)


def reassess(
    conn: Conn,
    who: Participant,
    may_write: bool,
    permits: Mapping[Address, tuple[bool, bool]],
    admit: Callable[[Address, Participant], bool],
) -> tuple[list[BusState], list[BusState]]:
    """Bring a connection's rights up to date; the arguments are those of `BusRegistry.reassess`.

    ``admit`` says whether a participant is in a bus's scope.

    Returns:
        The buses that it is to leave, and those on which it may no longer say anything.
    """
    if (who.name, who.groups) != (conn.who.name, conn.who.groups):
        conn.who = msgspec.structs.replace(conn.who, name=who.name, groups=who.groups)
        if conn.writer is not None:
            conn.writer = Writer(conn.who, msgspec.msgpack.encode(public(conn.who)), conn.account)
    conn.may_write = may_write
    lost, silenced = [], []
    for access in conn.open.values():
        address = access.bus.info.address
        if address in permits:
            conn.permits[address] = permits[address]
        read, write = rights(conn, conn.permit(address), access.bus.info.spec)
        is_in_scope = address.guarded or admit(address, conn.who)
        if not is_in_scope or (access.read and not read) or not (read or write):
            lost.append(access.bus)
            continue
        if access.write and not write:
            silenced.append(access.bus)
        access.read, access.write = read, write
    return lost, silenced


def ensure_may_delete(who: Participant, access: Access) -> None:
    """Raise `Forbidden` unless a participant may delete the bus for everyone."""
    spec, name = access.bus.info.spec, access.bus.info.name
    if who.kind == "server" or (access.write and spec.maker and spec.maker == who.user):
        return
    if not (access.read and access.write):
        raise Forbidden(
            f"{who.user or 'this participant'} may not delete {name}: that takes the rights to read and to write it. Ask "
            f"{spec.maker or 'its maker'}."
        )
    if spec.maker and (spec.filter is not None or spec.readers is not None or spec.writers is not None):
        raise Forbidden(f"only {spec.maker}, who made it, may delete {name}: it has a filter or access lists.")
