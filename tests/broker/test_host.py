"""The host: its lifecycle, and the order of storing and delivering."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.broker import host
from ebus_jupyter.broker.host import Broker
from ebus_jupyter.core.broker.entry import Entry
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import BusSpec
from ebus_jupyter.errors import ConnectionLost
from tests.backends.shared import SharedMemory

from .peer import Peer
from .running import iterations, running

pytestmark = pytest.mark.asyncio


# --- lifecycle --------------------------------------------------------------------------------------------------------


async def test_closing_broker_says_goodbye() -> None:
    broker = Broker()
    await broker.start()
    peer = await Peer.join(broker)
    await broker.aclose()
    bye = await peer.expect(frames.Bye)
    assert (bye.code, bye.reconnect) == ("closed", True)
    assert await peer.read() is None
    with pytest.raises(ConnectionLost, match="shutting down"):
        await Peer.join(broker)
    await broker.aclose()


async def test_writes_accepted_before_closing_are_kept() -> None:
    class Kept(MemoryBackend):
        async def aclose(self) -> None:
            self.found = await self.open("ebus:server/votes", None, "")
            await super().aclose()

    backend = Kept()
    broker = Broker(backend)
    await broker.start()
    peer = await Peer.join(broker)
    bus = (await peer.open("votes")).bus
    peer.transport._conn.receive(  # type: ignore[attr-defined]
        frames.join([frames.encode(frames.Publish(bus, i, frames.NIL)) for i in (1, 2, 3)])
    )
    await broker.aclose()
    assert backend.found is not None
    assert [entry.id for entry in backend.found.entries] == [1, 2, 3]


class Gated(MemoryBackend):
    """Appends once its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.gate = asyncio.Event(), asyncio.Event()

    def append_now(self, batch: Sequence[Entry]) -> None:
        return None

    async def append(self, batch: Sequence[Entry]) -> Sequence[Entry]:
        self.reached.set()
        await self.gate.wait()
        return await super().append(batch)


async def test_writes_in_flight_are_answered_before_goodbye() -> None:
    backend = Gated()
    broker = Broker(backend)
    await broker.start()
    peer = await Peer.join(broker)
    bus = (await peer.open("votes")).bus
    await peer.publish(bus, "first")
    await backend.reached.wait()
    await peer.publish(bus, "second")
    closing = asyncio.create_task(broker.aclose())
    await iterations()
    await peer.publish(bus, "too late")
    backend.gate.set()
    await closing
    told = []
    while (frame := await peer.read()) is not None:
        told.append(frame)
    assert [(frame.id, frame.count) for frame in told[:-1] if isinstance(frame, frames.Ok)] == [(1, 1), (2, 1)]
    assert isinstance(told[-1], frames.Bye)
    assert [frame for frame in told if isinstance(frame, frames.Error)] == []


async def test_backend_that_hangs_does_not_keep_the_broker_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "DRAIN_SECONDS", 0.01)
    backend = Gated()
    broker = Broker(backend)
    await broker.start()
    peer = await Peer.join(broker)
    await peer.publish((await peer.open("votes")).bus, "never")
    await backend.reached.wait()
    await broker.aclose()
    assert (await peer.expect(frames.Bye)).reconnect


async def test_kernel_scope_is_deleted_with_its_kernel() -> None:
    backend = MemoryBackend()
    for uri in ("ebus:kernel/k0/mine", "ebus:server/ours"):
        await backend.open(uri, BusSpec(), "e")
    async with running(backend) as broker:
        assert list(await backend.buses()) == ["ebus:server/ours"]
        kernel = await Peer.join(broker, kind="kernel", kernel="k1")
        await kernel.open("mine", "kernel")
        broker.kernel_stopped("k1")
        assert "kernel was shut down" in (await kernel.expect(frames.Gone)).reason
        await iterations()
        assert list(await backend.buses()) == ["ebus:server/ours"]


async def test_unnamed_buses_are_not_stored_in_the_durable_backend() -> None:
    backend = MemoryBackend()
    async with running(backend) as broker:
        peer = await Peer.join(broker)
        bus = (await peer.open(None)).bus
        assert await peer.write(bus, "private") == 1
        assert await backend.buses() == {}


async def test_unloaded_bus_is_loaded_as_it_was() -> None:
    now = 1000.0
    async with running(clock=lambda: now) as broker:
        peer = await Peer.join(broker)
        opened = await peer.open("votes", retain="latest")
        assert [await peer.write(opened.bus, word) for word in ("tea", "milk")] == [1, 2]
        await peer.send(frames.Leave(opened.bus))
        broker.perform(broker.state.tick(now + 1000))
        assert broker.state.counts()["buses"] == 0
        again = await peer.open("votes")
        assert (again.epoch, again.last) == (opened.epoch, 2)
        assert await peer.write(again.bus, "tea", id=1) == 1  # a retry, of a message that is long replaced
        assert await peer.write(again.bus, "rum", id=3) == 3


async def test_durations_and_stamps_use_different_clocks() -> None:
    now, wall = 50.0, 1_000_000.0
    async with running(clock=lambda: now, wall=lambda: wall, limits={"publish_rate": 1, "publish_burst": 1}) as broker:
        peer = await Peer.join(broker)
        bus = (await peer.open("votes")).bus
        assert await peer.write(bus, "tea") == 1
        now, wall = 51.0, wall - 3600
        broker._read_wall_clock()
        assert await peer.write(bus, "milk") == 2
        await peer.send(frames.Fetch(1, bus))
        page = await peer.expect(frames.Page)
        assert [frames.delivery(message).time for message in page.messages] == [1_000_000.0, 1_000_000.0]


# --- order ------------------------------------------------------------------------------------------------------------


async def test_nothing_is_delivered_before_it_is_committed() -> None:
    """The log precedes the fan-out, however slow the backend is."""
    gate = asyncio.Event()

    class Slow(MemoryBackend):
        async def append(self, batch: Sequence[Entry]) -> Sequence[Entry]:
            await gate.wait()
            return await super().append(batch)

        def append_now(self, batch: Sequence[Entry]) -> Sequence[Entry] | None:
            return None

    async with running(Slow()) as broker:
        peer = await Peer.join(broker)
        bus = (await peer.open("votes")).bus
        await peer.subscribe(bus)
        for word in ("tea", "milk"):
            await peer.publish(bus, word)
        await peer.send(frames.Ping(1))
        assert isinstance(await peer.read(), frames.Pong)  # nothing else came before it
        gate.set()
        assert await peer.values(2) == ["tea", "milk"]


async def test_concurrent_new_keys_do_not_exceed_the_bound() -> None:
    async with running() as broker:
        peer = await Peer.join(broker)
        bus = (await peer.open("dash", retain="keys", size=2)).bus
        await peer.send(*[frames.Publish(bus, i, frames.NIL, key=f"k{i}") for i in range(1, 5)])
        answers = {}
        while set(answers) != {1, 2, 3, 4}:
            match await peer.read():
                case frames.Ok(id=id, count=count):
                    answers.update(dict.fromkeys(range(id, id + count), "ok"))
                case frames.Error(id=id, code=code):
                    answers[id] = code
        assert [answers[id] for id in sorted(answers)] == ["ok", "ok", "too_large", "too_large"]
        assert await peer.write(bus, "again", id=5, key="k1") == 3


# --- shared engines -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feed_first", [True, False])
async def test_shared_engine_delivers_by_its_feed_and_acknowledges_by_append(feed_first: bool) -> None:
    engine = SharedMemory(feed_first=feed_first)
    async with running(engine) as broker, running(engine) as other:
        peer, remote = await Peer.join(broker), await Peer.join(other, "bob")
        bus, same = (await peer.open("votes")).bus, (await remote.open("votes")).bus
        await peer.subscribe(bus)
        await remote.subscribe(same)
        await peer.publish(bus, "tea")
        kinds = [type(await peer.read())]
        if not feed_first:
            engine.deliver()
        kinds.append(type(await peer.read()))
        assert kinds == ([frames.Delivery, frames.Ok] if feed_first else [frames.Ok, frames.Delivery])
        assert await remote.values(1) == ["tea"]
        await peer.publish(bus, "tea", id=1)  # a retry
        assert (await peer.expect(frames.Ok)).offset == 1


async def test_local_backend_delivers_before_it_acknowledges() -> None:
    async with running() as broker:
        peer = await Peer.join(broker)
        bus = (await peer.open("votes")).bus
        await peer.subscribe(bus)
        await peer.publish(bus, "tea")
        assert [type(await peer.read()), type(await peer.read())] == [frames.Delivery, frames.Ok]
