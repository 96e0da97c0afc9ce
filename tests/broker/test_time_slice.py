"""The broker's share of the event loop, on a loop whose time is told to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ebus_jupyter.broker.time_slice import FEW, HANDED_OUT, TimeSlice


class Loop:
    """As much of a loop as a turn needs."""

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

    def go_round(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


@pytest.fixture
def loop() -> Any:
    made = Loop()
    yield made
    made._futures.close()


def test_a_turn_lasts_from_its_first_use(loop: Any) -> None:
    turn = TimeSlice(loop, 0.5)
    loop.now += 10
    assert not turn.is_over()
    loop.now += 0.4
    assert not turn.is_over()
    loop.now += 0.2
    assert turn.is_over()


def test_who_waits_goes_on_when_others_have_had_two_rounds_of_the_loop(loop: Any) -> None:
    turn = TimeSlice(loop, 0.5)
    turn.is_over()
    loop.now += 1
    first, second = turn.next(), turn.next()
    loop.go_round()
    assert turn.is_over()
    assert not first.done()
    loop.go_round()
    assert first.done() and second.done()
    assert not turn.is_over()


def test_who_waits_for_a_turn_that_has_not_begun_does_not_wait_for_ever(loop: Any) -> None:
    waits = TimeSlice(loop, 0.5).next()
    loop.go_round()
    loop.go_round()
    assert waits.done()


def test_a_turn_is_longer_where_handing_out_takes_long(loop: Any) -> None:
    turn = TimeSlice(loop, 0.5)
    turn.handed_out(2.0, FEW)
    turn.is_over()
    loop.now += HANDED_OUT * 2.0 - 0.1
    assert not turn.is_over()
    loop.go_round()
    loop.go_round()
    turn.handed_out(0.1, FEW)
    turn.is_over()
    loop.now += 0.6
    assert turn.is_over()


def test_a_turn_of_no_time_is_over_however_long_handing_out_takes(loop: Any) -> None:
    turn = TimeSlice(loop, 0.0)
    turn.handed_out(2.0, FEW)
    assert turn.is_over()


def test_it_is_quiet_when_nothing_was_handed_out_for_as_long_as_that_takes(loop: Any) -> None:
    turn = TimeSlice(loop, 0.5)
    assert turn.is_quiet()
    turn.handed_out(0.1, FEW)
    assert not turn.is_quiet()
    loop.now += 0.2
    assert turn.is_quiet()


def test_where_it_is_handed_out_to_many_it_is_never_quiet(loop: Any) -> None:
    turn = TimeSlice(loop, 0.5)
    turn.handed_out(0.1, FEW + 1)
    loop.now += 100
    assert not turn.is_quiet()
    turn.handed_out(0.1, FEW)
    loop.now += 100
    assert turn.is_quiet()
