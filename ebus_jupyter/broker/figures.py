"""Figures of a running broker, for who operates it.

Each part counts what it does where it does it, in plain attributes. They are put together when somebody asks
(`ebus_jupyter.server.metrics`); nobody who asks costs a write anything.
"""

from __future__ import annotations

import msgspec


class Timing:
    """How long the work of one kind takes.

    Attributes:
        count: How often it was done.
        seconds: How long all of it took.
        longest: How long the longest took.
    """

    __slots__ = ("count", "longest", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """It was done once more, and took so long."""
        self.count += 1
        self.seconds += seconds
        if seconds > self.longest:
            self.longest = seconds


class Figures(msgspec.Struct, kw_only=True):
    """The figures of one broker since its start.

    Attributes:
        connections: Clients that are connected, by kind.
        buses: Buses that are loaded.
        subscriptions: Subscriptions to them.
        writes: Writes that were committed.
        refusals: Errors that were answered, and connections that were refused or ended for one, by the error's code.
        lags: Readers that were told that they had missed messages.
        received_bytes: Bytes of the clients' messages.
        sent_bytes: Bytes of messages to clients.
        receiving: Work on clients' messages, one time for each piece. A lone write is committed and delivered in it.
        committing: Commits of a batch of writes.
        delivering: Deliveries to all connections that have something to be sent.
    """

    connections: dict[str, int]
    buses: int
    subscriptions: int
    writes: int
    refusals: dict[str, int]
    lags: int
    received_bytes: int
    sent_bytes: int
    receiving: Timing
    committing: Timing
    delivering: Timing
