"""Law 8: everything is bounded, and an error names the bound that was reached."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import OWNER
from ebus_jupyter.errors import Conflict, RateLimited, TooLarge
from tests.core.play import Play, Raw, pack


def test_law_8_connections_are_bounded():
    play = Play(limits=Limits(connections=1))
    play.player().opened()
    late = Raw(play)
    (bye,) = late.heard()
    assert (bye.code, bye.reconnect, late.hung_up) == ("too_large", True, True)
    assert "`connections`" in bye.text


@pytest.mark.parametrize("limits", [Limits(buses=2), Limits(buses_per_participant=2)])
def test_law_8_open_buses_are_bounded(limits):
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
def test_law_8_each_part_of_a_write_is_bounded(limit, given, write, how):
    play = Play(limits=Limits(value_bytes=100, recipients=2, name_chars=30))
    alice = play.player()
    bus = alice.opened(**given)
    with pytest.raises(TooLarge) as refused:
        alice.written(bus, write, **how)
    assert refused.value.limit == limit


def test_law_8_keys_are_bounded():
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


def test_law_8_presence_state_is_bounded():
    play = Play(limits=Limits(presence_bytes=10))
    alice = Raw(play, "alice").hello()
    (opened,) = alice.say(frames.Open(1, "server", "votes"))
    (error,) = alice.say(frames.SetPresence(opened.bus, msgspec.Raw(pack("x" * 20))))
    assert (error.code, error.details) == ("too_large", {"limit": "presence_bytes"})


@pytest.mark.parametrize(("kind", "limit"), [("page", "publish_rate"), ("kernel", "kernel_publish_rate")])
def test_law_8_publish_rate_allows_a_burst_and_refills(kind, limit):
    play = Play(limits=Limits(publish_burst=2, **{limit: 2.0}))
    mallory = Raw(play, "mallory", kind, "k1" if kind == "kernel" else "").hello()  # a client that never waits
    (opened,) = mallory.say(frames.Open(1, "server", "votes"))

    def write(id_: int) -> Any:
        return mallory.say(frames.Publish(opened.bus, id_, frames.NIL))[0]

    assert [write(n).offset for n in range(1, 5)] == [1, 2, 3, 4]
    refused = write(5).exception()
    assert isinstance(refused, RateLimited)
    assert (refused.limit, refused.retry_after) == ("publish_rate", pytest.approx(0.5))
    play.pass_time(refused.retry_after)
    assert write(6).offset == 5


def test_law_8_writes_behind_a_refused_one_wait_for_a_ping():
    play = Play(limits=Limits(publish_burst=2, publish_rate=1.0))
    alice = Raw(play)
    alice.say(frames.Hello(frames.VERSION, alice.player.session.instance, resends=True))
    (opened,) = alice.say(frames.Open(1, "server", "votes"))
    writes = [frames.Publish(opened.bus, n, frames.NIL) for n in range(1, 6)]
    assert [answer.id for answer in alice.say(*writes[:3]) if isinstance(answer, frames.Error)] == [3]
    play.pass_time(10)
    (error,) = alice.say(writes[3])
    assert (error.code, error.details["limit"]) == ("rate_limited", "publish_rate")
    _, error = alice.say(frames.Ping(0), writes[3])  # a sign of life, of a client that may not know
    assert (error.id, error.code) == (4, "rate_limited")
    _, *answers = alice.say(frames.Ping(1), writes[2], writes[3])
    assert {answer.id: answer.offset for answer in answers} == {3: 3, 4: 4}


def test_law_5_retry_is_answered_even_when_rate_limited():
    play = Play(limits=Limits(publish_rate=1.0, publish_burst=2))
    alice = play.player()
    bus = alice.opened()
    ids = [alice.write(bus, n) for n in range(2)]
    alice.say()
    alice.lose()
    alice.connect()
    play.settle()
    assert [alice.answer(id_) for id_ in ids] == [1, 2]


def test_law_8_writes_waiting_for_a_filter_are_bounded():
    play = Play(limits=Limits(pending=2))
    owner, alice = play.kernel(), play.player("alice")
    owner.opened(filter=OWNER)
    bus = alice.opened()
    ids = [alice.write(bus, n, wait=False) for n in range(3)]
    play.settle()
    with pytest.raises(RateLimited, match="`pending`"):
        alice.answer(ids[2])


def test_law_8_writes_waiting_for_offsets_are_bounded():
    play = Play(limits=Limits(pending=2))
    alice = play.player("alice")
    bus = alice.opened()
    play.logs_work = False
    ids = [alice.write(bus, 1), *(alice.write(bus, n, expect=1, wait=False) for n in range(3))]
    alice.say()
    play.logs_work = True
    play.settle()
    assert (alice.answer(ids[0]), alice.answer(ids[1])) == (1, 2)
    with pytest.raises(Conflict):
        alice.answer(ids[2])
    with pytest.raises(RateLimited):
        alice.answer(ids[3])
