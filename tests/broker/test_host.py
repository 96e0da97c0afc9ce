"""The shell around the pure broker: real connections, real backends, other people's code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.broker.host import Broker
from ebus_jupyter.core.broker.entry import Entry
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import BusSpec, Participant
from ebus_jupyter.errors import (
    BackendError,
    ConnectionLost,
    Filtered,
    FilterUnavailable,
    Forbidden,
    NoSuchBus,
    Reject,
    TooLarge,
    TypeMismatch,
)
from ebus_jupyter.transports.local import LocalTransport

from .peer import Peer

pytestmark = pytest.mark.asyncio


@contextlib.asynccontextmanager
async def running(
    durable: Any = None, *, limits: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Broker]:
    broker = Broker(durable, limits=Limits(**(limits or {})), **settings)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.aclose()


async def turns(count: int = 20) -> None:
    """Let everything that is due run."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- fan-out --------------------------------------------------------------------------------------------------------


async def test_what_a_hundred_get_is_packed_once() -> None:
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
        await turns()
        packed.clear()
        await writer.publish(bus, "tea")
        assert [await reader.values(1) for reader in readers] == [["tea"]] * 100
        assert len(packed) == 1


async def test_what_one_turn_has_for_a_connection_is_one_message() -> None:
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


# --- fair turns -----------------------------------------------------------------------------------------------------


def _writes(bus: int, count: int) -> bytes:
    return frames.join([frames.encode(frames.Publish(bus, i, frames.NIL)) for i in range(1, count + 1)])


async def test_others_have_their_turns_while_a_large_message_is_taken() -> None:
    async with running(slice_seconds=0.0) as broker:
        ann, bob = await Peer.join(broker), await Peer.join(broker, "bob")
        bus = (await ann.open("votes")).bus
        await bob.open("votes")
        large = asyncio.create_task(ann.transport.send(_writes(bus, 1_000)))
        await turns(2)
        await bob.publish(bus, "mine too")
        mine = await bob.expect(frames.Ok)
        assert mine.offset < 1_000
        await large
        answered = 0
        while answered < 1_000:
            ok = await ann.expect(frames.Ok)
            assert ok.id == answered + 1
            answered += ok.count


async def test_the_last_words_of_a_connection_are_taken_though_it_ends_before_their_turn() -> None:
    backend = MemoryBackend()
    async with running(backend, slice_seconds=0.0) as broker:
        ann = await Peer.join(broker)
        bus = (await ann.open("votes")).bus
        ann.transport._conn.receive(_writes(bus, 500))  # type: ignore[attr-defined]
        await ann.transport.aclose()
        await turns()
        kept = await backend.open("ebus:server/votes", None, "")
        assert kept is not None
        assert [entry.id for entry in kept.entries] == list(range(1, 501))


async def test_who_brings_more_than_a_turn_has_time_for_is_told_to_wait() -> None:
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


# --- slow readers ---------------------------------------------------------------------------------------------------


async def test_a_slow_reader_is_held_and_then_served_from_the_log() -> None:
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


async def test_a_reader_that_is_too_slow_for_the_log_is_told_what_it_missed() -> None:
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


async def test_who_never_reads_its_answers_is_let_go_alone() -> None:
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


# --- life -----------------------------------------------------------------------------------------------------------


async def test_the_broker_says_goodbye() -> None:
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


async def test_what_was_accepted_before_the_end_is_kept() -> None:
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


async def test_kernels_scopes_do_not_outlive_their_kernels() -> None:
    backend = MemoryBackend()
    for uri in ("ebus:kernel/k0/mine", "ebus:server/ours"):
        await backend.open(uri, BusSpec(), "e")
    async with running(backend) as broker:
        assert list(await backend.buses()) == ["ebus:server/ours"]
        kernel = await Peer.join(broker, kind="kernel", kernel="k1")
        await kernel.open("mine", "kernel")
        broker.kernel_stopped("k1")
        assert "kernel was shut down" in (await kernel.expect(frames.Gone)).reason
        await turns()
        assert list(await backend.buses()) == ["ebus:server/ours"]


async def test_unnamed_buses_leave_nothing_in_the_backend() -> None:
    backend = MemoryBackend()
    async with running(backend) as broker:
        peer = await Peer.join(broker)
        bus = (await peer.open(None)).bus
        assert await peer.write(bus, "private") == 1
        assert await backend.buses() == {}


async def test_a_bus_that_nobody_uses_comes_back_as_it_was() -> None:
    now = 1000.0
    async with running(clock=lambda: now) as broker:
        peer = await Peer.join(broker)
        opened = await peer.open("votes", retain="latest")
        assert [await peer.write(opened.bus, word) for word in ("tea", "milk")] == [1, 2]
        await peer.send(frames.Leave(opened.bus))
        broker._perform(broker.state.tick(now + 1000))
        assert broker.state.counts()["buses"] == 0
        again = await peer.open("votes")
        assert (again.epoch, again.last) == (opened.epoch, 2)
        assert await peer.write(again.bus, "tea", id=1) == 1  # a retry, of a message that is long replaced
        assert await peer.write(again.bus, "rum", id=3) == 3


# --- backends that fail ---------------------------------------------------------------------------------------------


class Moody(MemoryBackend):
    """Fails as long as it is told to."""

    mood: Exception | None = None

    def _check_open(self) -> None:
        if self.mood is not None:
            raise self.mood


@pytest.mark.parametrize("mood", [BackendError("the disk is full."), RuntimeError("a bug")])
async def test_a_failing_log_refuses_the_write_and_the_broker_goes_on(
    mood: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Moody()
    async with running(backend) as broker:
        peer = await Peer.join(broker)
        bus = (await peer.open("votes")).bus
        await peer.subscribe(bus)
        private = (await peer.open(None)).bus
        backend.mood = mood
        with caplog.at_level(logging.ERROR, "ebus_jupyter"), pytest.raises(BackendError, match=str(mood)):
            await peer.write(bus, "lost")
        assert caplog.records
        assert await peer.write(private, "elsewhere") == 1
        backend.mood = None
        await peer.publish(bus, "kept", id=1)  # a refused write's id was not used up
        assert await peer.values(1) == ["kept"]
        assert (await peer.expect(frames.Ok)).offset == 1


async def test_who_asks_for_one_bus_too_many_is_told_and_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    async with running(limits={"kept_buses": 2}) as broker:
        peer = await Peer.join(broker)
        votes = (await peer.open("votes")).bus
        await peer.open("teams")
        with pytest.raises(TooLarge, match="keeps 2 buses"):
            await peer.open("news")
        assert await peer.write(votes, "tea") == 1
    assert not caplog.records


async def test_a_backend_with_a_bug_takes_no_other_bus_with_it(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(MemoryBackend):
        async def append(self, batch: Sequence[Entry]) -> list[int]:
            return []

        def append_now(self, batch: Sequence[Entry]) -> list[int] | None:
            return None

    async with running(Wrong()) as broker:
        peer = await Peer.join(broker)
        bus = (await peer.open("votes")).bus
        private = (await peer.open(None)).bus
        with caplog.at_level(logging.ERROR, "ebus_jupyter"):
            await peer.publish(bus, "lost")
            await turns()
        assert "please report" in caplog.text
        assert await peer.write(private, "elsewhere", id=2) == 1


@pytest.mark.parametrize("mood", [BackendError("the file is damaged."), RuntimeError("it is damaged by a bug")])
async def test_a_bus_that_can_t_be_read_is_not_begun_anew(mood: Exception) -> None:
    backend = Moody()
    async with running(backend) as broker:
        peer = await Peer.join(broker)
        backend.mood = mood
        with pytest.raises(BackendError, match="damaged"):
            await peer.open("votes")
        await peer.send(frames.List(1))
        assert isinstance(await peer.refusal(), BackendError)
        backend.mood = None
        assert (await peer.open("votes")).last == 0


@pytest.mark.parametrize("mood", [BackendError("the file is read-only."), RuntimeError("read-only by a bug")])
async def test_who_deletes_a_bus_hears_that_the_log_could_not(mood: Exception) -> None:
    backend = Moody()
    async with running(backend) as broker:
        peer = await Peer.join(broker)
        bus = (await peer.open("votes")).bus
        await peer.write(bus, "kept")
        backend.mood = mood
        await peer.send(frames.Delete(2, bus))
        refusal = await peer.refusal()
        assert isinstance(refusal, BackendError)
        assert "read-only" in str(refusal)
        backend.mood = None
        assert (await peer.open("votes")).last == 1


async def test_keys_that_come_together_do_not_overfill_a_bus() -> None:
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


async def test_one_client_s_impossible_id_is_its_own_trouble() -> None:
    async with running() as broker:
        good, bad = await Peer.join(broker), await Peer.join(broker, "eve")
        bus = (await good.open("votes")).bus
        await bad.open("votes")
        await bad.publish(bus, "x", id=1 << 63)
        assert (await bad.expect(frames.Bye)).code == "protocol"
        assert await good.write(bus, "tea") == 1


# --- other people's code: the authorizer ----------------------------------------------------------------------------


async def test_the_authorizer_is_asked_for_each_bus() -> None:
    asked: list[tuple[str, str]] = []

    async def rules(bus: Address, action: str) -> bool:
        asked.append((bus.name, action))
        return bus.name == "open" or (bus.name == "look" and action == "read")

    async with running() as broker:
        maker, peer = await Peer.join(broker), await Peer.join(broker, "eve", authorize=rules)
        for name in ("open", "look", "shut"):
            bus = (await maker.open(name)).bus
        assert await peer.write((await peer.open("open")).bus, "hi") == 1
        bus = (await peer.open("look")).bus
        await peer.subscribe(bus)
        with pytest.raises(Forbidden):
            await peer.write(bus, "hi")
        with pytest.raises(NoSuchBus) as refused:
            await peer.open("shut")
        with pytest.raises(NoSuchBus) as missing:
            await peer.open("missing")
        assert str(refused.value).replace("shut", "missing") == str(missing.value)
        asked.clear()
        await peer.open("open")
        assert asked == []  # a connection's permits are asked once


async def test_an_authorizer_that_breaks_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(bus: Address, action: str) -> bool:
        if action == "write":
            raise RuntimeError("no directory")
        return True

    async with running() as broker:
        maker, peer = await Peer.join(broker), await Peer.join(broker, "eve", authorize=broken)
        await maker.open("votes")
        with pytest.raises(NoSuchBus):
            await peer.open("votes")
        assert "authorizer failed" in caplog.text
        assert await maker.write((await maker.open("votes")).bus, "hi") == 1


# --- other people's code: filters in the server ---------------------------------------------------------------------


async def _later(value: str, _: Participant) -> str:
    await asyncio.sleep(0)
    return value.upper()


def _signed(value: str, sender: Participant) -> Any:
    return [sender.user, sender.kind, value]


async def _never(value: str, _: Participant) -> str:
    await asyncio.Event().wait()
    return value


def _broken(value: str, _: Participant) -> str:
    raise ZeroDivisionError(value)


def _picky(value: str, _: Participant) -> str:
    if value == "bad":
        raise Reject("mind your language")
    return value


def _odd(value: str, _: Participant) -> Any:
    return object()


FILTERS = {"later": _later, "signed": _signed, "never": _never, "broken": _broken, "picky": _picky, "odd": _odd}


async def _filtered(broker: Broker, name: str, **spec: Any) -> tuple[Peer, int]:
    peer = await Peer.join(broker)
    bus = (await peer.open("clean", filter=name, **spec)).bus
    await peer.subscribe(bus)
    return peer, bus


async def test_a_filter_may_take_its_time_and_change_the_value() -> None:
    async with running(filters=FILTERS) as broker:
        peer, bus = await _filtered(broker, "later")
        for word in ("tea", "milk"):
            await peer.publish(bus, word)
        assert await peer.values(2) == ["TEA", "MILK"]


async def test_a_filter_sees_the_stamped_sender() -> None:
    async with running(filters=FILTERS) as broker:
        peer, bus = await _filtered(broker, "signed")
        await peer.publish(bus, "tea")
        assert await peer.values(1) == [["ann", "page", "tea"]]


async def test_a_filter_may_refuse() -> None:
    async with running(filters=FILTERS) as broker:
        peer, bus = await _filtered(broker, "picky")
        with pytest.raises(Filtered, match="mind your language"):
            await peer.write(bus, "bad")
        assert await peer.write(bus, "good") == 1


@pytest.mark.parametrize("name", ["broken", "odd"])
async def test_a_filter_that_breaks_accepts_nothing(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with running(filters=FILTERS) as broker:
        peer, bus = await _filtered(broker, name)
        with pytest.raises(FilterUnavailable, match=name):
            await peer.write(bus, "x")
        assert f"filter '{name}' failed" in caplog.text
        assert (await peer.open("other")).last == 0


async def test_a_filter_that_hangs_is_given_up() -> None:
    async with running(filters=FILTERS, limits={"filter_seconds": 0.02}) as broker:
        peer, bus = await _filtered(broker, "never")
        with pytest.raises(FilterUnavailable):
            await peer.write(bus, "x")
        other = (await peer.open("other")).bus
        assert await peer.write(other, "not held up") == 1


async def test_a_filter_s_answer_is_of_the_emitted_type() -> None:
    async with running(filters=FILTERS) as broker:
        peer, bus = await _filtered(broker, "signed", schema={"type": "string"}, emits={"type": "integer"})
        with pytest.raises(TypeMismatch, match="its filter's answer"):
            await peer.write(bus, "x")


async def test_a_filter_that_is_not_installed_makes_no_bus() -> None:
    async with running(filters=FILTERS) as broker:
        peer = await Peer.join(broker)
        await peer.send(frames.Open(1, "server", "clean", {"filter": "nope"}))
        assert "later" in str(await peer.refusal())


# --- order ----------------------------------------------------------------------------------------------------------


async def test_nobody_hears_what_is_not_kept() -> None:
    """Log before fan-out, whatever the backend's pace."""
    gate = asyncio.Event()

    class Slow(MemoryBackend):
        async def append(self, batch: Sequence[Entry]) -> list[int]:
            await gate.wait()
            return await super().append(batch)

        def append_now(self, batch: Sequence[Entry]) -> list[int] | None:
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
