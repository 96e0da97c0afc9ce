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
from typing import Any

import msgspec

from .client.ack import Ack
from .client.bus import Bus
from .client.client import Client
from .core.client.reader import Since
from .core.protocol import json_value
from .core.protocol.message import BusSpec
from .errors import Closed, Lagged

FORMAT = 1
"""The version of the file format, in the first line."""

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
            put({"at": at, **json_value.message(delivery)})
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
        RecordingError: The file is not a recording.
        Rejected: The bus refuses a message; those before it are written.
        ValueError: ``speed`` is not greater than 0.
    """
    if speed is not None and speed <= 0:
        raise ValueError(f"speed={speed} is not greater than 0; leave it out to replay at once.")
    waiting: list[Ack] = []
    count = 0
    began = time.monotonic()
    for line in _messages(path):
        if speed is not None:
            time.sleep(max(0.0, began + line["at"] / speed - time.monotonic()))
        if line.get("deleted"):
            waiting.append(bus.remove(line["key"]))
        else:
            value = bus.codec.decode(json_value.from_json(line["value"]))
            waiting.append(bus.write(value, key=line.get("key")))
        count += 1
        if len(waiting) >= WINDOW:
            _settle(waiting)
    bus.flush()
    _settle(waiting)
    return count


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
    name, scope = name or header["name"], scope or header["scope"]
    spec = msgspec.convert(header["spec"], BusSpec, strict=False)
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


def _read_header(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:  # noqa: PTH123
        return _checked(file.readline(), path)


def _checked(line: bytes, path: Path) -> dict[str, Any]:
    try:
        header = msgspec.json.decode(line)
    except msgspec.MsgspecError:
        header = None
    if not isinstance(header, dict) or "ebus" not in header:
        raise RecordingError(f"{path} is not a recording of a bus. `jupyter ebus record` makes one.")
    if header["ebus"] != FORMAT:
        raise RecordingError(f"{path} was recorded by a newer version of ebus_jupyter; update this one.")
    return header


def _messages(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, "rb") as file:  # noqa: PTH123
        _checked(file.readline(), path)
        for number, line in enumerate(file, start=2):
            try:
                found = msgspec.json.decode(line)
                if "value" in found:
                    yield found
            except (msgspec.MsgspecError, TypeError):
                if line.endswith(b"\n"):  # the last line of a recording that was cut off may be incomplete
                    raise RecordingError(f"{path}, line {number}: this is not a message.") from None


def _settle(waiting: list[Ack]) -> None:
    for ack in waiting:
        ack.result()
    waiting.clear()
