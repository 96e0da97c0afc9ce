"""Law 7: a participant outside a bus's scope can't read it, write it, list it, or learn that it exists."""

from __future__ import annotations

import msgspec
import pytest

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.errors import Forbidden, NoSuchBus
from tests.core.play import SECRET, Play, Raw

HUGE = [0, -1, -(1 << 63), (1 << 63) - 1, (1 << 64) - 1]

TRESPASSES = [
    lambda bus: frames.Subscribe(1, bus),
    lambda bus: frames.Fetch(1, bus),
    lambda bus: frames.Publish(bus, 1, frames.NIL),
    lambda bus: frames.SetPresence(bus, watch=True),
    lambda bus: frames.SetPresence(bus, msgspec.Raw(b"\x01")),
    lambda bus: frames.FilterAnswer(bus, 1),
    lambda bus: frames.Delete(1, bus),
    lambda bus: frames.Unsubscribe(bus),
    lambda bus: frames.Leave(bus),
]


@pytest.mark.parametrize("trespass", TRESPASSES)
def test_law_7_bus_number_of_another_connection_opens_nothing(play, trespass):
    alice = play.player("alice")
    bus = alice.opened("diary", "user")
    alice.written(bus, "secret")
    mallory = Raw(play).hello()
    (true,) = mallory.say(trespass(bus.number))
    (guessed,) = mallory.say(trespass(12345))
    assert true.code == "no_such_bus"
    assert (true.code, true.text) == (guessed.code, guessed.text)
    assert alice.written(bus, "still here") == 2


@pytest.mark.parametrize("number", HUGE)
@pytest.mark.parametrize("trespass", TRESPASSES)
def test_law_7_out_of_range_bus_numbers_are_refused(play, trespass, number):
    (answer,) = Raw(play).hello().say(trespass(number))
    assert answer.code == "no_such_bus"


def owned(play: Play, scope: str) -> str:
    """Create a bus of alice's in a scope that mallory is not in, and return its name."""
    alice = play.kernel("alice", "k1")
    bus = alice.opened(None if scope == "unnamed" else "diary", "server" if scope == "unnamed" else scope)
    alice.written(bus, "secret")
    assert bus.name is not None
    return bus.name


@pytest.mark.parametrize(
    ("scope", "owner"),
    [("kernel", "k1"), ("user", "alice"), ("server", "alice"), ("hub", "alice"), ("hub:staff", "k1")],
)
def test_law_7_hidden_bus_looks_like_a_missing_one(scope, owner):
    play = Play(shared=True)
    for kind in ("kernel", "user"):
        owned(play, kind)
    mallory = Raw(play, "mallory", "kernel", "k2").hello()

    def asked(name: str, cap: str = "") -> str:
        (answer,) = mallory.say(frames.Open(1, scope, name, {}, owner, cap, create=False))
        return answer.code, answer.text.replace(name, "NAME")

    assert asked("diary") == asked("nothing") == asked("diary", "0" * 40) == asked("diary", "é")
    assert asked("diary")[0] == "no_such_bus"


def test_law_7_unnamed_bus_requires_its_capability(play):
    name = owned(play, "unnamed")
    maker = next(bus for bus in play.broker.registry.buses.values())
    mallory = Raw(play).hello()
    for cap in ("", "0" * 40, maker.info.address.capability(b"guess")):
        (answer,) = mallory.say(frames.Open(1, "server", name, {}, "", cap))
        (other,) = mallory.say(frames.Open(1, "server", "~" + "0" * 32, {}, "", cap))
        assert answer.code == other.code
        assert answer.code in ("no_such_bus", "invalid_name")
    (opened,) = mallory.say(frames.Open(1, "server", name, {}, "", maker.info.address.capability(SECRET)))
    assert isinstance(opened, frames.Opened)


def test_law_7_capability_opens_one_bus_only(play):
    kernel = play.kernel("alice", "k1")
    shown, hidden = kernel.opened("shown", "kernel"), kernel.opened("hidden", "kernel")
    page = play.player("bob", "page")
    assert page.opened("shown", "kernel", owner="k1", cap=shown.cap).is_open
    with pytest.raises(NoSuchBus):
        page.opened("hidden", "kernel", owner="k1", cap=shown.cap)
    assert hidden.cap != shown.cap


def test_law_7_list_holds_only_buses_within_reach(play):
    owned(play, "user"), owned(play, "kernel"), owned(play, "unnamed")
    alice, mallory = play.kernel("alice", "k9"), play.kernel("mallory", "k2")
    alice.opened("public")
    alice.opened("members", writers=["alice"], readers=["alice"])

    def names(who):
        return [bus["name"] for bus in who.reply(who.session.list_buses()).buses]

    assert names(mallory) == ["public"]
    assert names(alice) == ["members", "public", "diary"]


def test_law_7_refusal_does_not_reveal_the_spec(play):
    play.player("alice").opened("members", readers=["alice"], writers=["alice"], size=77)
    mallory = play.player("mallory")
    with pytest.raises(NoSuchBus) as refused:
        mallory.opened("members", size=5)
    assert "77" not in str(refused.value) + repr(refused.value.details)


# --- access lists and the authorizer ----------------------------------------------------------------------------------


def test_access_lists_separate_reading_from_writing(play):
    alice, bob = play.player("alice"), play.player("bob")
    news = alice.opened("news", writers=["alice"])
    box = alice.opened("box", readers=["alice"])
    with pytest.raises(Forbidden, match="bob may read news but not write to it"):
        bob.written(bob.opened("news"), "spam")
    his = bob.opened("box")
    assert bob.written(his, "a letter") == 1
    ear = bob.reader(his)
    with pytest.raises(Forbidden, match="bob may write to box but not read it"):
        ear.read_nowait()
    assert bob.written(his, "another") == 2
    assert news.is_open
    assert box.is_open


@pytest.mark.parametrize(("read", "write"), [(True, False), (False, True), (False, False)])
def test_authorizer_is_asked_about_each_bus(read, write):
    play = Play(authorize=lambda who, address: (True, True) if who.user == "alice" else (read, write))
    alice, bob = play.player("alice"), play.player("bob")
    alice.written(alice.opened(), "hello")
    if not read and not write:
        with pytest.raises(NoSuchBus):
            bob.opened()
        assert not play.broker._connections[bob.conn].permits, "a permit that was refused is not kept"
        return
    bus = bob.opened()
    number = frames.Publish(bus.number, 1, frames.NIL), frames.Fetch(1, bus.number)
    bob.send(frames.join([frames.encode(frame) for frame in number]))
    codes = [
        frame.code
        for raw, _ in bob.inbox
        for frame in frames.from_broker(frames.head(1) + raw)
        if hasattr(frame, "code")
    ]
    assert codes == ["forbidden"]


def test_read_only_connection_cannot_write_or_create(play):
    alice, guest = play.player("alice"), play.player("guest", may_write=False)
    with pytest.raises(NoSuchBus):
        guest.opened("votes")
    alice.written(alice.opened("votes"), "tea")
    bus = guest.opened("votes")
    assert guest.values(guest.reader(bus, "start")) == ["tea"]
    with pytest.raises(Forbidden):
        guest.written(bus, "coffee")
    with pytest.raises(Forbidden):
        guest.reply(guest.session.delete(bus))


def test_authorizer_is_asked_about_each_listed_bus():
    play = Play(authorize=lambda who, address: (who.user == "alice", who.user == "alice" or address.name == "box"))
    alice, bob = play.player("alice"), play.player("bob")
    for name in ("box", "hidden"):
        alice.opened(name)

    def names(player):
        return [bus["name"] for bus in player.reply(player.session.list_buses()).buses]

    assert names(alice) == ["box", "hidden"]
    assert names(bob) == ["box"]
