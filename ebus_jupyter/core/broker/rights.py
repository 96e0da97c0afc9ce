"""Rights: what a connection may do on a bus.

A right follows from what the connection has authenticated as: from its own right to write at all, from the server's
Authorizer (`Conn.permits`), and from the bus's access lists. Rights may change while a connection lasts; see
`BusRegistry.reassess`.

*Deleting* a bus takes more than writing to it. The user who made a bus may delete it. Everyone else may delete it only
where nobody is kept out of it (no access lists, no filter), and only with the rights to read and to write it: a letter box
can't be deleted by those who may only post into it.
"""

from __future__ import annotations

from ebus_jupyter.core.protocol.message import BusSpec, Participant, allows
from ebus_jupyter.errors import Forbidden

from .conn import Access, Conn


def rights(conn: Conn, bus_permit: tuple[bool, bool], spec: BusSpec) -> tuple[bool, bool]:
    """Return whether a connection may read a bus, and whether it may write to it.

    Args:
        conn: The connection.
        bus_permit: The authorizer's answers about the bus.
        spec: The bus's specification.
    """
    read, write = bus_permit
    return read and allows(spec.readers, conn.who), write and conn.may_write and allows(spec.writers, conn.who)


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
