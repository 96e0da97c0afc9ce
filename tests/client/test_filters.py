"""Filters in the kernel that made the bus: they see every write before anyone receives it."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

import ebus_jupyter as ebus

from .conftest import Line


class Post(NamedTuple):
    text: str
    by: str


def stamp(text: str, sender: ebus.Participant) -> Post:
    if "spam" in text:
        raise ebus.Reject("no spam, please")
    return Post(text.strip(), sender.user)


def test_filter_changes_the_type_and_sees_the_stamped_sender(line: Line) -> None:
    clean = line.client("alice").bus("clean", str, emits=Post, filter=stamp)
    guest = line.client("bob", "k2").bus("clean")
    stream, guest_stream = clean.stream(), guest.stream()
    guest.write("  tea  ").result(5)
    clean.write("milk").result(5)
    assert stream.take(2, 5) == [Post("tea", "bob"), Post("milk", "alice")], "the maker's own writes are filtered too"
    assert guest_stream.take(2, 5) == [["tea", "bob"], ["milk", "alice"]]


def test_rejected_write_reaches_nobody(line: Line) -> None:
    clean = line.client("alice").bus("clean", str, emits=Post, filter=stamp)
    stream = clean.stream()
    with pytest.raises(ebus.Filtered, match="no spam, please") as refused:
        line.client("bob", "k2").bus("clean").write("spam").result(5)
    assert refused.value.reason == "no spam, please"
    clean.write("tea").result(5)
    assert stream.get(5) == Post("tea", "alice")


async def cancelled(value: int, sender: ebus.Participant) -> int:
    raise asyncio.CancelledError


def exits(value: int, sender: ebus.Participant) -> int:
    sys.exit(1)


def stops(value: int, sender: ebus.Participant) -> int:
    raise StopIteration  # `next` of an iterator that is at its end


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def fails_without_a_text(value: int, sender: ebus.Participant) -> int:
    raise Unprintable


def rejects_with_a_text_that_cannot_travel(value: int, sender: ebus.Participant) -> int:
    raise ebus.Reject("no \ud800")


@pytest.mark.parametrize(
    "function", [cancelled, exits, stops, fails_without_a_text, rejects_with_a_text_that_cannot_travel]
)
def test_filter_that_is_cancelled_or_exits_refuses_the_write(line: Line, function: Callable[..., Any]) -> None:
    bus = line.client().bus("odd", int, filter=function)
    for n in range(2):
        with pytest.raises(ebus.EbusError):
            bus.write(n).result(5)


def test_filter_goes_on_when_its_bus_object_is_dropped(line: Line) -> None:
    line.client("alice").bus("clean", str, emits=Post, filter=stamp)
    gc.collect()
    guest = line.client("bob", "k2").bus("clean")
    stream = guest.stream()
    guest.write("tea").result(5)
    assert stream.get(5) == ["tea", "bob"]


def test_async_filter_keeps_each_writer_s_order(line: Line) -> None:
    async def slow_at_first(n: int, sender: ebus.Participant) -> int:
        await asyncio.sleep(0.02 if n == 0 else 0)
        return n

    bus = line.client("alice").bus("ordered", int, filter=slow_at_first)
    other = line.client("bob", "k2").bus("ordered")
    stream = bus.stream()
    for n in range(5):
        other.write(n)
    assert stream.take(5, 5) == [0, 1, 2, 3, 4]


def test_absent_filter_refuses_writes_until_its_kernel_returns(line: Line) -> None:
    owner = line.client("alice")
    owner.bus("clean", str, emits=Post, filter=stamp)
    guest = line.client("bob", "k2").bus("clean")
    guest.write("before").result(5)
    owner.close()
    for _ in range(100):
        try:
            guest.write("into the void").result(5)
        except ebus.FilterUnavailable as away:
            assert (away.temporary and "unfiltered" in str(away)) or "kernel" in str(away)
            break
    else:
        pytest.fail("writes still pass")
    back = line.client("alice", "k3").bus("clean", str, emits=Post, filter=stamp)
    guest.write("after").result(5)
    assert back.history(1) == [Post("after", "bob")]


def test_another_user_cannot_provide_the_filter(line: Line) -> None:
    line.client("alice").bus("clean", str, emits=Post, filter=stamp)
    with pytest.raises(ebus.Forbidden, match="alice"):
        line.client("mallory", "k9").bus("clean", str, emits=Post, filter=stamp)


def test_failing_filter_accepts_no_write(line: Line) -> None:
    def broken(text: str, sender: ebus.Participant) -> str:
        return 1 / 0  # type: ignore[return-value]

    bus = line.client().bus("broken", str, filter=broken)
    with pytest.raises(ebus.FilterUnavailable, match="ZeroDivisionError"):
        bus.write("x").result(5)
    assert bus.history() == []


def test_filter_that_times_out_refuses_the_write(make_line: Callable[..., Line]) -> None:
    never = threading.Event()

    async def stuck(text: str, sender: Any) -> str:
        await asyncio.sleep(3600)
        return text

    bus = make_line(filter_seconds=0.1).client().bus("stuck", str, filter=stuck)
    with pytest.raises(ebus.FilterUnavailable, match=r"within 0\.1 s"):
        bus.write("x").result(5)
    never.set()


def test_feed_writes_what_its_source_yields(line: Line) -> None:
    async def readings() -> Any:
        for n in range(3):
            yield n * 1.5

    bus = line.client().bus("sensor", float)
    assert bus.feed(readings()).result(5) == 3
    assert bus.history() == [0.0, 1.5, 3.0]


def test_message_and_bus_say_whose_filter_it_was(line: Line) -> None:
    def loud(value: str, sender: ebus.Participant) -> str:
        return value.upper()

    line.client("mallory").bus("lobby", str, filter=loud)
    bus = line.client("alice", "k2").bus("lobby", str)
    bus.write("tea").result(5)
    [message] = bus.messages(since="start").take(1, timeout=5)
    assert (message.value, message.filtered_by, bus.filtered_by) == ("TEA", "user:mallory", "user:mallory")
    plain = line.client("alice", "k2").bus("plain", str, filter=False)
    plain.write("tea").result(5)
    [message] = plain.messages(since="start").take(1, timeout=5)
    assert (message.filtered_by, plain.filtered_by) == ("", "")
    with pytest.raises(ebus.SpecConflict, match="user:mallory"):
        line.client("bob", "k3").bus("lobby", str, filter=False)
