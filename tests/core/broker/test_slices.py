"""A message of many frames is handled in slices, between which other connections are served."""

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


def test_message_is_handled_in_slices_in_order(play):
    bob, bus = _opened(play)
    conn = bob.player.conn
    play.do(play.broker.receive(conn, _message(*_publish(bus, *range(1, MANY + 1))), play.now))
    play.work()
    assert _ids(play) == list(range(1, FRAMES_PER_SLICE + 1))
    slices = 1
    while play.broker.has_more(conn):
        assert play.turn()
        slices += 1
    play.work()
    assert (_ids(play), slices) == (list(range(1, MANY + 1)), 4)


def test_other_connections_are_served_between_slices(play):
    bob, bus = _opened(play)
    alice = play.player("alice")
    hers = alice.opened()
    play.do(play.broker.receive(bob.player.conn, _message(*_publish(bus, *range(1, MANY + 1))), play.now))
    assert alice.written(hers, "mine") == FRAMES_PER_SLICE + 1


def test_next_message_waits_for_the_rest_of_the_previous_one(play):
    bob, bus = _opened(play)
    conn = bob.player.conn
    play.do(play.broker.receive(conn, _message(*_publish(bus, *range(1, MANY))), play.now))
    bob.player.send(_message(*_publish(bus, MANY)))
    play.work()
    assert _ids(play) == list(range(1, MANY + 1))


def test_frames_before_a_disconnect_are_handled(play):
    bob, bus = _opened(play)
    play.do(play.broker.receive(bob.player.conn, _message(*_publish(bus, *range(1, MANY + 1))), play.now))
    bob.player.lose()
    play.work()
    assert _ids(play) == list(range(1, MANY + 1))


def test_frames_after_a_fatal_one_are_dropped(play):
    bob, bus = _opened(play)
    hello = frames.Hello(frames.VERSION, "0" * 32)  # a second hello
    said = [*_publish(bus, *range(1, FRAMES_PER_SLICE)), hello, *_publish(bus, *range(FRAMES_PER_SLICE, MANY))]
    heard = bob.say(*said)
    assert isinstance(heard[-1], frames.Bye)
    assert not play.broker.has_more(bob.player.conn)
    assert _ids(play) == list(range(1, FRAMES_PER_SLICE))


def test_fatal_frame_before_a_disconnect_does_not_block_it(play):
    bob, bus = _opened(play)
    alice = play.player("alice")
    hers = alice.opened()
    said = [*_publish(bus, *range(1, MANY)), frames.Hello(frames.VERSION, "0" * 32)]
    play.do(play.broker.receive(bob.player.conn, _message(*said), play.now))
    bob.player.lose()
    play.work()
    assert _ids(play) == list(range(1, MANY))
    assert alice.written(hers, "and on") == MANY
