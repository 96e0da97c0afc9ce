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
    batch_frames: int = 20_000
    """Frames in one WebSocket message. Clients of this package send no more. Over it: the connection is closed."""
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
    user_buses: int = 20_000
    """Named and unnamed buses that one user has made and that are kept or open. Over it a new one is refused: `TooLarge`."""
    user_spec_bytes: int = 64 << 20
    """The specifications of the buses that one user has made. Over it a new one is refused: `TooLarge`."""
    user_opened: int = 50_000
    """Buses open on all connections of one user, each counted for every connection. Over it: `TooLarge`."""
    opened: int = 1_000_000
    """The same for all users together."""
    connections: int = 10_000
    """Connections to this broker. Over it a new one is refused with a `Bye` that says so."""
    user_connections: int = 2_500
    """Connections of one user: its kernels, pages and HTTP requests. Over it a new one is refused with a `Bye`."""
    hello_seconds: float = 20.0
    """Time for which a new connection may say nothing. Then it is closed."""
    request_rate: float = 20_000.0
    """Frames per second that the broker handles for one user, besides writes that it accepts. (Opening a bus counts as four,
    reading history as two and more.) The connections of a user who sends more are read from less often: nothing is refused."""
    request_burst: float = 3.0
    """Such frames that may come at once, in seconds of the rate."""
    requests: int = 1_000
    """Requests for history, lists or participants of one connection that wait until their answers fit (`send_bytes`). Over it
    the connection is not read from."""
    opening: int = 256
    """Buses that one connection is opening. Over it the connection is not read from."""
    user_received_bytes: int = 128 << 20
    """Messages of one user that are not handled yet. Over it, a connection that brings more is closed and may come back:
    `RateLimited`."""
    received_bytes: int = 512 << 20
    """The same for all users together."""
    recipients: int = 1_000
    """Users named in ``to=``, ``readers=`` or ``writers=``. Over it: `TooLarge`."""
    publish_rate: float = 2_000.0
    """Accepted writes per second of one page or client. Over it the writes of a Python client wait; those of a page, and those
    with ``wait=False``, are refused: `RateLimited`."""
    kernel_publish_rate: float = 500_000.0
    """The same for a kernel."""
    user_publish_rate: float = 10_000.0
    """The same for all pages and clients of one user together. Kernels are not counted."""
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
    user_pending_bytes: int = 64 << 20
    """Writes of one user that wait for a filter or for an offset. Over it: `RateLimited`, and clients of this package wait."""
    total_pending_bytes: int = 256 << 20
    """The same for all users together."""
    user_log_bytes: int = 1 << 30
    """Bytes in memory of the logs of buses that one user has made. Over it, such a bus keeps fewer messages in memory when it
    is written to, and takes no new key."""
    total_log_bytes: int = 4 << 30
    """The same for all users together."""
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
    user_presence_bytes: int = 16 << 20
    """The values of `presence.set` of one user, on all buses. Over it: `TooLarge`."""
    total_presence_bytes: int = 128 << 20
    """The same for all users together."""
    list_buses: int = 500
    """Buses in one answer to a `List`; the client asks for the next ones."""
    gone_seconds: float = 10.0
    """Time for which a participant that lost its connection is away before it has left."""
    creator_seconds: float = 60.0
    """Time for which an unnamed bus waits for its creator to come back (a page reload, a lost connection)."""
