"""Code that others bring: authorizers, and filters in the server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ebus_jupyter.broker.host import Broker
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import Filtered, FilterUnavailable, Forbidden, NoSuchBus, Reject, TypeMismatch

from .peer import Peer
from .running import running

pytestmark = pytest.mark.asyncio


# --- the authorizer ---------------------------------------------------------------------------------------------------


async def test_authorizer_is_asked_about_each_bus_once() -> None:
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


async def test_failing_authorizer_denies_access(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(bus: Address, action: str) -> bool:
        if action == "write":
            raise RuntimeError("no directory")
        return True

    async with running() as broker:
        maker, peer = await Peer.join(broker), await Peer.join(broker, "eve", authorize=broken)
        await maker.open("votes")
        with pytest.raises(NoSuchBus):
            await peer.open("votes")
        assert "ebus: authorizer_failed connection=2 bus=ebus:server/votes: " in caplog.text
        assert await maker.write((await maker.open("votes")).bus, "hi") == 1


# --- filters ----------------------------------------------------------------------------------------------------------


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


async def test_async_filter_changes_the_value() -> None:
    async with running(filters=FILTERS) as broker:
        peer, bus = await _filtered(broker, "later")
        for word in ("tea", "milk"):
            await peer.publish(bus, word)
        assert await peer.values(2) == ["TEA", "MILK"]


async def test_filter_sees_the_stamped_sender() -> None:
    async with running(filters=FILTERS) as broker:
        peer, bus = await _filtered(broker, "signed")
        await peer.publish(bus, "tea")
        assert await peer.values(1) == [["ann", "page", "tea"]]


async def test_filter_rejects_a_write() -> None:
    async with running(filters=FILTERS) as broker:
        peer, bus = await _filtered(broker, "picky")
        with pytest.raises(Filtered, match="mind your language"):
            await peer.write(bus, "bad")
        assert await peer.write(bus, "good") == 1


@pytest.mark.parametrize("name", ["broken", "odd"])
async def test_failing_filter_accepts_nothing(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with running(filters=FILTERS) as broker:
        peer, bus = await _filtered(broker, name)
        with pytest.raises(FilterUnavailable, match=name):
            await peer.write(bus, "x")
        assert f"filter '{name}' failed" in caplog.text
        assert (await peer.open("other")).last == 0


async def test_hanging_filter_is_cancelled() -> None:
    async with running(filters=FILTERS, limits={"filter_seconds": 0.02}) as broker:
        peer, bus = await _filtered(broker, "never")
        with pytest.raises(FilterUnavailable):
            await peer.write(bus, "x")
        other = (await peer.open("other")).bus
        assert await peer.write(other, "not held up") == 1


async def test_filter_answer_must_match_the_emitted_type() -> None:
    async with running(filters=FILTERS) as broker:
        peer, bus = await _filtered(broker, "signed", schema={"type": "string"}, emits={"type": "integer"})
        with pytest.raises(TypeMismatch, match="its filter's answer"):
            await peer.write(bus, "x")


async def test_unknown_filter_creates_no_bus() -> None:
    async with running(filters=FILTERS) as broker:
        peer = await Peer.join(broker)
        await peer.send(frames.Open(1, "server", "clean", {"filter": "nope"}))
        assert "later" in str(await peer.refusal())
