"""Callbacks, on the loop that registers them."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading

import pytest

from ebus_jupyter.client import background
from ebus_jupyter.client.loop_thread import loop_thread

from .conftest import Line


def test_callback_runs_on_the_loop_that_registered_it(line: Line) -> None:
    bus = line.client().bus("calls")

    async def notebook() -> list[tuple[int, int]]:
        heard = []
        done = asyncio.Event()

        @bus.on
        def one(value: int) -> None:
            heard.append((value, threading.get_ident()))
            if value == 2:
                raise ValueError("a callback's fault")
            if value == 3:
                done.set()

        for n in range(1, 4):
            bus.write(n)
        await asyncio.wait_for(done.wait(), 5)
        bus.off(one)
        await bus.write(4)
        return heard

    assert asyncio.run(notebook()) == [(n, threading.get_ident()) for n in (1, 2, 3)]


def test_async_callback_gets_one_value_at_a_time(line: Line) -> None:
    bus = line.client().bus("calls")

    async def notebook() -> list[str]:
        said: list[str] = []
        done = asyncio.Event()

        async def slowly(value: int) -> None:
            said.append(f"{value} begins")
            await asyncio.sleep(0)
            said.append(f"{value} ends")
            if value == 2:
                done.set()

        bus.on(slowly)
        bus.write(1)
        bus.write(2)
        await asyncio.wait_for(done.wait(), 5)
        return said

    assert asyncio.run(notebook()) == ["1 begins", "1 ends", "2 begins", "2 ends"]


def test_callback_of_a_script_runs_on_the_callback_thread(line: Line) -> None:
    bus = line.client().bus("calls")
    heard: list[int] = []
    done = threading.Event()
    bus.on(lambda _: (heard.append(threading.get_ident()), done.set()))
    bus.write(1)
    assert done.wait(5)
    assert heard == [loop_thread("ebus-callbacks").ident] != [loop_thread().ident]


def test_rerun_cell_replaces_its_callback_though_it_reopens_the_bus(line: Line) -> None:
    client, heard, done = line.client(), [], threading.Event()
    for run in range(3):  # a cell that runs three times

        def tally(value: int, run: int = run) -> None:
            heard.append((run, value))
            done.set()

        tally.__module__, tally.__qualname__ = "__main__", "tally"
        bus = client.bus("calls")
        bus.on(tally)
    bus.write(1).result(5)
    assert done.wait(5)
    done.clear()
    bus.write(2).result(5)
    assert done.wait(5)
    assert heard == [(2, 1), (2, 2)]


def test_callback_goes_on_after_a_cancelled_await(line: Line) -> None:
    bus = line.client().bus("calls")
    heard: list[int] = []
    done = threading.Event()

    @bus.on
    async def cancelled(value: int) -> None:
        heard.append(value)
        if value == 3:
            done.set()
        task = asyncio.ensure_future(asyncio.sleep(9))
        task.cancel()
        await task

    for n in (1, 2, 3):
        bus.write(n)
    assert done.wait(5)
    assert heard == [1, 2, 3]


def test_callback_that_exits_stops_no_callback(line: Line) -> None:
    client = line.client()
    bus, other = client.bus("calls"), client.bus("other")
    heard: list[int] = []
    done = threading.Event()
    bus.on(lambda value: sys.exit(1))
    other.on(lambda value: (heard.append(value), done.set()))
    bus.write(1).result(5)
    bus.write(2).result(5)
    other.write(3).result(5)
    assert done.wait(5)
    assert heard == [3]


def test_deleted_bus_is_told_to_the_owner_of_callbacks(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    client = line.client("alice")
    bus, errors = client.bus("old"), []
    heard, ended = [], threading.Event()
    client.on_error(lambda error: (errors.append(error), ended.set()))  # type: ignore[arg-type,func-returns-value]
    bus.on(heard.append)
    bus.write(1).result(5)
    line.client("bob", "k2").bus("old").delete()
    assert ended.wait(5)
    assert heard == [1], "what arrived before is still handed over"
    assert "bob has deleted old" in str(errors[0])
    background.finish(5)
    [record] = [record for record in caplog.records if "are called no more" in record.getMessage()]
    assert record.levelno == logging.WARNING


def test_closing_a_bus_reports_nothing(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    bus = line.client().bus("calls")
    bus.on(print)
    with bus:
        bus.write(1).result(5)
    other = line.client("bob", "k2")
    other.bus("calls").on(print)
    other.close()
    background.finish(5)
    assert not caplog.records


def test_off_leaves_no_callback_behind(line: Line) -> None:
    bus = line.client().bus("calls")
    seen: list[int] = []
    for _ in range(1000):
        bus.on(seen.append)
        bus.off(seen.append)
    assert not bus.arrivals._listeners
    assert not bus.arrivals._callbacks
