"""A finaliser or a signal handler runs in the middle of a call, on its thread, under its locks: the client goes on."""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from ebus_jupyter.client import background
from ebus_jupyter.client.bus import Bus
from ebus_jupyter.client.client import Client
from ebus_jupyter.errors import Closed

from .conftest import Line
from .test_interrupted import Interrupt


class Visit(Interrupt):
    """Calls a function at the ``at``-th point in the package where a signal handler can run."""

    def __init__(self, at: int, visit: Callable[[], Any]) -> None:
        super().__init__(at)
        self._visit = visit
        self.visited = False

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if self.visited:
            return self._tracer
        try:
            return super()._trace(frame, event, _)
        except KeyboardInterrupt:
            self.visited = True
            self._visit()
            return self._tracer


def check_visited_writes(client: Client) -> None:
    """A write in the middle of a write, at each of its points: both arrive, and each writer's are in order."""
    bus: Bus[Any, Any] = client.bus("visited", size=10_000)
    visited, at = True, 0
    acks, inner = [], []
    while visited:
        at += 1
        visit = Visit(at, lambda: inner.append(bus.write(-at)))  # noqa: B023 - called within this round
        with visit:
            acks.append(bus.write(at))
        visited = visit.visited
    assert at > 20
    assert [ack.result(10) > 0 for ack in (*acks, *inner)]
    kept = bus.history(10_000)
    assert [n for n in kept if n > 0] == list(range(1, at + 1))
    assert [n for n in kept if n < 0] == [-n for n in range(1, at)]
    assert client.status == "live"


def check_visited_by_close(make: Callable[[], Client]) -> None:
    """A client is closed in the middle of a write, at each of its points: the write has an answer, and the client ends."""
    visited, at = True, 0
    while visited:
        at += 7
        client = make()
        bus: Bus[Any, Any] = client.bus("closing", size=10_000)
        visit = Visit(at, client.close)
        ack = None
        with visit:
            try:
                ack = bus.write(at)
            except Closed as error:
                assert error.reason == "closed"
        visited = visit.visited
        background.finish(10)
        if visited:
            assert client.status == "closed"
        if ack is not None:
            if visited:
                assert ack.done
            else:
                ack.result(10)
        client.close()


def test_write_in_the_middle_of_a_write_arrives(line: Line) -> None:
    check_visited_writes(line.client())


def test_close_in_the_middle_of_a_write_ends_the_client(line: Line) -> None:
    check_visited_by_close(line.client)


def test_call_that_would_wait_for_itself_is_refused(line: Line) -> None:
    client = line.client()
    bus = client.bus("visited")
    stream = bus.stream()
    for call in (
        lambda: stream.get(timeout=5),
        lambda: bus.history(),
        bus.stream,
        lambda: client.bus("other"),
        client.buses,
    ):
        with client.connection.lock, pytest.raises(RuntimeError, match="interrupted the client"):
            call()
    with client.connection.lock:
        bus.write(1)
        bus.close()
    background.finish(5)
    assert bus.status == "closed"
    assert client.bus("visited").history() == [1]


def test_write_in_the_middle_of_another_call_keeps_its_place(line: Line) -> None:
    bus = line.client().bus("visited")
    with bus.connection.lock:
        bus.write(1)
    bus.write(2).result(5)
    assert bus.history() == [1, 2]
