"""A committed message, as the bytes that its subscribers receive."""

from __future__ import annotations

from typing import Any

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Id, Participant, names

from .bus_info import BusInfo
from .entry import Entry, sender_id


class Record(msgspec.Struct, gc=False):
    """One committed message, as the bytes that its subscribers receive.

    Attributes:
        offset: Its place in the order.
        id: The write.
        frame: The encoded message.
        hidden: The bytes for everyone that it is not for; empty where it is for all.
        to: The users and groups that it is for; None: all.
        but: The id of the participant that it is not for; "": none.
    """

    offset: int
    id: Id
    frame: bytes
    hidden: bytes = b""
    to: tuple[str, ...] | None = None
    but: str = ""

    @classmethod
    def of(cls, info: BusInfo, entry: Entry) -> Record:
        """Encode an entry."""
        sender = sender_id(entry.sender)
        encoded: Any = msgspec.Raw(entry.sender)
        frame = frames.Delivery(
            info.number, entry.offset, entry.id, entry.time, encoded, msgspec.Raw(entry.value), entry.key, entry.deleted
        )
        record = cls(entry.offset, (sender, entry.id), frames.encode(frame))
        if entry.to is not None or not entry.echo:
            record.hidden = frames.encode(frames.Advance(info.number, entry.offset))
            record.to = entry.to
            record.but = "" if entry.echo else sender
        return record

    def is_visible_to(self, who: Participant) -> bool:
        return not self.hidden or (
            who.id != self.but and (self.to is None or who.id == self.id[0] or names(self.to, who))
        )

    def bytes_for(self, who: Participant) -> bytes:
        return self.frame if self.is_visible_to(who) else self.hidden
