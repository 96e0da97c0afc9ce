"""The broker's share of the event loop, on a loop whose time the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ebus_jupyter.broker.time_slice import DELIVERY_FACTOR, FEW_CONNECTIONS, TimeSlice


class Loop:
    """The part of an event loop that a time slice uses."""

    def __init__(self) -> None:
        self.now = 100.0
        self.soon: list[Callable[[], None]] = []
        self._futures = asyncio.new_event_loop()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def create_future(self) -> asyncio.Future[None]:
        return self._futures.create_future()

    def iterate(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


@pytest.fixture
def loop() -> Any:
    made = Loop()
    yield made
    made._futures.close()


def test_slice_lasts_from_its_first_use(loop: Any) -> None:
    time_slice = TimeSlice(loop, 0.5)
    loop.now += 10
    assert not time_slice.is_over()
    loop.now += 0.4
    assert not time_slice.is_over()
    loop.now += 0.2
    assert time_slice.is_over()


def test_next_slice_begins_after_two_iterations_of_the_loop(loop: Any) -> None:
    time_slice = TimeSlice(loop, 0.5)
    time_slice.is_over()
    loop.now += 1
    first, second = time_slice.next_slice(), time_slice.next_slice()
    loop.iterate()
    assert time_slice.is_over()
    assert not first.done()
    loop.iterate()
    assert first.done() and second.done()
    assert not time_slice.is_over()


def test_slice_begins_anew_after_none_was_used_for_as_long(loop: Any) -> None:
    time_slice = TimeSlice(loop, 0.5)
    time_slice.begin()
    loop.now += 0.4
    time_slice.begin()
    assert not time_slice.is_over()
    loop.now += 0.4  # used meanwhile: of the same slice, whatever it was used for
    time_slice.begin()
    assert time_slice.is_over()
    loop.now += 0.5
    time_slice.begin()
    assert not time_slice.is_over()
    assert loop.soon == []  # a lone message leaves nothing to be done later


def test_slice_that_is_waited_for_does_not_begin_early(loop: Any) -> None:
    time_slice = TimeSlice(loop, 0.5)
    time_slice.begin()
    loop.now += 0.6
    waiting = time_slice.next_slice()
    loop.now += 0.6
    time_slice.begin()
    assert time_slice.is_over()
    loop.iterate()
    loop.iterate()
    assert waiting.done()
    assert not time_slice.is_over()


def test_waiting_without_a_current_slice_ends(loop: Any) -> None:
    waiting = TimeSlice(loop, 0.5).next_slice()
    loop.iterate()
    loop.iterate()
    assert waiting.done()


def test_slice_is_longer_after_a_long_delivery(loop: Any) -> None:
    time_slice = TimeSlice(loop, 0.5)
    time_slice.delivered(2.0, FEW_CONNECTIONS)
    time_slice.is_over()
    loop.now += DELIVERY_FACTOR * 2.0 - 0.1
    assert not time_slice.is_over()
    loop.iterate()
    loop.iterate()
    time_slice.delivered(0.1, FEW_CONNECTIONS)
    time_slice.is_over()
    loop.now += 0.6
    assert time_slice.is_over()


def test_slice_of_zero_seconds_is_over_after_any_delivery(loop: Any) -> None:
    time_slice = TimeSlice(loop, 0.0)
    time_slice.delivered(2.0, FEW_CONNECTIONS)
    assert time_slice.is_over()


def test_quiet_after_no_delivery_for_as_long_as_one_takes(loop: Any) -> None:
    time_slice = TimeSlice(loop, 0.5)
    assert time_slice.is_quiet()
    time_slice.delivered(0.1, FEW_CONNECTIONS)
    assert not time_slice.is_quiet()
    loop.now += 0.2
    assert time_slice.is_quiet()


def test_never_quiet_after_a_delivery_to_many_connections(loop: Any) -> None:
    time_slice = TimeSlice(loop, 0.5)
    time_slice.delivered(0.1, FEW_CONNECTIONS + 1)
    loop.now += 100
    assert not time_slice.is_quiet()
    time_slice.delivered(0.1, FEW_CONNECTIONS)
    loop.now += 100
    assert time_slice.is_quiet()
