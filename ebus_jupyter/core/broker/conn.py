"""One connection, as the broker's state machine knows it, and its access to buses.

What a connection may do follows from what it has authenticated as, never from what its frames say.
"""

from __future__ import annotations

from collections import deque

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import Forbidden, NoSuchBus

from .account import Account
from .bucket import Bucket
from .bus import BusState
from .entry import Writer
from .unread import Unread


class Access(msgspec.Struct):
    """The rights of one connection on one bus that it has opened."""

    bus: BusState
    read: bool
    write: bool


class Conn(msgspec.Struct, weakref=True):
    """One connection.

    Attributes:
        id: Its number.
        who: What it has authenticated as.
        authorize: Whether the authorizer is asked about each bus that it opens.
        may_write: False for a connection that may only read.
        writer: What its entries carry; None before its hello.
        writing_paused: Whether its socket is full.
        open: The buses that it has opened, by their numbers.
        catching_up: The numbers of the buses that have messages in the log for it.
        missed_presence: The numbers of the buses whose changes to presence it has missed, as its socket was full.
        unread: The frames that have arrived and are not handled yet.
        account: The account of its user.
        writes: The rate of its writes.
        requests: The requests whose answers did not fit yet, in order.
        opening: The number of its requests to open a bus that have no answer.
        answered: The bytes of the answers of the present round of sending; see `BrokerState.flushed`.
        round: The round that ``answered`` is about.
        gone: Whether it has ended: only what it has written is still handled.
        ended: Whether it is to be removed once ``unread`` is empty.
        counted: The bytes of ``unread`` that its account holds.
        permits: The authorizer's answers (may it read, may it write), for the buses that it has opened.
        resends: Whether it sends again what was refused for its rate.
        refuses: Whether its writes are refused until its next ping, because an earlier one was.
    """

    id: int
    who: Participant
    account: Account
    writes: Bucket
    unread: Unread
    authorize: bool = False
    may_write: bool = True
    writer: Writer | None = None
    writing_paused: bool = False
    open: dict[int, Access] = {}
    catching_up: set[int] = set()
    missed_presence: set[int] = set()
    requests: deque[frames.Fetch | frames.List | frames.SetPresence] = msgspec.field(default_factory=deque)
    opening: int = 0
    answered: int = 0
    round: int = -1
    gone: bool = False
    ended: bool = False
    counted: int = 0
    permits: dict[Address, tuple[bool, bool]] = {}
    resends: bool = False
    refuses: bool = False

    def permit(self, address: Address) -> tuple[bool, bool]:
        """True if the authorizer lets it read the bus, and write to it."""
        return self.permits.get(address, (not self.authorize, not self.authorize))

    def access(self, number: int, *, read: bool = False, write: bool = False) -> BusState:
        """The bus with this number, for reading or for writing.

        Raises:
            NoSuchBus: The connection has not opened it.
            Forbidden: The connection may not do that on this bus.
        """
        access = self.open.get(number)
        if access is None:
            raise NoSuchBus("this connection has opened no such bus; open it first.")
        if (read and not access.read) or (write and not access.write):
            may, wish = ("write to", "read") if read else ("read", "write to")
            name = access.bus.info.name
            raise Forbidden(
                f"{self.who.user or 'this participant'} may {may} {name} but not {wish} it; its maker decides with "
                "readers= and writers=, the server with its Authorizer."
            )
        return access.bus

    def forget(self, bus: BusState) -> bool:
        """Drop what the connection holds of a bus.

        Returns:
            Whether the connection had opened it.
        """
        if self.open.pop(bus.info.number, None) is None:
            return False
        self.account.add("opened", -1)
        self.catching_up.discard(bus.info.number)
        self.permits.pop(bus.info.address, None)
        return True
