"""Backends that fail, and what their failure reaches."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.core.broker.entry import Entry
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.errors import BackendError, TooLarge

from .peer import Peer
from .running import running

pytestmark = pytest.mark.asyncio


class Failing(MemoryBackend):
    """Fails while it has a failure to raise."""

    failure: Exception | None = None

    def _check_open(self) -> None:
        if self.failure is not None:
            raise self.failure


@pytest.mark.parametrize("failure", [BackendError("the disk is full."), RuntimeError("a bug")])
async def test_failing_append_refuses_the_write_and_nothing_else(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Failing()
    async with running(backend) as broker:
        peer = await Peer.join(broker)
        bus = (await peer.open("votes")).bus
        await peer.subscribe(bus)
        private = (await peer.open(None)).bus
        backend.failure = failure
        with caplog.at_level(logging.ERROR, "ebus_jupyter"), pytest.raises(BackendError, match=str(failure)):
            await peer.write(bus, "lost")
        assert caplog.records
        assert await peer.write(private, "elsewhere") == 1
        assert str(failure) in str(broker.storage_failure)  # memory, which works, says nothing of it
        backend.failure = None
        await peer.publish(bus, "kept", id=2)
        assert await peer.values(1) == ["kept"]
        assert (await peer.expect(frames.Ok)).offset == 1
        assert broker.storage_failure is None


async def test_too_many_buses_is_refused_without_a_log_record(caplog: pytest.LogCaptureFixture) -> None:
    async with running(limits={"kept_buses": 2}) as broker:
        peer = await Peer.join(broker)
        votes = (await peer.open("votes")).bus
        await peer.open("teams")
        with pytest.raises(TooLarge, match="keeps 2 buses"):
            await peer.open("news")
        assert await peer.write(votes, "tea") == 1
    assert not caplog.records


class Wrong(MemoryBackend):
    """Answers appends with something other than the entries."""

    answer: Sequence[object] = ()
    at_once = False

    async def append(self, batch: Sequence[Entry]) -> Sequence[Entry]:
        return self.answer  # type: ignore[return-value]

    def append_now(self, batch: Sequence[Entry]) -> Sequence[Entry] | None:
        return self.answer if self.at_once else None  # type: ignore[return-value]


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("answer", [[], [1], ["one", "two"], [None]])
async def test_wrong_answer_of_a_backend_refuses_the_write(
    answer: list[object], at_once: bool, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Wrong()
    backend.answer, backend.at_once = answer, at_once
    async with running(backend) as broker:
        peer = await Peer.join(broker)
        bus = (await peer.open("votes")).bus
        private = (await peer.open(None)).bus
        with (
            caplog.at_level(logging.ERROR, "ebus_jupyter"),
            pytest.raises(BackendError, match="must return the entries themselves"),
        ):
            await peer.write(bus, "lost")
        assert "please report" in caplog.text
        assert await peer.write(private, "elsewhere", id=2) == 1


@pytest.mark.parametrize("failure", [BackendError("the file is damaged."), RuntimeError("it is damaged by a bug")])
async def test_unreadable_bus_is_not_created_again(failure: Exception) -> None:
    backend = Failing()
    async with running(backend) as broker:
        peer = await Peer.join(broker)
        backend.failure = failure
        with pytest.raises(BackendError, match="damaged"):
            await peer.open("votes")
        backend.failure = None
        assert (await peer.open("votes")).last == 0


@pytest.mark.parametrize("failure", [BackendError("the file is read-only."), RuntimeError("read-only by a bug")])
async def test_failing_deletion_is_reported_to_its_requester(failure: Exception) -> None:
    backend = Failing()
    async with running(backend) as broker:
        peer = await Peer.join(broker)
        bus = (await peer.open("votes")).bus
        await peer.write(bus, "kept")
        backend.failure = failure
        await peer.send(frames.Delete(2, bus))
        refusal = await peer.refusal()
        assert isinstance(refusal, BackendError)
        assert "read-only" in str(refusal)
        backend.failure = None
        assert (await peer.open("votes")).last == 1


async def test_impossible_message_id_affects_its_writer_only() -> None:
    async with running() as broker:
        good, bad = await Peer.join(broker), await Peer.join(broker, "eve")
        bus = (await good.open("votes")).bus
        await bad.open("votes")
        await bad.publish(bus, "x", id=1 << 63)
        assert (await bad.expect(frames.Bye)).code == "protocol"
        assert await good.write(bus, "tea") == 1
