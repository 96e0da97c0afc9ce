"""The wire: MessagePack arrays, each beginning with a number that says which frame it is.

One WebSocket message is an array of frames, so that a batch is a header followed by the bytes of frames that were
encoded before: `join` does just that. A value rides as `msgspec.Raw`: the broker relays its bytes without decoding
what it need not check. Fields are only ever added at a frame's end, with a default; a receiver ignores what it does
not know, and `VERSION` changes only when that is not enough.

A client speaks first: ``hello``, answered by ``welcome`` (or ``bye``). It opens buses (``open`` → ``opened``), and asks
for their messages (``subscribe`` → ``subscribed``, then ``message`` …). ``req`` pairs a question with its answer;
``bus`` is a number that the broker gives in ``opened``, meaningless outside this connection's broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from ebus_jupyter.errors import EbusError, ProtocolError, from_wire

from .message import Participant

VERSION = 1
"""The protocol's version. A broker refuses a client of another one with a ``bye`` that says who must be updated."""

NIL = msgspec.Raw(b"\xc0")


class Frame(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """What every frame is: an array whose first item is the frame's number."""


# --- what a client says ---------------------------------------------------------------------------------------------


class Hello(Frame, tag=1):
    """First frame of a connection. ``instance``: 32 hex digits, unguessable, kept over the client's reconnects."""

    version: int
    instance: str
    client: str = ""


class Open(Frame, tag=2):
    """Open or create a bus. ``spec``: only the fields that the caller gave. ``name`` None: a fresh unnamed bus.

    ``create`` False: join only what exists. ``filter``: this connection offers to filter the bus (it is the owner).
    """

    req: int
    scope: str
    name: str | None
    spec: dict[str, Any] = {}
    owner: str = ""
    cap: str = ""
    create: bool = True


class Subscribe(Frame, tag=3):
    """Ask for live messages. Without ``epoch``: from now on. With it: resume after ``after``, whose id was ``last_id``."""

    req: int
    bus: int
    epoch: str = ""
    after: int = 0
    last_id: str = ""


class Unsubscribe(Frame, tag=4):
    """No more messages of this bus, please."""

    bus: int


class Fetch(Frame, tag=5):
    """Read history: messages after ``after`` and up to ``until`` (0: the last); a negative ``after`` means the last n."""

    req: int
    bus: int
    after: int = 0
    until: int = 0


class Publish(Frame, tag=6):
    """Write ``value``. ``id`` counts this instance's writes, from 1, over all its buses; a retry keeps it.

    ``expect``: accept only if the last offset (of ``key``, on a keys bus; 0: none) is this one.
    """

    bus: int
    id: Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
    value: msgspec.Raw
    key: str | None = None
    deleted: bool = False
    echo: bool = True
    to: list[str] | None = None
    expect: int | None = None


class SetPresence(Frame, tag=7):
    """Say something about oneself on a bus (any value; nil withdraws it). With ``watch``: only begin or end being told."""

    bus: int
    state: msgspec.Raw = NIL
    watch: bool | None = None


class FilterAnswer(Frame, tag=8):
    """The owner's verdict on a `FilterAsk`: the value to keep, or why not (``failed``: the filter itself broke)."""

    bus: int
    ask: int
    value: msgspec.Raw = NIL
    reject: str | None = None
    failed: bool = False


class Delete(Frame, tag=9):
    """Delete a bus and its log, for everyone."""

    req: int
    bus: int


class List(Frame, tag=10):
    """Which buses are within my reach?"""

    req: int


class Ping(Frame, tag=11):
    """Are you there? Answered by `Pong` with the same ``n``."""

    n: int


class Leave(Frame, tag=12):
    """This connection has no more use for the bus: end its subscription and presence there."""

    bus: int


# --- what the broker says -------------------------------------------------------------------------------------------


class Welcome(Frame, tag=64):
    """Answer to `Hello`: who you are here, this broker's life (``broker``), and the bounds a client should know."""

    version: int
    you: Participant
    broker: str
    limits: dict[str, int]


class Opened(Frame, tag=65):
    """Answer to `Open`. ``last``: the last offset now. ``address``: the URI; ``cap``: its capability, where it has one."""

    req: int
    bus: int
    address: str
    epoch: str
    last: int
    spec: dict[str, Any]
    cap: str = ""


class Subscribed(Frame, tag=66):
    """Answer to `Subscribe`: messages follow, beginning after ``after``.

    ``recovered`` False: the resume was refused (another epoch, or too far behind); what follows is all that is kept,
    and ``skipped`` says how many messages are lost to this reader (-1: nobody can know).
    """

    req: int
    bus: int
    epoch: str
    after: int
    last: int
    recovered: bool = True
    skipped: int = 0
    fresh: bool = False


class Delivery(Frame, tag=67):
    """One message. ``id`` is the sender's count: sender's id and it make `Message.id`."""

    bus: int
    offset: int
    id: int
    time: float
    sender: Participant
    value: msgspec.Raw
    key: str | None = None
    deleted: bool = False


class Advance(Frame, tag=68):
    """The order went on to ``offset`` with a message that is not for you."""

    bus: int
    offset: int


class Lag(Frame, tag=69):
    """You were too slow: ``skipped`` messages are gone; what follows begins after ``resume_after``."""

    bus: int
    skipped: int
    resume_after: int


class Page(Frame, tag=70):
    """Answer to `Fetch`: ``messages`` are `Delivery` frames; everything up to ``through`` has been covered.

    ``floor``: the last offset that is no longer kept. ``more``: ask again, after ``through``.
    """

    req: int
    bus: int
    epoch: str
    through: int
    floor: int
    more: bool
    messages: list[msgspec.Raw] = []


class Ok(Frame, tag=71):
    """Writes ``id`` … ``id + count - 1`` were accepted, at ``offset`` … ``offset + count - 1``."""

    bus: int
    id: int
    offset: int
    count: int = 1


class Done(Frame, tag=72):
    """A question without another answer was carried out (delete)."""

    req: int


class Error(Frame, tag=73):
    """Something was refused: a question (``req``), or a write (``id``)."""

    code: str
    text: str
    req: int = 0
    id: int = 0
    bus: int = 0
    temporary: bool = False
    details: dict[str, Any] = {}

    def exception(self) -> EbusError:
        return from_wire(self.code, self.text, self.details)


def refusal(error: EbusError, *, req: int = 0, id_: int = 0, bus: int = 0) -> Error:
    """The frame that tells of ``error``."""
    return Error(error.code, error.text, req, id_, bus, error.temporary, error.details)


class Presence(Frame, tag=74):
    """Who is on the bus. ``full``: a snapshot; else what changed. ``left``: participants' ids.

    ``here`` holds arrays: participant, "here" or "away", since when, its own words, its activity.
    """

    bus: int
    full: bool
    here: list[msgspec.Raw] = []
    left: list[str] = []


class FilterAsk(Frame, tag=75):
    """To the owner: filter this write."""

    bus: int
    ask: int
    value: msgspec.Raw
    sender: Participant


class Listed(Frame, tag=76):
    """Answer to `List`."""

    req: int
    buses: list[dict[str, Any]]


class Pong(Frame, tag=77):
    """Answer to `Ping`."""

    n: int


class Gone(Frame, tag=78):
    """The bus was deleted, or its scope has ended; ``reason`` says which."""

    bus: int
    reason: str


class Bye(Frame, tag=79):
    """The broker closes the connection. ``reconnect``: whether coming back may help."""

    code: str
    text: str
    reconnect: bool = True


ClientFrame = (
    Hello | Open | Subscribe | Unsubscribe | Fetch | Publish | SetPresence | FilterAnswer | Delete | List | Ping | Leave
)
BrokerFrame = (
    Welcome
    | Opened
    | Subscribed
    | Delivery
    | Advance
    | Lag
    | Page
    | Ok
    | Done
    | Error
    | Presence
    | FilterAsk
    | Listed
    | Pong
    | Gone
    | Bye
)

_encoder = msgspec.msgpack.Encoder()
_from_client = msgspec.msgpack.Decoder(list[ClientFrame])
_from_broker = msgspec.msgpack.Decoder(list[BrokerFrame])
_delivery = msgspec.msgpack.Decoder(Delivery)
_frames = msgspec.msgpack.Decoder(list[msgspec.Raw])
_tag = msgspec.msgpack.Decoder(list[Any]).decode
_numbers = {frame.__struct_config__.tag for frame in Frame.__subclasses__()}

encode = _encoder.encode
"""One frame's bytes."""


def head(count: int) -> bytes:
    """What goes before ``count`` frames to make them one WebSocket message."""
    if count < 16:
        return bytes((0x90 | count,))
    if count < 1 << 16:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


def join(encoded: Sequence[bytes]) -> bytes:
    """One WebSocket message out of frames that are already encoded."""
    return head(len(encoded)) + b"".join(encoded)


def from_client(data: bytes) -> list[ClientFrame]:
    """Read what a client sent.

    Raises:
        ProtocolError: It is no array of frames that this version knows; says which field is wrong.
    """
    found: list[ClientFrame] = _read(_from_client, data, "client")
    return found


def from_broker(data: bytes) -> list[BrokerFrame]:
    """Read what a broker sent; frames that a newer one has added are left out. Raises `ProtocolError` as `from_client` does."""
    try:
        found: list[BrokerFrame] = _from_broker.decode(data)
    except msgspec.ValidationError:
        frames: list[msgspec.Raw] = _read(_frames, data, "broker")
        found = _read(_from_broker, join([bytes(frame) for frame in frames if not _is_new(frame)]), "broker")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed("broker", error) from None
    return found


def _is_new(frame: msgspec.Raw) -> bool:
    """Whether it is an array that begins with a number which no frame of this version has."""
    try:
        number = _tag(frame)[0]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, IndexError):
        return False
    return isinstance(number, int) and number not in _numbers


def delivery(data: bytes | msgspec.Raw) -> Delivery:
    """Read one `Delivery`, as it lies in a `Page`."""
    return _delivery.decode(data)


def read_seat(raw: msgspec.Raw) -> tuple[Participant, str, float, Any, str]:
    """What `Seat.encode` wrote, on the client's side: who, "here" or "away", since when, its own words, its activity."""
    return msgspec.msgpack.decode(raw, type=tuple[Participant, str, float, Any, str])


def _read(decoder: Any, data: bytes, who: str) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(who, error) from None


def _malformed(who: str, error: Exception) -> ProtocolError:
    return ProtocolError(
        f"the {who} sent what is no array of ebus frames ({error}). Are both sides of the same version of ebus_jupyter "
        f"(protocol {VERSION})?"
    )
