"""The frames of a connection that have arrived and are not handled yet.

A short message is decoded as it arrives. A long one stays as it came until its frames' turn: decoded, its frames could take
many times its memory, and their decoding would be one long piece of work. A frame that can only be refused is refused by its
length, before it is decoded.
"""

from __future__ import annotations

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.errors import ProtocolError, TooLarge

SHORT_BYTES = 1 << 14
"""The most bytes of a message that is decoded as it arrives."""

CHARACTER_BYTES = 4
"""The most bytes of a character."""


class Unread:
    """The frames that wait, in order.

    Args:
        limits: The broker's bounds.

    Attributes:
        size: The bytes of the messages that they are part of.
    """

    __slots__ = ("_limits", "_waiting", "size")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: list[frames.ClientFrame | msgspec.Raw] = []  # the next one last
        self.size = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, data: bytes) -> None:
        """Add the frames of a message.

        Raises:
            ProtocolError: It is no array of frames, or one of too many.
        """
        most = self._limits.batch_frames
        if frames.count(data) > most:
            raise ProtocolError(
                f"a message has {frames.count(data)} frames; the server's limit `batch_frames` is {most} "
                "(c.EBus.batch_frames). Send less at once."
            )
        if len(data) <= SHORT_BYTES:
            arrived: list[frames.ClientFrame] | list[msgspec.Raw] = frames.from_client(data)
        else:
            arrived = frames.split(data)
        self._waiting[:0] = reversed(arrived)
        self.size += len(data)

    def pop(self) -> frames.ClientFrame:
        """Take the next frame.

        Raises:
            ProtocolError: It is no frame of a client.
            TooLarge: It is longer than any that the broker takes; ``req``, ``id`` and ``bus`` say which one it is.
        """
        frame = self._waiting.pop()
        if not self._waiting:
            self.size = 0
        if isinstance(frame, msgspec.Raw):
            check_length(frame, self._limits)
            return frames.one_from_client(frame)
        return frame

    def put_back(self, frame: frames.ClientFrame) -> None:
        """The frame that was taken last can't be handled yet."""
        self._waiting.append(frame)

    def clear(self) -> None:
        self._waiting.clear()
        self.size = 0


class _Head(msgspec.Struct, array_like=True):
    """The beginning of any frame."""

    tag: int
    first: msgspec.Raw = frames.NIL


class _PublishHead(msgspec.Struct, array_like=True):
    """A `Publish`, as far as it has to be decoded to know how long its parts are."""

    tag: int
    bus: int
    id: int
    value: msgspec.Raw


_head = msgspec.msgpack.Decoder(_Head).decode
_publish_head = msgspec.msgpack.Decoder(_PublishHead).decode
_number = msgspec.msgpack.Decoder(int).decode

FRAME_BYTES = 256
"""More than the fixed fields of any frame have."""


def check_length(frame: msgspec.Raw, limits: Limits) -> None:
    """Check that a frame is not longer than one of its kind can be.

    Raises:
        TooLarge: It is; the error's ``req``, ``id`` and ``bus`` say which request or write it is.
        ProtocolError: It is no frame.
    """
    size = len(frame)
    if size <= FRAME_BYTES:
        return
    listed = limits.recipients * (limits.name_chars * CHARACTER_BYTES + 4)
    try:
        head = _head(frame)
        if head.tag == frames.Publish.__struct_config__.tag:
            publish = _publish_head(frame)
            besides = size - len(publish.value)
            if besides > listed + limits.name_chars * CHARACTER_BYTES + FRAME_BYTES:
                raise TooLarge(
                    f"a write has {besides} bytes besides its value, more than any key and to= that this server takes "
                    f"(its limits `recipients`, {limits.recipients}, and `name_chars`, {limits.name_chars}).",
                    limit="recipients",
                    id=publish.id,
                    bus=publish.bus,
                )
        elif head.tag == frames.Open.__struct_config__.tag:
            if size > 2 * limits.schema_bytes + 2 * listed + 4096:
                raise TooLarge(
                    f"a specification of {size} bytes is larger than any that this server takes (its limits "
                    f"`schema_bytes`, {limits.schema_bytes}, and `recipients`, {limits.recipients}).",
                    limit="schema_bytes",
                    req=_number(head.first),
                )
        elif head.tag == frames.SetPresence.__struct_config__.tag:
            if size > limits.presence_bytes + FRAME_BYTES:
                raise TooLarge(
                    f"a presence of {size} bytes is over the server's limit `presence_bytes` ({limits.presence_bytes}).",
                    limit="presence_bytes",
                    bus=_number(head.first),
                )
        elif head.tag != frames.FilterAnswer.__struct_config__.tag:
            raise ProtocolError(f"a frame of {size} bytes is longer than any of its kind ({head.tag}).")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise frames.malformed("client", error) from None
