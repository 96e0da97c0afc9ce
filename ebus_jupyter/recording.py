"""Record a bus's messages in a file, and replay them: a notebook that reacts to people can then be run without them.

::

    record(ebus.bus("votes"), "votes.jsonl", seconds=60)       # while people vote
    replay(ebus.bus("votes"), "votes.jsonl")                   # later, in a test: all at once
    replay(ebus.bus("votes"), "votes.jsonl", speed=1)          # or as it happened; speed=2 is twice as fast

The file is JSON Lines. The first line describes the bus. Each further line is a message as in `core.protocol.json_value`,
with ``at``: the seconds since the first message, by the broker's clock. The file is complete after each message, so a
recording may be cut off at any time. Where the recorder itself missed messages, a line ``{"at": …, "lagged": …}`` says so.

The file names the sender of each message. A replayed message is stamped with the participant that replays it: nobody can
write as someone else. The recorded values are those that were received, after the bus's filter.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from os import PathLike
from typing import Annotated, Any

import msgspec

from .client.ack import Ack
from .client.bus import Bus
from .client.client import Client
from .core.client.reader import Since
from .core.protocol import json_value
from .core.protocol.message import BusSpec
from .errors import Closed, EbusError, Lagged, TypeMismatch

FORMAT = 1
"""The version of the file format, in the first line."""

LINE_BYTES = 1 << 27
"""The length that no line of a recording has: that of the largest value, as JSON."""

WINDOW = 1000
"""The number of replayed writes that may be unanswered at a time."""

Path = str | PathLike[str]


class RecordingError(ValueError):
    """The file is not a recording, or was made by a newer version."""


def record(
    bus: Bus[Any, Any],
    path: Path,
    *,
    seconds: float | None = None,
    n: int | None = None,
    since: Since = None,
) -> int:
    """Write the messages that ``bus`` receives to a file, until the bus ends or the kernel is interrupted.

    Args:
        bus: The bus.
        path: The file; an existing one is replaced.
        seconds: Stop after this time. Default: None, without a limit.
        n: Stop after this many messages. Default: None, without a limit.
        since: Where to begin, as in `Bus.stream`. Default: with what is written from now on.

    Returns:
        The number of messages in the file.
    """
    stream = bus.deliveries(since)
    deadline = None if seconds is None else time.monotonic() + seconds
    first: float | None = None
    at = 0.0
    count = 0
    with open(path, "wb") as file:  # noqa: PTH123 - any path-like

        def put(line: dict[str, Any]) -> None:
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()

        put(_header(bus))
        while count != n:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            try:
                delivery = stream.get(left)
            except (TimeoutError, KeyboardInterrupt, Closed):
                break
            except Lagged as lag:
                put({"at": at, "lagged": lag.details})
                continue
            first = delivery.time if first is None else first
            at = max(at, round(delivery.time - first, 3))
            put({"at": at, **json_value.message(delivery, bus.filtered_by)})
            count += 1
    stream.close()
    return count


def replay(bus: Bus[Any, Any], path: Path, *, speed: float | None = None) -> int:
    """Write a recording's messages to ``bus``, in their order.

    Args:
        bus: The bus.
        path: The file.
        speed: 1: at the recorded pace; 2: twice as fast. Default: None, at once.

    Returns:
        The number of messages written.

    Raises:
        RecordingError: The file is not a recording, or a line of it is not a message; those before it are written.
        Rejected: The bus refuses a message; those before it are written. The error's text names the line.
        ValueError: ``speed`` is not greater than 0.
    """
    if speed is not None and not speed > 0:
        raise ValueError(f"speed={speed} is not greater than 0; leave it out to replay at once.")
    waiting: list[tuple[int, Ack]] = []
    written = 0
    began = time.monotonic()
    for line in _messages(path):
        if speed is not None:
            time.sleep(max(0.0, began + line.at / speed - time.monotonic()))
        try:
            if line.deleted:
                assert line.key is not None
                ack = bus.remove(line.key)
            else:
                ack = bus.write(bus.codec.decode(line.data), key=line.key)
        except EbusError as error:
            raise _at_line(path, line.number, error) from None
        waiting.append((line.number, ack))
        written += 1
        if len(waiting) >= WINDOW:
            _settle(path, waiting)
    bus.flush()
    _settle(path, waiting)
    return written


def bus_for(client: Client, path: Path, name: str | None = None, *, scope: str | None = None) -> Bus[Any, Any]:
    """Open the bus to replay a recording into; one that does not exist is made like the recorded bus, without its filter.

    Args:
        client: The client that opens it.
        path: The recording.
        name: The bus's name. Default: that of the recorded bus.
        scope: The bus's scope. Default: that of the recorded bus.

    Raises:
        RecordingError: The file is not a recording.
    """
    header = _read_header(path)
    name, scope, spec = name or header.name, scope or header.scope, header.spec
    given: dict[str, Any] = {"retain": spec.retain, "size": spec.size}
    received = spec.emits or spec.schema
    if received is not None:
        given |= {"type": spec.type, "schema": received}
    existing = {(bus["scope"], bus["name"]) for bus in client.buses()}
    return client.open_bus(name, scope=scope, given={} if (scope, name) in existing else given)


def _header(bus: Bus[Any, Any]) -> dict[str, Any]:
    return {
        "ebus": FORMAT,
        "bus": bus.address,
        "scope": bus.scope,
        "name": bus.name,
        "epoch": bus.epoch,
        "recorded": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "spec": msgspec.to_builtins(bus.spec),
    }


class _Header(msgspec.Struct):
    """The first line: the recorded bus."""

    ebus: int
    name: str
    scope: str
    spec: BusSpec


class _Line(msgspec.Struct):
    """A line of a message. ``data`` is its encoded value."""

    at: Annotated[float, msgspec.Meta(ge=0, le=1e9)]
    value: Any = msgspec.UNSET
    key: str | None = None
    deleted: bool = False
    lagged: Any = msgspec.UNSET
    number: int = 0
    data: bytes = b""


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, with their numbers. A line that is longer than any message is an error."""
    with open(path, "rb") as file:  # noqa: PTH123
        number = 0
        while True:
            number += 1
            line = file.readline(LINE_BYTES)
            if len(line) == LINE_BYTES:
                raise RecordingError(f"{path}, line {number}: a line has at most {LINE_BYTES} bytes.")
            if not line:
                return
            yield number, line


def _read_header(path: Path) -> _Header:
    _, line = next(_lines(path), (1, b""))
    try:
        found = msgspec.json.decode(line)
        version = found["ebus"]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, KeyError, IndexError):
        raise RecordingError(f"{path} is not a recording of a bus. `jupyter ebus record` makes one.") from None
    if version != FORMAT or isinstance(version, bool):
        raise RecordingError(f"{path} was recorded by a newer version of ebus_jupyter; update this one.")
    try:
        return msgspec.convert(found, _Header, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        raise RecordingError(f"{path}, line 1: this does not describe a bus: {error}.") from None


def _messages(path: Path) -> Iterator[_Line]:
    """The messages of a recording, each checked before it is yielded.

    Raises:
        RecordingError: A line is not a message; those before it were yielded.
    """
    _read_header(path)
    for number, text in _lines(path):
        if number == 1:
            continue
        try:
            line = _decode_line(text)
            if line.lagged is not msgspec.UNSET and line.value is msgspec.UNSET:
                continue
            if line.deleted and line.key is None:
                raise ValueError("what is deleted has a key")
            if line.value is msgspec.UNSET and not line.deleted:
                raise ValueError("a message has a value")
            line.number, line.data = number, b"\xc0" if line.deleted else json_value.from_json(line.value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, TypeMismatch) as error:
            if not text.endswith(b"\n"):
                return  # the last line of a recording that was cut off may be incomplete
            raise RecordingError(f"{path}, line {number}: this is not a message: {error}.") from None
        yield line


_decode_line = msgspec.json.Decoder(_Line).decode


def _at_line(path: Path, number: int, error: EbusError) -> EbusError:
    """The same error, which says where in the recording its message is."""
    told = error.anew()
    told.text = f"{path}, line {number}: {error.text}"
    return told


def _settle(path: Path, waiting: list[tuple[int, Ack]]) -> None:
    for number, ack in waiting:
        try:
            ack.result()
        except EbusError as error:
            raise _at_line(path, number, error) from None
    waiting.clear()
