"""One bus, as a client knows it: how to open it again, what has arrived, where to resume, and who is there.

What arrives lies in one log of the bus's own size. A hole that the broker tells of lies there as a `Gap`, which each reader
(`core.client.reader`) meets when it gets there.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.frames import read_seat
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.log import Log
from ebus_jupyter.core.protocol.message import GIVEN, OWNER, BusSpec, Participant, message_id
from ebus_jupyter.errors import EbusError

LOG_BYTES = Limits().log_bytes
"""What one bus keeps here for the program's own slow readers; over it the oldest messages go."""


class Gap(NamedTuple):
    """Messages are missing up to ``offset``; ``skipped`` of them, None where nobody can know."""

    offset: int
    skipped: int | None


class Channel:
    """One bus, as a client knows it.

    Args:
        scope, name, given, owner, cap, create: How to open it; see `frames.Open`.
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
        self.number = 0  # what the broker calls it on this connection; 0 while it is not open there
        self.error: EbusError | None = None
        self.unreadable: EbusError | None = None  # why it can't be read on this connection, where it may be written
        self.wants_messages = False  # live messages are wanted
        self.wants_presence = False  # presence is wanted
        self.presence_known = False
        self.last = 0
        self.last_id = ""
        self.resets = 0  # counts the times that what was known was replaced by another history or by a snapshot
        self.reset_skipped: int | None = None  # how many messages that cost; None where nobody knows
        self.log_epoch = ""
        self.target = 0  # the last offset that the broker had when it began to send
        self.log_start = 0  # the offset after which the log began
        self.subscribe_position: tuple[str, int] | None = (
            None  # epoch and offset, when live messages were first asked for
        )
        self.log: Log[frames.Delivery | Gap] = Log()
        self.participants: dict[str, tuple[Participant, str, float, Any, str]] = {}
        self.state: msgspec.Raw | None = None
        self.unacked: dict[int, frames.Publish] = {}
        self.filter_requests: dict[int, int] = {}  # what it is to filter: this client's number of it, this connection's
        self.batch: deque[int] = deque()
        self.batch_since = 0.0
        self.flush_size = 1
        self.flush_interval = 0.0

    @property
    def is_open(self) -> bool:
        return self.number != 0 and self.error is None

    @property
    def read_error(self) -> EbusError | None:
        """Why nothing more can be read, now."""
        return self.error or self.unreadable

    def connection_lost(self) -> None:
        """The connection has ended. What is known of the bus stays."""
        self.number, self.unreadable = 0, None
        self.batch.clear()
        self.filter_requests.clear()  # the next broker counts its questions anew: a late verdict would be taken for another's

    # --- what the broker says ---------------------------------------------------------------------------------------

    def opened(self, frame: frames.Opened) -> None:
        """It is open on this connection."""
        address = Address.parse(frame.address)
        is_new = not self.epoch
        self.number, self.uri, self.epoch, self.cap = frame.bus, frame.address, frame.epoch, frame.cap
        self.name, self.owner = address.name, address.owner if frame.cap else ""
        self.spec = msgspec.convert(frame.spec, BusSpec, strict=False)
        # It is opened again as it is, so that a broker that forgot it makes the same one, whoever comes first. One that
        # another's kernel filters is only joined: made anew from here, it would take unfiltered writes.
        if self.spec.filter == OWNER and self.given.get("filter") != OWNER:
            self.create = False
        elif self.create and not address.unnamed:
            self.given = {field: value for field, value in frame.spec.items() if field in GIVEN}
        if is_new:
            self._begin_log()
        if not self.log_epoch:
            self.target = frame.last

    def resume_position(self) -> tuple[str, int, str]:
        """Where live messages are to begin: epoch, offset, and the id of the last message seen; all empty: from now on."""
        if self.log_epoch:
            return self.log_epoch, self.last, self.last_id
        if self.subscribe_position is not None:  # the answer was lost with its connection; what came since is wanted
            return (*self.subscribe_position, "")
        self.subscribe_position = self.epoch, self.target
        return "", 0, ""

    def subscribed(self, frame: frames.Subscribed) -> None:
        """From here on live messages come."""
        self.target = frame.last
        if not self.log_epoch:
            # Refused to begin where it was first asked for: what is gone meanwhile lies in the log as a hole.
            refused = not frame.recovered and not frame.fresh
            self.log_start = self.last = (
                self.subscribe_position[1] if refused and self.subscribe_position else frame.after
            )
            self._begin_log(self.log_start)
            self.log_epoch = frame.epoch
            if self.last < frame.after:
                self.missed(frame.after, frame.skipped)
        elif not frame.recovered:
            self.missed(frame.after, frame.skipped, fresh=frame.fresh)
            self.log_epoch = frame.epoch

    def delivered(self, frame: frames.Delivery) -> bool:
        """A message. Returns whether it is a new one."""
        if frame.offset <= self.last:
            return False
        self.last, self.last_id = frame.offset, message_id((frame.sender.id, frame.id))
        self.log.append(frame.offset, frame, key=frame.key, deleted=frame.deleted, size=len(frame.value))
        return True

    def advanced(self, offset: int) -> bool:
        """The order went on with a message that is not for us."""
        if offset <= self.last:
            return False
        self.last, self.last_id = offset, ""
        return True

    def missed(self, offset: int, skipped: int, *, fresh: bool = False) -> None:
        """What follows begins after ``offset``: a hole in what we have, or (``fresh``) all that the broker has."""
        lost = None if skipped < 0 else skipped
        if fresh or offset <= self.last:
            self._begin_log(offset)
            self.resets += 1
            self.reset_skipped = lost
        else:
            self.log.append(offset, Gap(offset, lost))
        self.last, self.last_id = offset, ""

    def presence_received(self, frame: frames.Presence) -> None:
        """Who is there, or what has changed of that."""
        if frame.full:
            self.participants.clear()
            self.presence_known = True
        for raw in frame.here:
            seat = read_seat(raw)
            self.participants[seat[0].id] = seat
        for id_ in frame.left:
            self.participants.pop(id_, None)

    def _begin_log(self, after: int = 0) -> None:
        """What follows begins after ``after``, and has nothing to do with what was there before."""
        self.log = Log(retain=self.spec.retain, size=self.spec.size, max_bytes=LOG_BYTES)
        self.log.restart(after)
