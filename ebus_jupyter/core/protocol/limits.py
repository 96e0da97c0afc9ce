"""Every bound of the broker, with its default and the consequence of reaching it.

Nothing grows without end. A write, a name or a rate that would pass its bound is refused with an error that names the
bound (its attribute ``limit``); a log drops its oldest entries and tells the readers that miss them (`Lagged`).
"""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one broker. Sizes are in bytes, times in seconds, rates per second."""

    value_bytes: int = 1 << 20
    """One value, encoded. Over it: `TooLarge`."""
    batch_bytes: int = 8 << 20
    """One WebSocket message from a client. Over it: the connection is closed with a named reason."""
    name_chars: int = 128
    """A bus name, or a key in a state. Over it: `InvalidName`, `TooLarge`."""
    schema_bytes: int = 64 << 10
    """The JSON Schema of a bus. Over it: `TooLarge`."""
    size: int = 100_000
    """The largest ``size=`` that a bus may ask for. Over it: `TooLarge`."""
    log_bytes: int = 64 << 20
    """Bytes that one bus keeps. Over it the oldest messages go before ``size`` is reached."""
    kept_buses: int = 100_000
    """Named buses that are kept, open or not. Over it a new bus is refused until others are deleted: `TooLarge`."""
    buses: int = 20_000
    """Buses open at once in this broker. Over it: `TooLarge`."""
    buses_per_participant: int = 5_000
    """Buses that one connection has open. Over it: `TooLarge`."""
    connections: int = 10_000
    """Connections to this broker. Over it a new one is refused with a `Bye` that says so."""
    recipients: int = 1_000
    """Users named in ``to=``, ``readers=`` or ``writers=``. Over it: `TooLarge`."""
    publish_rate: float = 2_000.0
    """Accepted writes per second of one page or client. Over it the writes of a Python client wait; those of a page, and those
    with ``wait=False``, are refused: `RateLimited`."""
    kernel_publish_rate: float = 500_000.0
    """The same for a kernel."""
    publish_burst: float = 2.0
    """Writes that may come at once, in seconds of the rate. A Python client sends nine tenths of them at once."""
    pending: int = 10_000
    """Writes of one connection that wait for a filter. Over it: `RateLimited`."""
    dedupe: int = 10_000
    """Accepted writes of each client that a bus remembers, to answer a retry with its first offset. A client has at most
    10,000 writes without an answer. The retry of an older one is refused: nothing is accepted twice."""
    dedupe_bytes: int = 1 << 20
    """Memory of one bus for the writes that it remembers. Over it the user with the most of them gives way: first its oldest
    writes, then its clients that are gone."""
    filter_seconds: float = 5.0
    """Time that a kernel's filter may take for one value. Over it: `FilterUnavailable`."""
    send_bytes: int = 1 << 20
    """Bytes that wait for one connection's socket. Over it the connection's readers are served from the log later."""
    control_bytes: int = 4 << 20
    """Replies that wait for a client that has stopped reading. Over it the connection is closed."""
    page_bytes: int = 512 << 10
    """History in one `Page`; the client asks for the next one."""
    presence_bytes: int = 4 << 10
    """The value of `presence.set`, encoded. Over it: `TooLarge`."""
    presence_rate: float = float(8 << 20)
    """Bytes per second that one bus spends on the changes to its presence, for all its participants together. Over it changes
    wait, and of a state that was set several times meanwhile, others receive the last."""
    gone_seconds: float = 10.0
    """Time for which a participant that lost its connection is away before it has left."""
    creator_seconds: float = 60.0
    """Time for which an unnamed bus waits for its creator to come back (a page reload, a lost connection)."""
