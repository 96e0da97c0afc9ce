"""Values that a participant can't decode are reported and skipped, and everything else goes on."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pydantic
import pytest

from ebus_jupyter.client import background
from ebus_jupyter.client.bus import Bus
from ebus_jupyter.client.client import Client
from ebus_jupyter.client.state import State
from ebus_jupyter.core.protocol.codec import Codec

from .conftest import Line

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    n: int


UNKNOWN_DTYPE = msgspec.msgpack.encode(msgspec.msgpack.Ext(1, msgspec.msgpack.encode(["<f3", [1], b"abc"])))


def read_as(type_: Any, bus: Bus[Any, Any]) -> Bus[Any, Any]:
    """A bus of any type, read as one type: as a reader's own code, which the broker can't know, may refuse a value."""
    bus.emits_codec = Codec(type_)
    return bus


def told(client: Client) -> tuple[list[Exception], Callable[[], None]]:
    """The errors that a client reports, and a way to wait for one."""
    errors: list[Exception] = []
    arrived = threading.Event()
    client.on_error(lambda error: (errors.append(error), arrived.set()))  # type: ignore[arg-type]

    def wait() -> None:
        assert arrived.wait(5)

    return errors, wait


def test_state_skips_an_undecodable_value_and_reports_it(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    client = line.client()
    state, untyped = State(read_as(datetime, client.bus("times", retain="keys"))), line.client("bob", "k2").bus("times")
    errors, wait = told(client)
    changed = threading.Event()
    state.on_change(lambda _: changed.set())
    offset = untyped.write("tomorrow", key="a").result(5)
    untyped.write(NOON, key="b").result(5)
    assert changed.wait(5)
    wait()
    assert dict(state) == {"b": NOON}
    [error] = state.errors
    assert (error.bus, error.offset, error.sender.user) == ("times", offset, "bob")
    assert errors == [error]
    background.finish(5)
    assert f"message {offset}, by kernel bob" in caplog.text
    state["c"] = NOON
    state.flush()
    assert client.status == "live"


def test_state_opens_with_an_undecodable_value_in_it(line: Line) -> None:
    untyped = line.client("bob", "k2").bus("times", retain="keys")
    untyped.write("tomorrow", key="a").result(5)
    untyped.write(NOON, key="b").result(5)
    state = State(read_as(datetime, line.client().bus("times")))
    assert dict(state) == {"b": NOON}
    assert [error.offset for error in state.errors] == [1]


def test_streams_and_history_skip_what_they_cannot_decode(line: Line) -> None:
    client = line.client()
    typed, untyped = read_as(datetime, client.bus("times")), line.client("bob", "k2").bus("times")
    errors, wait = told(client)
    stream, messages, copies = typed.stream(), typed.messages(), typed.deliveries()
    for value in (NOON, "tomorrow", NOON):
        untyped.write(value).result(5)
    assert stream.take(2, 5) == [NOON, NOON]
    assert [message.offset for message in messages.take(2, 5)] == [1, 3]
    assert [delivery.offset for delivery in copies.take(3, 5)] == [1, 2, 3]
    assert typed.history(5) == [NOON, NOON]
    assert [error.offset for error in stream.errors] == [2]
    wait()
    assert len(errors) == 1, "reported once, however many readers met it"

    async def read() -> list[datetime]:
        again = typed.stream("start")
        return [await anext(again), await anext(again)]

    assert asyncio.run(read()) == [NOON, NOON]


def test_callback_gets_the_messages_behind_an_undecodable_one(line: Line) -> None:
    typed, untyped = read_as(datetime, line.client().bus("times")), line.client("bob", "k2").bus("times")
    heard: list[datetime] = []
    done = threading.Event()
    typed.on(lambda value: (heard.append(value), len(heard) == 2 and done.set()))
    for value in ("tomorrow", NOON, NOON):
        ack = untyped.write(value)
    ack.result(5)
    assert done.wait(5)
    assert heard == [NOON, NOON]


def test_array_of_unknown_dtype_is_refused(line: Line) -> None:
    bus = line.client().bus("arrays")
    stream = bus.stream()
    reader = line.client("bob", "k2").bus("arrays").stream()
    acks: list[int] = []
    settled = threading.Event()
    bus.connection.publish(bus.channel, lambda offset, error: (acks.append(offset), settled.set()), UNKNOWN_DTYPE)  # type: ignore[arg-type,func-returns-value]
    assert settled.wait(5)
    assert acks == [0], "nobody could read it"
    bus.write(np.zeros(2)).result(5)
    assert stream.get(5).tolist() == reader.get(5).tolist() == [0, 0]


def test_array_without_numpy_is_skipped(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = line.client().bus("arrays", retain="keys"), line.client("bob", "k2").bus("arrays")
    writer.write(np.zeros(2), key="a").result(5)
    monkeypatch.setitem(sys.modules, "numpy", None)  # as where it is not installed
    state, stream = State(reader), reader.stream(since="start")
    writer.write("text", key="b").result(5)
    assert stream.get(5) == "text"
    assert [error.offset for error in stream.errors] == [error.offset for error in state.errors] == [1]


def test_value_that_a_model_refuses_is_skipped(line: Line) -> None:
    reader, writer = line.client().bus("models"), line.client("bob", "k2").bus("models")
    read_as(Strict, reader)
    stream = reader.stream()
    writer.write({"n": "1"})
    writer.write({"n": 2}).result(5)
    assert stream.get(5) == Strict(n=2)
    assert stream.errors[0].path == "$.n"
