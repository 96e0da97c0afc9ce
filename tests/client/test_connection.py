"""Lost connections, restarted brokers, closed clients."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

import ebus_jupyter as ebus
from ebus_jupyter.backends.base import Kept
from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.client import driver
from ebus_jupyter.core.protocol.message import BusSpec

from .conftest import Line


def test_writes_made_offline_arrive_once_and_in_order(line: Line) -> None:
    writer, reader = line.client("alice"), line.client("bob", "k2")
    bus, stream = writer.bus("news", int), reader.bus("news").stream()
    bus.write(0).result(5)
    line.cut()
    acks = [bus.write(n) for n in range(1, 50)]
    assert not acks[0].done
    line.mend()
    assert [ack.result(10) for ack in acks] == list(range(2, 51))
    assert stream.take(50, 10) == list(range(50))


def test_bus_and_writes_recover_from_a_log_busy_after_restart(
    make_line: Callable[..., Line],
) -> None:
    class Disk(MemoryBackend):
        busy = threading.Event()
        asked = threading.Event()

        async def open(self, bus: str, spec: BusSpec | None, epoch: str) -> Kept | None:
            if self.busy.is_set():
                self.asked.set()
                raise ebus.BackendError("the disk is busy.")
            return await super().open(bus, spec, epoch)

        async def aclose(self) -> None:
            """Stay open: the backend outlives its broker."""

    line = make_line(Disk())
    bus = line.client().bus("news", int)
    stream = bus.stream()
    bus.write(1).result(5)
    Disk.busy.set()
    line.restart()
    assert Disk.asked.wait(10)
    ack = bus.write(2)
    Disk.busy.clear()
    assert ack.result(10) == 2
    assert stream.take(2, 10) == [1, 2]


def test_stream_made_while_disconnected_does_not_block(line: Line) -> None:
    bus = line.client("alice").bus("news", int)
    line.cut()
    stream = bus.stream()
    line.mend()
    bus.write(1)
    assert stream.get(10) == 1


def test_closed_client_fails_pending_acks_and_readers(line: Line) -> None:
    client = line.client()
    bus, stream = client.bus("x"), client.bus("x").stream()
    line.cut()
    ack = bus.write(1)
    client.close()
    with pytest.raises(ebus.Closed):
        ack.result(5)
    with pytest.raises(ebus.Closed):
        stream.get(5)


def test_client_made_for_a_loop_of_another_thread_blocks_only_there(line: Line) -> None:
    async def bus_on_the_loop() -> str:
        bus = client.bus("votes")  # returns at once: the loop that would answer is this one
        return (await bus.opened()).address

    client = line.client(loop=line.loop)
    client.wait_live(5)
    assert client.bus("votes").write(1).result(5) == 1
    assert line.run(bus_on_the_loop()) == "ebus:server/votes"


def test_pause_before_a_new_attempt_is_random_and_bounded(monkeypatch):
    bounds = []
    monkeypatch.setattr(driver.random, "uniform", lambda low, high: bounds.append((low, high)) or 0.0)
    now = [0.0]
    monkeypatch.setattr(driver, "time", SimpleNamespace(monotonic=lambda: now[0]))
    pause = driver.pauses()
    for _ in range(40):
        pause(False)
    now[0] += driver.LASTING_SECONDS
    pause(True)
    assert bounds[:4] == [(0, 0.05), (0, 0.1), (0, 0.2), (0, 0.4)]
    assert bounds[39:] == [(0, 2.0), (0, 0.05)]


def test_broker_that_welcomes_and_ends_is_tried_less_and_less_often(monkeypatch):
    bounds = []
    monkeypatch.setattr(driver.random, "uniform", lambda low, high: bounds.append(high) or 0.0)
    monkeypatch.setattr(driver, "time", SimpleNamespace(monotonic=lambda: 0.0))
    pause = driver.pauses()
    for _ in range(9):
        pause(True)
    assert bounds == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
