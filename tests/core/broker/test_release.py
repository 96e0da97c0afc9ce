"""A bus that is closed or deleted leaves memory at once: reference counts alone release it, as nothing large is in a cycle."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import msgspec
import pytest

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import OWNER
from ebus_jupyter.errors import EbusError, Reject
from tests.core.play import Play, pack


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def parts_of(play: Play, uri: str) -> list[weakref.ref]:
    bus = play.broker.registry.buses[uri]
    return [weakref.ref(bus), weakref.ref(bus.log), weakref.ref(bus.admission), weakref.ref(bus.presence)]


def use(play, bus, who, **how):
    """Write, be refused in every way, read, and set presence."""
    reader = who.reader(bus, "start")
    for value in ("good", 5, "good again"):
        who.write(bus, value, **how)
    who.write(bus, "conflict", expect=77, **how)
    who.send(frames.join([frames.encode(frames.Publish(bus.number, 1, msgspec.Raw(pack("retry"))))]))
    who.session.set_presence(bus, pack({"typing": True}))
    play.settle()
    who.values(reader)


@pytest.mark.parametrize("retain", ["log", "latest", "keys"])
@pytest.mark.parametrize("end", ["unload", "delete", "disconnect"])
def test_named_bus_is_released(play, retain, end):
    alice = play.player()
    bus = alice.opened(retain=retain, schema={"type": "string"})
    use(play, bus, alice, **({"key": "a"} if retain == "keys" else {}))
    parts = parts_of(play, bus.uri)
    if end == "delete":
        alice.reply(alice.session.delete(bus))
    else:
        if end == "unload":
            alice.session.leave(bus)
            play.settle()
        else:
            alice.lose()
        for _ in range(3):
            play.pass_time(play.limits.creator_seconds + 1)
    play.settle()
    assert [part() for part in parts] == [None] * 4


def test_unnamed_bus_is_released(play):
    alice = play.player()
    bus = alice.opened(None)
    use(play, bus, alice)
    parts = parts_of(play, bus.uri)
    alice.session.leave(bus)
    play.settle()
    assert [part() for part in parts] == [None] * 4


def test_filtered_bus_is_released_with_all_its_refusals():
    def upset(value, sender):
        if value == 5:
            raise Reject("no fives")
        return value if value == "good" else 7  # 7 is not of the bus's type

    play = Play(limits=Limits(filter_seconds=1))
    owner, alice = play.kernel(), play.player("bob")
    bus = owner.opened(filter=OWNER, emits={"type": "string"})
    his = alice.opened()
    owner.filter = upset
    use(play, his, alice)
    owner.filter = None
    alice.write(his, "unanswered")
    play.settle()
    parts = parts_of(play, bus.uri)
    play.pass_time(2)
    play.pass_time(2)
    owner.asked.clear()
    owner.reply(owner.session.delete(bus))
    assert [part() for part in parts] == [None] * 4


def test_connection_is_released(play):
    alice = play.player()
    bus = alice.opened(schema={"type": "string"})
    use(play, bus, alice)
    with pytest.raises(EbusError):
        alice.opened("other", scope="hub")
    conn = weakref.ref(play.broker._connections[alice.conn])
    alice.lose()
    assert conn() is None


def test_channel_of_a_client_is_released(play):
    alice = play.player()
    bus = alice.opened(schema={"type": "string"})
    use(play, bus, alice)
    log, channel = weakref.ref(bus.log), weakref.ref(bus)
    alice.session.leave(bus)
    play.settle()
    alice.answers.clear()
    del bus
    alice._readers.clear()
    alice.refused.clear()
    assert (log(), channel()) == (None, None)
