"""Fan-out: messages are packed once, writers take turns, slow subscribers hold nobody up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.core.broker.entry import Entry
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.transports.local import LocalTransport

from .peer import Peer
from .running import iterations, running

pytestmark = pytest.mark.asyncio


# --- packing ----------------------------------------------------------------------------------------------------------


async def test_message_to_a_hundred_connections_is_packed_once() -> None:
    packed: list[bytes] = []

    class Counting(LocalTransport):
        @staticmethod
        def pack(parts: list[bytes]) -> bytes:
            packed.append(LocalTransport.pack(parts))
            return packed[-1]

    async with running() as broker:
        writer = await Peer.join(broker)
        bus = (await writer.open("votes")).bus
        readers = [await Peer.join(broker, f"user{i}", outlet=Counting) for i in range(100)]
        for reader in readers:
            await reader.open("votes")
            await reader.subscribe(bus)
        await iterations()
        packed.clear()
        await writer.publish(bus, "tea")
        assert [await reader.values(1) for reader in readers] == [["tea"]] * 100
        assert len(packed) == 1


async def test_frames_of_one_iteration_are_sent_as_one_message() -> None:
    async with running(slice_seconds=60.0) as broker:
        writer, reader = await Peer.join(broker), await Peer.join(broker, "bob")
        bus = (await writer.open("votes")).bus
        await reader.open("votes")
        await reader.subscribe(bus)
        writes = [frames.Publish(bus, i, frames.NIL) for i in range(1, 51)]
        await writer.send(*writes)
        await reader.expect(frames.Delivery)
        assert [frame.offset for frame in reader.frames if isinstance(frame, frames.Delivery)] == list(range(2, 51))
        answer = await writer.expect(frames.Ok)
        assert (answer.id, answer.offset, answer.count) == (1, 1, 50)


# --- time slices ------------------------------------------------------------------------------------------------------


def _writes(bus: int, count: int) -> bytes:
    return frames.join([frames.encode(frames.Publish(bus, i, frames.NIL)) for i in range(1, count + 1)])


async def test_other_writers_are_served_during_a_large_message() -> None:
    async with running(slice_seconds=0.0) as broker:
        ann, bob = await Peer.join(broker), await Peer.join(broker, "bob")
        bus = (await ann.open("votes")).bus
        await bob.open("votes")
        large = asyncio.create_task(ann.transport.send(_writes(bus, 1_000)))
        await iterations(2)
        await bob.publish(bus, "mine too")
        mine = await bob.expect(frames.Ok)
        assert mine.offset < 1_000
        await large
        answered = 0
        while answered < 1_000:
            ok = await ann.expect(frames.Ok)
            assert ok.id == answered + 1
            answered += ok.count


async def test_frames_of_a_closed_connection_are_still_handled() -> None:
    backend = MemoryBackend()
    async with running(backend, slice_seconds=0.0) as broker:
        ann = await Peer.join(broker)
        bus = (await ann.open("votes")).bus
        ann.transport._conn.receive(_writes(bus, 500))  # type: ignore[attr-defined]
        await ann.transport.aclose()
        await iterations(200)
        kept = await backend.open("ebus:server/votes", None, "")
        assert kept is not None
        assert [entry.id for entry in kept.entries] == list(range(1, 501))


async def test_receive_returns_an_awaitable_when_the_slice_is_over() -> None:
    async with running(slice_seconds=0.0) as broker:
        ann = await Peer.join(broker)
        bus = (await ann.open("votes")).bus
        conn = ann.transport._conn  # type: ignore[attr-defined]
        waits = [conn.receive(_writes(bus, 100)), conn.receive(_writes(bus, 1))]
        await asyncio.gather(*waits)
        assert not broker.state.has_more(conn.id)
    async with running(slice_seconds=60.0) as broker:
        ann = await Peer.join(broker)
        bus = (await ann.open("votes")).bus
        assert ann.transport._conn.receive(_writes(bus, 100)) is None  # type: ignore[attr-defined]


# --- slow subscribers -------------------------------------------------------------------------------------------------


async def test_slow_subscriber_is_paused_and_served_from_the_log() -> None:
    async with running(limits={"send_bytes": 10_000}) as broker:
        writer, fast, slow = [await Peer.join(broker, user) for user in ("ann", "bob", "eve")]
        bus = (await writer.open("votes")).bus
        for reader in (fast, slow):
            await reader.open("votes")
            await reader.subscribe(bus)
        for n in range(300):
            await writer.write(bus, [n, "x" * 1000])
            assert await fast.values(1) == [[n, "x" * 1000]]
        assert slow.transport.buffered() < 13_000  # type: ignore[attr-defined]
        assert [n for n, _ in await slow.values(300)] == list(range(300))
        await writer.write(bus, "live again")
        assert await slow.values(1) == ["live again"]


async def test_subscriber_too_slow_for_the_log_lags() -> None:
    async with running(limits={"send_bytes": 10_000}) as broker:
        writer, slow = await Peer.join(broker), await Peer.join(broker, "eve")
        bus = (await writer.open("votes", size=5)).bus
        await slow.open("votes")
        await slow.subscribe(bus)
        for _ in range(100):
            await writer.write(bus, "x" * 1000)
        seen: list[int] = []
        skipped = 0
        while not seen or seen[-1] < 100:
            frame = await slow.read()
            if isinstance(frame, frames.Delivery):
                seen.append(frame.offset)
            elif isinstance(frame, frames.Lag):
                skipped += frame.skipped
                assert frame.resume_after == 95
        assert seen == [*range(1, 101 - 5 - skipped), *range(96, 101)]
        assert skipped > 0


async def test_healthy_reader_survives_a_burst_of_large_messages() -> None:
    async with running(limits={"send_bytes": 5_000, "control_bytes": 5_000}) as broker:
        writers, slow = [await Peer.join(broker, f"u{n}") for n in range(8)], await Peer.join(broker, "eve")
        buses = [(await writer.open("votes")).bus for writer in writers]
        await slow.open("votes")
        await slow.subscribe(buses[0])
        for writer, bus in zip(writers, buses, strict=True):
            value = msgspec.Raw(msgspec.msgpack.encode("x" * 4_000))
            await writer.send(*[frames.Publish(bus, n, value) for n in range(1, 6)])
        await iterations()
        assert broker.state.counts()["connections"] == 9
        assert slow.transport.buffered() < 20 * 4_000  # type: ignore[attr-defined]
        assert await slow.values(40) == ["x" * 4_000] * 40


async def test_value_larger_than_all_bounds_on_sending_arrives() -> None:
    async with running(limits={"send_bytes": 1_000, "control_bytes": 1_000}) as broker:
        writer, slow = await Peer.join(broker), await Peer.join(broker, "eve")
        bus = (await writer.open("votes")).bus
        await slow.open("votes")
        await slow.subscribe(bus)
        for value in ("a" * 50_000, "b" * 50_000):
            await writer.write(bus, value)
        assert await slow.values(2) == ["a" * 50_000, "b" * 50_000]


async def test_large_writes_are_appended_in_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ebus_jupyter.broker.storage_queue.BATCH_BYTES", 2_500)
    batches: list[int] = []

    class Noted(MemoryBackend):
        async def append(self, batch: Sequence[Entry]) -> Sequence[Entry]:
            batches.append(len(batch))
            return await super().append(batch)

        def append_now(self, batch: Sequence[Entry]) -> Sequence[Entry] | None:
            return None

    async with running(Noted()) as broker:
        ann = await Peer.join(broker)
        bus = (await ann.open("votes")).bus
        await ann.send(*[frames.Publish(bus, n, msgspec.Raw(msgspec.msgpack.encode("x" * 1000))) for n in range(1, 11)])
        await iterations()
        assert sum(batches) == 10
        assert max(batches) == 3


async def test_client_that_never_reads_is_disconnected_alone() -> None:
    async with running(limits={"send_bytes": 5_000, "control_bytes": 5_000}) as broker:
        deaf, other = await Peer.join(broker, "eve"), await Peer.join(broker)
        await deaf.open("votes")
        for n in range(2000):
            if broker.state.counts()["connections"] == 1:
                break
            await deaf.send(*[frames.Ping(n)] * 20)
        assert broker.state.counts()["connections"] == 1
        bus = (await other.open("votes")).bus
        assert await other.write(bus, "still here") == 1
        with pytest.raises(AssertionError, match="ended"):
            await deaf.expect(frames.Bye)
