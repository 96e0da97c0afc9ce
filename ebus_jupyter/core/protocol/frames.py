"""The wire format: MessagePack arrays, each of which begins with the number of its frame type.

One WebSocket message is an array of frames. A batch is a header and the bytes of frames that were encoded before; `join`
puts it together. A value travels as `msgspec.Raw`: the broker relays its bytes without decoding what it need not check.
Fields are only ever added at a frame's end, with a default; a receiver ignores fields that it does not know. `VERSION`
changes only when that is not enough.

The client speaks first: ``Hello``, answered by ``Welcome`` (or ``Bye``). It opens buses (``Open`` → ``Opened``) and
subscribes to their messages (``Subscribe`` → ``Subscribed``, then ``Delivery`` …). ``req`` pairs a request with its
reply. ``bus`` is a number that the broker gives in ``Opened``; it has no meaning outside of this connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from ebus_jupyter.errors import EbusError, ProtocolError, from_wire

from .message import Participant, message_id

VERSION = 1
"""The protocol's version. A broker answers a client of another version with a ``Bye`` that names the side to update."""

NIL = msgspec.Raw(b"\xc0")
"""An encoded None."""


class Frame(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """The base of all frames: an array whose first item is the number of the frame type."""


# --- from the client ------------------------------------------------------------------------------------------------


class Hello(Frame, tag=1):
    """The first frame of a connection.

    ``instance``: 32 unguessable hexadecimal digits, kept over the client's reconnects. ``client``: the kind of software, for
    the broker's log. ``resends``: a write that is refused for its rate is sent again. Then the later ones of the connection
    are refused as well, until its next `Ping`, so that they keep their order.
    """

    version: int
    instance: str
    client: str = ""
    resends: bool = False


class Open(Frame, tag=2):
    """Open or create a bus; answered by `Opened`.

    ``name`` None: a new unnamed bus. ``spec``: only the fields that the caller gave. ``owner``: of the scope, where that is
    not this participant. ``cap``: a capability, as `Opened` gave it. ``create`` False: only join a bus that exists.
    """

    req: int
    scope: str
    name: str | None
    spec: dict[str, Any] = {}
    owner: str = ""
    cap: str = ""
    create: bool = True


class Subscribe(Frame, tag=3):
    """Ask for live messages; answered by `Subscribed`.

    ``epoch``, ``after`` and ``last_id`` are a `Position`. Without an epoch: from now on. With one: resume after that
    position. ``id_offset``: the offset of the message ``last_id``, where that is not ``after``: the last one that this
    participant could see.
    """

    req: int
    bus: int
    epoch: str = ""
    after: int = 0
    last_id: str = ""
    id_offset: int = 0


class Unsubscribe(Frame, tag=4):
    """End the subscription to a bus. There is no reply."""

    bus: int


class Fetch(Frame, tag=5):
    """Read history; answered by `Page`.

    Messages after offset ``after``, up to ``until`` (0: the last one). A negative ``after``: the last n messages.
    """

    req: int
    bus: int
    after: int = 0
    until: int = 0


class Publish(Frame, tag=6):
    """Write a value; answered by `Ok` or `Error`.

    ``id`` counts the writes of this client instance, from 1, over all buses; a retry keeps it. ``key``: the entry to set, on
    a bus that retains by key; ``deleted``: remove it. ``echo`` False: not for this participant. ``to``: only for these users.
    ``expect``: accept the write only if the last offset (of ``key``, on a keys bus; 0: none) is this one.
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
    """Set this participant's state on a bus (any value; nil withdraws it). With ``watch``: only begin or end watching."""

    bus: int
    state: msgspec.Raw = NIL
    watch: bool | None = None


class FilterAnswer(Frame, tag=8):
    """The owner's answer to `FilterAsk`: the value to keep, or the reason against it (``failed``: the filter broke)."""

    bus: int
    ask: int
    value: msgspec.Raw = NIL
    reject: str | None = None
    failed: bool = False


class Delete(Frame, tag=9):
    """Delete a bus and its log, for everyone; answered by `Done`."""

    req: int
    bus: int


class List(Frame, tag=10):
    """List the named buses within reach, page by page; answered by `Listed`.

    ``after``: the ``following`` of the page before. ``limit``: the most buses; 0: as many as the broker gives at once.
    ``find``: only those whose address has each of these words in it. ``watch``: tell the changes of this page from now on,
    until a request with the same ``req`` takes its place, or ends it without ``watch``.
    """

    req: int
    after: str = ""
    limit: int = 0
    find: str = ""
    watch: bool = False


class Ping(Frame, tag=11):
    """Check that the broker is there; answered by `Pong` with the same ``n``.

    With ``n`` 0 that is all. Else the client knows, too, which of its writes were refused for its rate.
    """

    n: int


class Leave(Frame, tag=12):
    """Close a bus on this connection, with its subscription and presence. There is no reply."""

    bus: int


# --- from the broker ------------------------------------------------------------------------------------------------


class Welcome(Frame, tag=64):
    """Reply to `Hello`: the participant that this client is, the broker's own id, and the bounds a client should know.

    ``limits``: `Limits` of these names. ``publish_rate`` is that of this client; ``publish_burst``, in writes.
    """

    version: int
    you: Participant
    broker: str
    limits: dict[str, int]


class Opened(Frame, tag=65):
    """Reply to `Open`: the bus's number, URI, epoch, last offset and spec, and its capability where it has one.

    With ``req`` 0 the bus, which is open here, has been given another spec (a compatible one).
    """

    req: int
    bus: int
    address: str
    epoch: str
    last: int
    spec: dict[str, Any]
    cap: str = ""


class Subscribed(Frame, tag=66):
    """Reply to `Subscribe`: the messages after offset ``after`` follow; ``last`` is the broker's last offset now.

    ``recovered`` False: the position could not be resumed (another history, or too far behind). The messages that are still
    kept follow, and ``skipped`` are lost to this reader (-1: that can't be known). ``fresh``: what follows is all that is kept,
    and the reader forgets what it had. With ``req`` 0 the broker itself begins such a snapshot.
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
    """One message. ``id`` is the sender's own count of its writes."""

    bus: int
    offset: int
    id: int
    time: float
    sender: Participant
    value: msgspec.Raw
    key: str | None = None
    deleted: bool = False

    @property
    def message_id(self) -> str:
        """`Message.id` of this message."""
        return message_id((self.sender.id, self.id))


class Advance(Frame, tag=68):
    """The bus has gone on to ``offset`` with a message that is not for this participant."""

    bus: int
    offset: int


class Lag(Frame, tag=69):
    """This reader was too slow: ``skipped`` messages are lost to it; the messages after ``resume_after`` follow."""

    bus: int
    skipped: int
    resume_after: int


class Page(Frame, tag=70):
    """Reply to `Fetch`: ``messages`` are `Delivery` frames, which cover everything up to ``through``.

    ``floor``: the last offset that is no longer kept. ``more``: there is more to fetch, after ``through``.
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
    """Reply to `Delete`: it is done."""

    req: int


class Error(Frame, tag=73):
    """A request (``req``) or a write (``id``) was refused."""

    code: str
    text: str
    req: int = 0
    id: int = 0
    bus: int = 0
    temporary: bool = False
    details: dict[str, Any] = {}

    def exception(self) -> EbusError:
        """The error that it tells of."""
        return from_wire(self.code, self.text, self.details)


def refusal(error: EbusError, *, req: int = 0, id_: int = 0, bus: int = 0) -> Error:
    """The frame that reports ``error`` about a request (``req``), a write (``id_``) or a bus."""
    return Error(error.code, error.text, req, id_, bus, error.temporary, error.details)


class Presence(Frame, tag=74):
    """The participants of a bus.

    ``full``: all of them; else those that have changed. ``here``: seats, see `core.protocol.seat`. ``left``: the ids of
    participants that have left.
    """

    bus: int
    full: bool
    here: list[msgspec.Raw] = []
    left: list[str] = []


class FilterAsk(Frame, tag=75):
    """Ask the owner of the bus to filter a write; answered by `FilterAnswer` with the same ``ask``."""

    bus: int
    ask: int
    value: msgspec.Raw
    sender: Participant


class Listed(Frame, tag=76):
    """Reply to `List`: for each bus its address, scope, name, spec, participants and last offset.

    ``following``: there may be more, after this; "": there are none. Of a page that is watched, the changes follow under
    the same ``req``, with ``changes``: the ``buses`` that are new in it or differ, and the addresses of those ``removed``.
    """

    req: int
    buses: list[dict[str, Any]]
    following: str = ""
    changes: bool = False
    removed: list[str] = []


class Pong(Frame, tag=77):
    """Reply to `Ping`."""

    n: int


class Gone(Frame, tag=78):
    """The bus has ended: ``reason`` says whether it was deleted or its scope is gone."""

    bus: int
    reason: str


class Bye(Frame, tag=79):
    """The broker closes the connection. ``reconnect`` False: coming back does not help."""

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
_one_from_client = msgspec.msgpack.Decoder(ClientFrame)
_frames = msgspec.msgpack.Decoder(list[msgspec.Raw])
_tag = msgspec.msgpack.Decoder(list[Any]).decode
_numbers = {frame.__struct_config__.tag for frame in Frame.__subclasses__()}

encode = _encoder.encode
"""One frame's bytes."""


# --- encoding and decoding ------------------------------------------------------------------------------------------


def head(count: int) -> bytes:
    """The header that makes the ``count`` frames after it one WebSocket message."""
    if count < 16:
        return bytes((0x90 | count,))
    if count < 1 << 16:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


def join(encoded: Sequence[bytes]) -> bytes:
    """One WebSocket message of frames that are already encoded."""
    return head(len(encoded)) + b"".join(encoded)


def count(data: bytes) -> int:
    """The number of frames that the header of a message tells; 0 where ``data`` does not begin with an array."""
    first = data[0] if data else 0
    if first & 0xF0 == 0x90:
        return first & 0x0F
    if first in (0xDC, 0xDD):
        return int.from_bytes(data[1 : 3 if first == 0xDC else 5], "big")
    return 0


def split(data: bytes) -> list[msgspec.Raw]:
    """The frames of a WebSocket message, each as it came.

    Raises:
        ProtocolError: ``data`` is no array.
    """
    found: list[msgspec.Raw] = _read(_frames, data, "client")
    return found


def one_from_client(frame: msgspec.Raw) -> ClientFrame:
    """Decode one frame of a client.

    Raises:
        ProtocolError: As `from_client` raises it.
    """
    try:
        found: ClientFrame = _one_from_client.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise malformed("client", error) from None
    return found


def from_client(data: bytes) -> list[ClientFrame]:
    """Decode a WebSocket message of a client.

    Raises:
        ProtocolError: ``data`` is no array of frames that this version knows; the error names the wrong field.
    """
    try:
        found: list[ClientFrame] = _from_client.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise malformed("client", error) from None
    return found


def from_broker(data: bytes) -> list[BrokerFrame]:
    """Decode a WebSocket message of a broker. Frame types that a newer version has added are left out.

    Raises:
        ProtocolError: As `from_client` raises it.
    """
    try:
        found: list[BrokerFrame] = _from_broker.decode(data)
    except msgspec.ValidationError:
        frames: list[msgspec.Raw] = _read(_frames, data, "broker")
        found = _read(_from_broker, join([bytes(frame) for frame in frames if not _is_new(frame)]), "broker")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise malformed("broker", error) from None
    return found


def _is_new(frame: msgspec.Raw) -> bool:
    """True if ``frame`` is an array that begins with a number which no frame type of this version has."""
    try:
        number = _tag(frame)[0]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, IndexError):
        return False
    return isinstance(number, int) and number not in _numbers


def delivery(data: bytes | msgspec.Raw) -> Delivery:
    """Decode one `Delivery` of a `Page`."""
    return _delivery.decode(data)


def _read(decoder: Any, data: bytes, who: str) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(who, error) from None


def malformed(who: str, error: Exception) -> ProtocolError:
    """The error of a message that is no array of frames."""
    return ProtocolError(
        f"the {who} sent something other than an array of ebus frames ({error}). Are both sides of the same version of "
        f"ebus_jupyter (protocol {VERSION})?"
    )
