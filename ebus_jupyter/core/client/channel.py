"""One bus, as a client knows it: how to open it again, its messages, its participants, and the position to resume from.

Arrived messages lie in one log of the bus's own size. A hole that the broker reports lies there as a `Gap`, which each
reader (`core.client.reader`) meets when it gets there.
"""

from __future__ import annotations

from collections import deque
from operator import index
from typing import Any, NamedTuple

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.log import Log
from ebus_jupyter.core.protocol.message import GIVEN, OWNER, BusSpec
from ebus_jupyter.core.protocol.position import Position
from ebus_jupyter.core.protocol.seat import WireSeat, decode_seat
from ebus_jupyter.errors import EbusError

LOG_BYTES = Limits().log_bytes
"""The bytes of one bus that are kept for the program's own slow readers. Over it the oldest messages go."""


GATHER_SECONDS = 0.05
"""How long writes wait that are to be sent together, where only their number was given."""

GATHER_WRITES = 1000
"""How many writes are sent together at most, where only the seconds were given."""


class Gap(NamedTuple):
    """Messages are missing up to ``offset``; ``skipped`` of them, None where that can't be known."""

    offset: int
    skipped: int | None


class Channel:
    """One bus, as a client knows it.

    Args:
        scope, name, given, owner, cap, create: How to open it; see `frames.Open`, where ``given`` is ``spec``.

    Attributes:
        number: The broker's number of the bus on this connection; 0 while it is not open there.
        error: The error that ended the bus, once it has ended.
        unreadable: The error that forbids reading on this connection, where the bus may be written.
        last: The offset of the last message seen.
        target: The broker's last offset when it began to send.
        log_epoch: The epoch of `log`; "" before the first reply to a subscription.
        log_start: The offset after which `log` began.
        subscribe_position: The position at which the first subscription was to begin.
        resets: Counts how often `log` was replaced by another history or by a snapshot.
        reset_skipped: How many messages the last reset lost; None where that can't be known.
        state: The presence state that this client has set, encoded; None where it has set none.
        unacked: Writes without an answer, by id.
        filter_requests: The broker's numbers of the writes that this client is to filter, by its own numbers.
        batch: Ids of the writes that wait to be sent together, since ``batch_since``.
    """

    def __init__(self, scope: str, name: str | None, given: dict[str, Any], owner: str, cap: str, create: bool) -> None:
        self.scope = scope
        self.name = name
        self.given = given
        self.owner = owner
        self.cap = cap
        self.create = create
        self.spec = BusSpec()
        self.uri = ""
        self.epoch = ""
        self.number = 0
        self.error: EbusError | None = None
        self.unreadable: EbusError | None = None
        self.wants_messages = False
        self.wants_presence = False
        self.presence_known = False
        self.participants: dict[str, WireSeat] = {}
        self.state: msgspec.Raw | None = None
        self.last = 0
        self._last_delivery: frames.Delivery | None = None  # since the log began, and since the last hole in it
        self.target = 0
        self.log: Log[frames.Delivery | Gap] = Log()
        self.log_epoch = ""
        self.log_start = 0
        self.subscribe_position: Position | None = None
        self.resets = 0
        self.reset_skipped: int | None = None
        self.unacked: dict[int, frames.Publish] = {}
        self.filter_requests: dict[int, int] = {}
        self.batch: deque[int] = deque()
        self.batch_since = 0.0
        self.flush_size = 1
        self.flush_interval = 0.0

    @property
    def is_open(self) -> bool:
        """True while the bus is open on this connection."""
        return self.number != 0 and self.error is None

    @property
    def read_error(self) -> EbusError | None:
        """The error that ends reading now; None where reading goes on."""
        return self.error or self.unreadable

    @property
    def batch_deadline(self) -> float:
        """The time at which the batch is to be sent, full or not. Meaningless while it is empty."""
        return self.batch_since + self.flush_interval

    def gather(self, size: int | None, interval: float | None) -> None:
        """Send writes together: when ``size`` of them wait, or ``interval`` seconds after the first; None: as before.

        One of the two is enough: writes that gather by number wait for `GATHER_SECONDS` at most.
        """
        if size is not None:
            self.flush_size = max(1, index(size))
        elif interval:
            self.flush_size = max(self.flush_size, GATHER_WRITES)
        if interval is not None:
            self.flush_interval = float(interval)
        elif self.flush_size > 1 and not self.flush_interval:
            self.flush_interval = GATHER_SECONDS

    def to_repeat(self) -> list[frames.SetPresence | frames.Publish]:
        """The frames of the bus for a new connection, besides its subscription: presence, and writes without an answer."""
        repeated: list[frames.SetPresence | frames.Publish] = []
        if self.wants_presence:
            repeated.append(frames.SetPresence(self.number, watch=True))
        if self.state is not None:
            repeated.append(frames.SetPresence(self.number, self.state))
        self.batch.clear()
        for write in self.unacked.values():
            write.bus = self.number
            repeated.append(write)
        return repeated

    @property
    def position(self) -> Position:
        """The place that this client has reached: that of the last message that it could see, or else the bus's own."""
        seen = self._last_delivery
        if seen is not None:
            return Position(self.log_epoch, seen.offset, seen.message_id)
        return Position(self.log_epoch, self.last) if self.log_epoch else Position(self.epoch, self.target)

    def subscription(self) -> frames.Subscribe:
        """The frame that asks for live messages: from now on, or after the last offset seen."""
        if self.log_epoch:
            epoch, offset, id_ = self.position
            return frames.Subscribe(0, self.number, epoch, self.last, id_, offset if offset < self.last else 0)
        if self.subscribe_position is None:
            self.subscribe_position = Position(self.epoch, self.target)
            return frames.Subscribe(0, self.number)
        # The reply was lost with its connection; messages since then are wanted.
        return frames.Subscribe(0, self.number, *self.subscribe_position)

    # --- the connection and the broker's frames -----------------------------------------------------------------------

    def connection_lost(self) -> None:
        """The connection has ended. The channel keeps what it knows of the bus."""
        self.number, self.unreadable = 0, None
        self.batch.clear()
        self.filter_requests.clear()  # the next broker counts anew: a late answer would be taken for another write's

    def opened(self, frame: frames.Opened) -> None:
        """The bus is open on this connection."""
        address = Address.parse(frame.address)
        is_new = not self.epoch
        self.number, self.uri, self.epoch, self.cap = frame.bus, frame.address, frame.epoch, frame.cap
        self.name, self.owner = address.name, address.owner if frame.cap else ""
        self.spec = msgspec.convert(frame.spec, BusSpec, strict=False)
        # It is opened again as it is, so that a broker that forgot it makes the same one, whichever client comes first.
        # A bus that another kernel filters is only joined: made anew from here, it would take unfiltered writes.
        if self.spec.filter == OWNER and self.given.get("filter") != OWNER:
            self.create = False
        elif self.create and not address.unnamed:
            # What was asked for stays, also where it is a default that the spec leaves out: no filter, for one.
            self.given = {**self.given, **{field: frame.spec[field] for field in frame.spec if field in GIVEN}}
        if is_new:
            self._begin_log()
        if not self.log_epoch:
            self.target = frame.last

    def altered(self, frame: frames.Opened) -> None:
        """The bus has another spec, which takes all that the last one took."""
        self.spec = msgspec.convert(frame.spec, BusSpec, strict=False)
        self.log.size = 1 if self.spec.retain == "latest" else self.spec.size
        self.given = {**self.given, **{field: frame.spec[field] for field in self.given if field in frame.spec}}

    def granted(self, given: dict[str, Any]) -> None:
        """The broker has granted further fields of the spec: the bus is opened again with them."""
        self.given = {**self.given, **given}
        if given.get("filter") == OWNER:
            self.create = True  # its filter runs here now: made anew from here, it takes no unfiltered write

    def subscribed(self, frame: frames.Subscribed) -> None:
        """Live messages follow."""
        self.target = frame.last
        if not self.log_epoch:
            # Where the broker refused to begin at the first wanted position, the messages since then are a hole in the log.
            refused = not frame.recovered and not frame.fresh
            begins_at = self.subscribe_position if refused else None
            self.log_start = self.last = frame.after if begins_at is None else begins_at.offset
            self._begin_log(self.log_start)
            self.log_epoch = frame.epoch
            if self.last < frame.after:
                self.missed(frame.after, frame.skipped)
        elif not frame.recovered:
            self.missed(frame.after, frame.skipped, fresh=frame.fresh)
            self.log_epoch = frame.epoch

    def delivered(self, frame: frames.Delivery) -> bool:
        """A message has arrived. Returns whether it is a new one."""
        if frame.offset <= self.last:
            return False
        self.last, self._last_delivery = frame.offset, frame
        self.log.append(frame.offset, frame, key=frame.key, deleted=frame.deleted, size=len(frame.value))
        return True

    def advanced(self, offset: int) -> bool:
        """The bus has gone on to ``offset`` with a message that is not for this client. Returns whether that is news."""
        if offset <= self.last:
            return False
        self.last = offset
        return True

    def missed(self, offset: int, skipped: int, *, fresh: bool = False) -> None:
        """Messages up to ``offset`` are lost to this client.

        Args:
            offset: The last lost offset; messages after it follow.
            skipped: How many messages are lost; -1 where that can't be known.
            fresh: Everything that the broker keeps follows; the log begins anew.
        """
        lost = None if skipped < 0 else skipped
        if fresh or offset <= self.last:
            self._begin_log(offset)
            self.resets += 1
            self.reset_skipped = lost
        else:
            self.log.append(offset, Gap(offset, lost))
        self.last, self._last_delivery = offset, None

    def presence_received(self, frame: frames.Presence) -> None:
        """Participants came, went or changed; a full frame replaces what was known."""
        if frame.full:
            self.participants.clear()
            self.presence_known = True
        for raw in frame.here:
            seat = decode_seat(raw)
            self.participants[seat.who.id] = seat
        for id_ in frame.left:
            self.participants.pop(id_, None)

    def _begin_log(self, after: int = 0) -> None:
        """Begin a new log after offset ``after``, which has nothing to do with the one before."""
        self.log = Log(retain=self.spec.retain, size=self.spec.size, max_bytes=LOG_BYTES)
        self.log.restart(after)
