"""Callbacks, on the loop that registers them."""

from __future__ import annotations

import asyncio
import threading

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
