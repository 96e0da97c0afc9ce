"""A seat: one participant's presence on one bus, as it travels in `frames.Presence`.

The broker encodes seats and clients decode them. Both halves are here, so that they can't drift apart.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from .message import Participant

HERE: Literal["here"] = "here"
"""The participant is connected."""
AWAY: Literal["away"] = "away"
"""The participant lost its connection a short while ago, and may be back."""


class WireSeat(NamedTuple):
    """One participant on one bus.

    Attributes:
        who: The participant.
        status: `HERE` or `AWAY`.
        since: When it joined, in seconds of the broker's clock.
        state: The state that it has set with `presence.set`; None where it has set none.
        activity: For a kernel "idle", "busy", "restarting" or "dead", as the server knows it; else "".
    """

    who: Participant
    status: str
    since: float
    state: Any
    activity: str


def encode_seat(who: Participant, status: str, since: float, state: msgspec.Raw, activity: str) -> msgspec.Raw:
    """The bytes of a seat. The arguments are the fields of `WireSeat`; ``state`` is encoded already."""
    return msgspec.Raw(msgspec.msgpack.encode((who, status, since, state, activity)))


decode_seat = msgspec.msgpack.Decoder(WireSeat).decode
"""Read the output of `encode_seat`, with ``state`` decoded."""
