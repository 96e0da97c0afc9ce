"""The broker against everybody: two who mean well, and many who don't. Laws 6, 7 and 8."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import OWNER
from ebus_jupyter.errors import (
    BackendError,
    Conflict,
    EbusError,
    FilterUnavailable,
    Forbidden,
    InvalidName,
    NoSuchBus,
    RateLimited,
    SpecConflict,
    TooLarge,
    TypeMismatch,
    UnknownScope,
)
from tests.core.play import SECRET, Play, Raw, pack, unpack

HUGE = [0, -1, -(1 << 63), (1 << 63) - 1, (1 << 64) - 1]


def test_two_clients_with_nothing_but_function_calls(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened("votes", size=10), bob.opened("votes")
    she_hears, he_hears = alice.reader(hers), bob.reader(his)
    assert alice.written(hers, "tea") == 1
    assert bob.written(his, "coffee") == 2
    assert alice.values(she_hears) == bob.values(he_hears) == ["tea", "coffee"]
    assert bob.values(bob.reader(his, "start")) == ["tea", "coffee"]


# --- law 6: identity ------------------------------------------------------------------------------------------------


def test_law_6_a_message_says_who_wrote_it_by_the_connection_alone(play):
    kernel = play.player("alice", "kernel", "k1", groups=("staff",))
    bus = kernel.opened()
    hears = kernel.reader(bus)
    kernel.written(bus, {"sender": "bob", "user": "root"})
    sender = kernel.read(hears)[0].sender
    assert (sender.kind, sender.user, sender.name, sender.kernel_id) == ("kernel", "alice", "Alice", "k1")
    assert sender.groups == (), "groups are nobody else's business"


def test_law_6_nobody_sees_the_instance_that_a_client_answers_to(play):
    alice = play.player("alice")
    bus = alice.opened()
    bob = Raw(play, "bob").hello()
    (opened,) = bob.say(frames.Open(1, "server", "votes"))
    bob.say(frames.SetPresence(opened.bus, watch=True), frames.Subscribe(2, opened.bus))
    alice.written(bus, "tea")
    heard = bob.heard()
    assert alice.session.instance not in repr(heard)


def test_law_6_one_instance_is_one_participant_and_its_old_connection_ends(play):
    alice = play.player("alice")
    bus = alice.opened()
    again = Raw(play, "alice")
    (bye, *_) = again.say(frames.Hello(frames.VERSION, alice.session.instance)), alice.hear()
    assert isinstance(bye[0], frames.Welcome)
    assert alice.ended is not None
    assert "connected again" in str(alice.ended.error)
    assert len(play.broker._buses) == 1
    assert bus.participants == {}


# --- law 7: scopes --------------------------------------------------------------------------------------------------

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
def test_law_7_a_number_that_was_not_given_to_this_connection_opens_nothing(play, trespass):
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
def test_law_7_no_number_is_too_strange_to_be_refused(play, trespass, number):
    (answer,) = Raw(play).hello().say(trespass(number))
    assert answer.code == "no_such_bus"


def owned(play: Play, scope: str) -> str:
    """A bus of alice's, in a scope that mallory is not in; returns its name."""
    alice = play.kernel("alice", "k1")
    bus = alice.opened(None if scope == "unnamed" else "diary", "server" if scope == "unnamed" else scope)
    alice.written(bus, "secret")
    assert bus.name is not None
    return bus.name


@pytest.mark.parametrize(
    ("scope", "owner"),
    [("kernel", "k1"), ("user", "alice"), ("server", "alice"), ("hub", "alice"), ("hub:staff", "k1")],
)
def test_law_7_someone_elses_bus_looks_like_one_that_does_not_exist(scope, owner):
    play = Play(shared=True)
    for kind in ("kernel", "user"):
        owned(play, kind)
    mallory = Raw(play, "mallory", "kernel", "k2").hello()

    def asked(name: str, cap: str = "") -> str:
        (answer,) = mallory.say(frames.Open(1, scope, name, {}, owner, cap, create=False))
        return answer.code, answer.text.replace(name, "NAME")

    assert asked("diary") == asked("nothing") == asked("diary", "0" * 40) == asked("diary", "é")
    assert asked("diary")[0] == "no_such_bus"


def test_law_7_an_unnamed_bus_opens_with_its_capability_only(play):
    name = owned(play, "unnamed")
    maker = next(bus for bus in play.broker._buses.values())
    mallory = Raw(play).hello()
    for cap in ("", "0" * 40, maker.address.capability(b"guess")):
        (answer,) = mallory.say(frames.Open(1, "server", name, {}, "", cap))
        (other,) = mallory.say(frames.Open(1, "server", "~" + "0" * 32, {}, "", cap))
        assert answer.code == other.code
        assert answer.code in ("no_such_bus", "invalid_name")
    (opened,) = mallory.say(frames.Open(1, "server", name, {}, "", maker.address.capability(SECRET)))
    assert isinstance(opened, frames.Opened)


def test_law_7_a_capability_opens_one_bus_and_no_other(play):
    kernel = play.kernel("alice", "k1")
    shown, hidden = kernel.opened("shown", "kernel"), kernel.opened("hidden", "kernel")
    page = play.player("bob", "page")
    assert page.opened("shown", "kernel", owner="k1", cap=shown.cap).is_open
    with pytest.raises(NoSuchBus):
        page.opened("hidden", "kernel", owner="k1", cap=shown.cap)
    assert hidden.cap != shown.cap


def test_law_7_a_list_holds_only_what_is_within_reach(play):
    owned(play, "user"), owned(play, "kernel"), owned(play, "unnamed")
    alice, mallory = play.kernel("alice", "k9"), play.kernel("mallory", "k2")
    alice.opened("public")
    alice.opened("members", writers=["alice"], readers=["alice"])

    def names(who):
        return [bus["name"] for bus in who.reply(who.session.list_buses()).buses]

    assert names(mallory) == ["public"]
    assert names(alice) == ["members", "public", "diary"]


def test_law_7_who_may_not_read_a_bus_learns_nothing_of_its_making(play):
    play.player("alice").opened("members", readers=["alice"], writers=["alice"], size=77)
    mallory = play.player("mallory")
    with pytest.raises(NoSuchBus) as refused:
        mallory.opened("members", size=5)
    assert "77" not in str(refused.value) + repr(refused.value.details)


def test_an_access_list_parts_reading_from_writing(play):
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
def test_the_authorizer_is_asked_for_each_bus(read, write):
    play = Play(authorize=lambda who, address: (True, True) if who.user == "alice" else (read, write))
    alice, bob = play.player("alice"), play.player("bob")
    alice.written(alice.opened(), "hello")
    if not read and not write:
        with pytest.raises(NoSuchBus):
            bob.opened()
        assert not play.broker._conns[bob.conn].permits, "what was refused is not remembered for ever"
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


def test_who_only_looks_on_can_neither_write_nor_make_a_bus(play):
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


# --- rubbish --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [frames.Ping(1), frames.Open(1, "server", "votes"), frames.List(1)])
def test_nothing_is_heard_before_hello(play, frame):
    mallory = Raw(play)
    (bye,) = mallory.say(frame)
    assert (bye.code, bye.reconnect, mallory.hung_up) == ("protocol", False, True)
    assert "say hello first" in bye.text
    assert not play.durable._buses


@pytest.mark.parametrize("instance", ["", "0" * 31, "0" * 33, "g" * 32, "A" * 32, "٣" * 32, "0" * 100_000])
def test_a_hello_needs_an_instance(play, instance):
    mallory = Raw(play)
    (bye,) = mallory.say(frames.Hello(frames.VERSION, instance))
    assert (bye.code, mallory.hung_up) == ("protocol", True)
    assert len(bye.text) < 200


def test_hello_comes_once(play):
    mallory = Raw(play).hello()
    (bye,) = mallory.say(frames.Hello(frames.VERSION, "0" * 32))
    assert "once" in bye.text


@pytest.mark.parametrize(
    ("version", "who"), [(0, "client"), (2, "server"), (-(1 << 63), "client"), ((1 << 64) - 1, "server")]
)
def test_another_version_is_told_who_must_be_updated(play, version, who):
    (bye,) = Raw(play).say(frames.Hello(version, "0" * 32))
    assert (bye.code, bye.reconnect) == ("protocol", False)
    assert f"update ebus_jupyter on the {who}'s side" in bye.text


@pytest.mark.parametrize("said", [b"", b"hello", b"\xc1", b"\x91\x91\x63", b"\xdd\xff\xff\xff\xff"])
def test_a_malformed_frame_ends_its_connection_and_nothing_else(play, said):
    alice = play.player("alice")
    bus = alice.opened()
    mallory = Raw(play).hello()
    (bye,) = mallory.shout(said)
    assert (bye.code, bye.reconnect, mallory.hung_up) == ("protocol", False, True)
    assert mallory.shout(said) == []
    assert alice.written(bus, "tea") == 1


@pytest.mark.parametrize(
    "value",
    [
        b"\xa2\xff\xff",  # text that is no UTF-8
        b"\x81\xa1a\xa1\xff",
        b"\x81\x80\x01",  # a key that can't be one
        b"\xc7\x0c\xff" + b"\xff" * 12,  # a time that is none
        b"\xd4\x05\x00",  # an extension that nobody knows
        b"\xc7\x03\x01abc",  # an array that is none
        b"\x91" * 3000 + b"\x01",  # deeper than anyone can read
    ],
)
def test_no_value_gets_in_that_others_could_not_read(play, value):
    mallory = Raw(play).hello()
    (opened,) = mallory.say(frames.Open(1, "server", "votes"))
    answers = mallory.say(
        frames.Publish(opened.bus, 1, msgspec.Raw(value)), frames.SetPresence(opened.bus, msgspec.Raw(value))
    )
    assert {answer.code for answer in answers} <= {"type_mismatch", "protocol"}
    assert answers
    assert play.kept == []


def test_a_removal_carries_nothing_in(play):
    mallory = Raw(play).hello()
    (opened,) = mallory.say(frames.Open(1, "server", "votes", {"retain": "keys"}))
    mallory.say(frames.Publish(opened.bus, 1, msgspec.Raw(b"\xa2\xff\xff"), key="a", deleted=True))
    assert [entry.value for entry in play.kept] == [b"\xc0"]


@pytest.mark.parametrize("after", HUGE)
@pytest.mark.parametrize("until", HUGE)
def test_no_number_is_too_large_to_read_from(play, after, until):
    alice = play.player("alice")
    alice.written(alice.opened(size=2), "tea")
    mallory = Raw(play).hello()
    (opened,) = mallory.say(frames.Open(1, "server", "votes"))
    answers = mallory.say(
        frames.Fetch(2, opened.bus, after, until),
        frames.Subscribe(3, opened.bus, opened.epoch, after, "x-" + "9" * 9999),
        frames.Subscribe(until, opened.bus, "another epoch", after, "\0"),
        frames.Publish(opened.bus, 1, frames.NIL, expect=after),
        frames.Ping(after),
    )
    assert [type(answer).__name__ for answer in answers if not isinstance(answer, frames.Delivery)] == [
        "Page", "Subscribed", "Subscribed", "Error", "Pong",
    ]  # fmt: skip


ADVERSARY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.sampled_from(["server", "user", "kernel", "votes", "size", "schema", "filter", "@owner"]),
)
ANY = st.recursive(
    ADVERSARY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.tuples(st.integers(1, 13), st.lists(ANY, max_size=8)), min_size=1, max_size=6))
def test_whatever_a_client_says_the_broker_answers_and_goes_on(said):
    play = Play()
    alice = play.player("alice")
    bus = alice.opened()
    mallory = Raw(play).hello()
    for tag, fields in said:
        if mallory.hung_up:
            mallory = Raw(play).hello()
        mallory.shout(pack([[tag, *fields]]))
        mallory.say(frames.Ping(1))
    play.pass_time(100)
    assert alice.written(bus, "tea") == play.kept[-1].offset


@pytest.mark.parametrize(
    "given",
    [
        {"schema": {"type": "nonsense"}},
        {"schema": {"$ref": "http://elsewhere.example/schema"}},
        {"schema": {"$ref": "file:///etc/passwd"}},
        {"schema": {"pattern": "(a"}},
        {"emits": {"type": 5}},
        {"filter": "of my own"},
        {"retain": "everything"},
        {"maker": "alice"},
        {"colour": "red"},
    ],
)
def test_a_bus_that_could_not_work_is_not_begun(play, given):
    with pytest.raises(SpecConflict):
        play.player().opened("broken", **given)
    assert not play.durable._buses
    assert play.player().opened("broken").is_open


def test_a_schema_may_refer_to_itself_without_end(play):
    alice = play.player()
    bus = alice.opened(schema={"allOf": [{"$ref": "#"}]})
    assert alice.written(bus, {"a": 1}) == 1


@pytest.mark.parametrize(
    ("scope", "name", "error", "says"),
    [
        ("galaxy", "votes", UnknownScope, "choose one of kernel, user, server, hub"),
        ("hub", "votes", UnknownScope, "jupyter ebus serve"),
        ("server", "no spaces", InvalidName, "use 1 to 128 letters"),
        ("server", "~votes", NoSuchBus, "within your reach"),
        ("server", "x" * 129, InvalidName, "use 1 to 128 letters"),
        ("kernel", "votes", Forbidden, "open the bus in the kernel"),
    ],
)
def test_a_bad_question_is_told_what_to_ask_instead(play, scope, name, error, says):
    with pytest.raises(error, match=says):
        play.player().opened(name, scope)


# --- law 8: bounds --------------------------------------------------------------------------------------------------


def test_law_8_connections():
    play = Play(limits=Limits(connections=1))
    play.player().opened()
    late = Raw(play)
    (bye,) = late.heard()
    assert (bye.code, bye.reconnect, late.hung_up) == ("too_large", True, True)
    assert "`connections`" in bye.text


@pytest.mark.parametrize("limits", [Limits(buses=2), Limits(buses_per_participant=2)])
def test_law_8_buses(limits):
    play = Play(limits=limits)
    alice = play.player()
    for name in ("one", "two"):
        alice.opened(name)
    with pytest.raises(TooLarge) as refused:
        alice.opened("three")
    assert refused.value.limit in ("buses", "buses_per_participant")
    assert f"`{refused.value.limit}`" in str(refused.value)
    assert set(play.durable._buses) == {"ebus:server/one", "ebus:server/two"}, "what is refused leaves nothing behind"
    assert alice.opened("two").is_open


@pytest.mark.parametrize(
    ("limit", "given", "write", "how"),
    [
        ("value_bytes", {}, "x" * 200, {}),
        ("recipients", {}, 1, {"to": ["a", "b", "c"]}),
        ("name_chars", {}, 1, {"to": ["x" * 40]}),
        ("name_chars", {"retain": "keys"}, 1, {"key": "x" * 40}),
    ],
)
def test_law_8_a_write(limit, given, write, how):
    play = Play(limits=Limits(value_bytes=100, recipients=2, name_chars=30))
    alice = play.player()
    bus = alice.opened(**given)
    with pytest.raises(TooLarge) as refused:
        alice.written(bus, write, **how)
    assert refused.value.limit == limit


def test_law_8_keys():
    play = Play()
    alice = play.player()
    bus = alice.opened(retain="keys", size=2)
    answers = [alice.write(bus, 1, key=key) for key in ("a", "b", "c", "a")]
    play.settle()
    with pytest.raises(TooLarge, match="Remove a key first"):
        alice.answer(answers[2])
    assert [alice.answer(answers[n]) for n in (0, 1, 3)] == [1, 2, 3]
    alice.written(bus, None, key="b", deleted=True)
    assert alice.written(bus, 1, key="c") == 5


def test_law_8_presence():
    play = Play(limits=Limits(presence_bytes=10))
    alice = Raw(play, "alice").hello()
    (opened,) = alice.say(frames.Open(1, "server", "votes"))
    (error,) = alice.say(frames.SetPresence(opened.bus, msgspec.Raw(pack("x" * 20))))
    assert (error.code, error.details) == ("too_large", {"limit": "presence_bytes"})


@pytest.mark.parametrize(("kind", "limit"), [("page", "publish_rate"), ("kernel", "kernel_publish_rate")])
def test_law_8_a_rate_with_a_burst_that_time_refills(kind, limit):
    play = Play(limits=Limits(publish_burst=2, **{limit: 2.0}))
    alice = play.player("alice", kind, "k1" if kind == "kernel" else "")
    bus = alice.opened()
    assert [alice.written(bus, n) for n in range(4)] == [1, 2, 3, 4]
    with pytest.raises(RateLimited, match="publish_rate") as refused:
        alice.written(bus, "five")
    assert refused.value.retry_after == pytest.approx(0.5)
    play.pass_time(refused.value.retry_after)
    assert alice.written(bus, "five") == 5


def test_law_5_a_retry_is_answered_even_where_a_new_write_is_too_many():
    play = Play(limits=Limits(publish_rate=1.0, publish_burst=2))
    alice = play.player()
    bus = alice.opened()
    ids = [alice.write(bus, n) for n in range(2)]
    alice.say()
    alice.lose()
    alice.connect()
    play.settle()
    assert [alice.answer(id_) for id_ in ids] == [1, 2]


def test_law_8_writes_that_wait_for_a_filter():
    play = Play(limits=Limits(pending=2))
    owner, alice = play.kernel(), play.player("alice")
    owner.opened(filter=OWNER)
    bus = alice.opened()
    ids = [alice.write(bus, n) for n in range(3)]
    play.settle()
    with pytest.raises(RateLimited, match="`pending`"):
        alice.answer(ids[2])


def test_law_8_writes_that_wait_for_others_offsets():
    play = Play(limits=Limits(pending=2))
    alice = play.player("alice")
    bus = alice.opened()
    play.logs_work = False
    ids = [alice.write(bus, 1), *(alice.write(bus, n, expect=1) for n in range(3))]
    alice.say()
    play.logs_work = True
    play.settle()
    assert (alice.answer(ids[0]), alice.answer(ids[1])) == (1, 2)
    with pytest.raises(Conflict):
        alice.answer(ids[2])
    with pytest.raises(RateLimited):
        alice.answer(ids[3])


# --- lives ----------------------------------------------------------------------------------------------------------


def test_an_unnamed_bus_goes_with_its_maker_after_a_grace(play):
    kernel, page = play.kernel(), play.player("bob", "page")
    bus = kernel.opened(None, "server")
    hers = page.opened(bus.name, "server", cap=bus.cap)
    kernel.lose()
    play.pass_time(play.limits.creator_seconds - 1)
    kernel.connect()
    play.settle()
    assert kernel.written(bus, "back in time") == 1
    kernel.lose()
    page.lose()
    page.connect()  # others' coming and going does not keep it
    play.pass_time(play.limits.creator_seconds + 1)
    play.settle()
    assert hers in page.refused
    assert "its maker has gone" in str(page.refused[hers]) or isinstance(page.refused[hers], NoSuchBus)
    assert not play.volatile._buses


def test_an_unnamed_bus_whose_maker_never_heard_of_it_is_not_kept(play):
    kernel = play.kernel()
    kernel.open(None, "server")
    play.logs_work = False
    kernel.say()
    kernel.lose()
    play.logs_work = True
    play.work()
    play.pass_time(play.limits.creator_seconds + 1)
    assert not play.volatile._buses
    assert play.broker.counts() == {"connections": 0, "buses": 0}


def test_its_maker_closes_an_unnamed_bus_for_everyone(play):
    kernel, page = play.kernel(), play.player("bob", "page")
    bus = kernel.opened(None, "server")
    hers = page.opened(bus.name, "server", cap=bus.cap)
    kernel.session.leave(bus)
    play.settle()
    assert "its maker has closed" in str(page.refused[hers])


def test_a_kernels_scope_ends_with_its_shutdown(play):
    kernel, other = play.kernel("alice", "k1"), play.kernel("alice", "k2")
    bus, stays = kernel.opened("votes", "kernel"), other.opened("votes", "kernel")
    play.do(play.broker.end_kernel("k1"))
    play.settle()
    assert "its kernel was shut down" in str(kernel.refused[bus])
    assert other.written(stays, 1) == 1


def test_a_named_bus_that_nobody_uses_rests_in_its_log(play):
    alice = play.player()
    alice.written(alice.opened(size=5), "tea")
    alice.lose()
    play.pass_time(play.limits.gone_seconds + 1)
    play.pass_time(play.limits.creator_seconds + 1)
    assert play.broker.counts()["buses"] == 0
    bob = play.player("bob")
    assert bob.values(bob.reader(bob.opened(size=5), "start")) == ["tea"]


def test_deleting_says_who_did_it_and_begins_another_history(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    alice.written(hers, "tea")
    hears = bob.reader(his)
    alice.reply(alice.session.delete(hers))
    play.settle()
    with pytest.raises(EbusError, match="alice has deleted votes"):
        bob.read(hears)
    again = bob.opened()
    assert again.epoch != his.epoch
    assert bob.values(bob.reader(again, "start")) == []


def test_a_deletion_is_told_when_the_log_has_carried_it_out_and_not_before(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    hears = bob.reader(his)
    play.logs_work = False
    req = alice.session.delete(hers)
    play.settle()
    assert req not in alice.replies
    assert bob.read(hears) == []  # for him it has not ended yet
    play.logs_work = True
    play.settle()
    assert req in alice.replies
    with pytest.raises(EbusError, match="alice has deleted votes"):
        bob.read(hears)


def test_what_the_log_could_not_keep_is_told_and_may_be_tried_again(play):
    alice = play.player()
    bus = alice.opened()
    play.failing = BackendError("the disk is full; free some space.")
    with pytest.raises(BackendError, match="free some space") as refused:
        alice.written(bus, "tea")
    assert refused.value.temporary
    play.failing = None
    assert alice.written(bus, "tea") == 1


# --- filters in the server ------------------------------------------------------------------------------------------


def test_a_filter_in_the_server_sees_who_wrote_and_changes_what_is_kept():
    play = Play(filters={"stamp": lambda value, sender: f"{sender.user}: {value}"})
    alice, bob = play.player("alice"), play.player("bob")
    bus = alice.opened(filter="stamp", emits={"type": "string"}, schema={"type": "string"})
    hears = bob.reader(bob.opened())
    alice.written(bus, "hi")
    assert bob.values(hears) == ["alice: hi"]


def test_a_filter_that_answers_another_type_than_it_promised_keeps_nothing():
    play = Play(filters={"stamp": lambda value, sender: 5})
    alice = play.player("alice")
    bus = alice.opened(filter="stamp", emits={"type": "string"})
    with pytest.raises(TypeMismatch, match="its filter's answer"):
        alice.written(bus, "hi")
    assert play.kept == []


def test_only_the_makers_user_can_offer_to_filter(play):
    play.kernel("alice", "k1").opened("clean", filter=OWNER)
    with pytest.raises(Forbidden, match="filtered by alice"):
        play.kernel("mallory", "k2").opened("clean", filter=OWNER)
    bob = play.player("bob")
    bus = bob.opened("clean")
    id_ = bob.write(bus, "x")
    bob.say()
    mallory = Raw(play).hello()
    (opened,) = mallory.say(frames.Open(1, "server", "clean"))
    assert mallory.say(*(frames.FilterAnswer(opened.bus, ask, msgspec.Raw(pack("forged"))) for ask in range(5))) == []
    assert play.kept == []
    assert id_ not in bob.answers


def test_an_owner_that_is_away_lets_nothing_through_unfiltered(play):
    owner, bob = play.kernel("alice", "k1"), play.player("bob")
    owner.opened("clean", filter=OWNER)
    bus = bob.opened("clean")
    owner.lose()
    with pytest.raises(FilterUnavailable, match="nothing is accepted unfiltered"):
        bob.written(bus, "x")
    owner.connect()
    owner.filter = lambda value, sender: value.upper()
    play.settle()
    assert bob.written(bus, "x") == 1
    assert unpack(play.kept[0].value) == "X"
