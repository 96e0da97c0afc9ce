"""A message of many frames is taken a slice at a time, so that others have their turn in between."""

from __future__ import annotations

import msgspec

from ebus_jupyter.core.broker.state import FRAMES_PER_SLICE
from ebus_jupyter.core.protocol import frames
from tests.core.play import Raw, pack

MANY = 3 * FRAMES_PER_SLICE + 5


def _publish(bus: int, *ids: int) -> list[frames.Publish]:
    return [frames.Publish(bus, id_, msgspec.Raw(pack(f"vote {id_}"))) for id_ in ids]


def _message(*said: frames.Frame) -> bytes:
    return frames.join([frames.encode(frame) for frame in said])


def _opened(play) -> tuple[Raw, int]:
    bob = Raw(play, "bob").hello()
    (opened,) = bob.say(frames.Open(1, "server", "votes"))
    return bob, opened.bus


def _ids(play) -> list[int]:
    return [entry.id for entry in play.kept]


def test_a_message_is_taken_a_slice_at_a_time_in_its_order(play):
    bob, bus = _opened(play)
    conn = bob.player.conn
    play.do(play.broker.receive(conn, _message(*_publish(bus, *range(1, MANY + 1))), play.now))
    play.work()
    assert _ids(play) == list(range(1, FRAMES_PER_SLICE + 1))
    slices = 1
    while play.broker.has_more(conn):
        play.do(play.broker.take_slice(conn, play.now))
        slices += 1
    play.work()
    assert (_ids(play), slices) == (list(range(1, MANY + 1)), 4)


def test_what_another_writes_meanwhile_comes_in_between(play):
    bob, bus = _opened(play)
    alice = play.player("alice")
    hers = alice.opened()
    play.do(play.broker.receive(bob.player.conn, _message(*_publish(bus, *range(1, MANY + 1))), play.now))
    assert alice.written(hers, "mine") == FRAMES_PER_SLICE + 1


def test_a_message_that_comes_before_the_last_one_was_taken_waits_its_turn(play):
    bob, bus = _opened(play)
    conn = bob.player.conn
    play.do(play.broker.receive(conn, _message(*_publish(bus, *range(1, MANY))), play.now))
    bob.player.send(_message(*_publish(bus, MANY)))
    play.work()
    assert _ids(play) == list(range(1, MANY + 1))


def test_the_last_words_of_one_who_goes_are_heard(play):
    bob, bus = _opened(play)
    play.do(play.broker.receive(bob.player.conn, _message(*_publish(bus, *range(1, MANY + 1))), play.now))
    bob.player.lose()
    play.work()
    assert _ids(play) == list(range(1, MANY + 1))


def test_nothing_is_taken_after_what_ends_a_connection(play):
    bob, bus = _opened(play)
    hello = frames.Hello(frames.VERSION, "0" * 32)  # a second one
    said = [*_publish(bus, *range(1, FRAMES_PER_SLICE)), hello, *_publish(bus, *range(FRAMES_PER_SLICE, MANY))]
    heard = bob.say(*said)
    assert isinstance(heard[-1], frames.Bye)
    assert not play.broker.has_more(bob.player.conn)
    assert _ids(play) == list(range(1, FRAMES_PER_SLICE))


def test_one_whose_last_words_are_wrong_has_gone_all_the_same(play):
    bob, bus = _opened(play)
    alice = play.player("alice")
    hers = alice.opened()
    said = [*_publish(bus, *range(1, MANY)), frames.Hello(frames.VERSION, "0" * 32)]
    play.do(play.broker.receive(bob.player.conn, _message(*said), play.now))
    bob.player.lose()
    play.work()
    assert _ids(play) == list(range(1, MANY))
    assert alice.written(hers, "and on") == MANY
