"""Law 10: what a frame asks for costs what the frame pays, is done in turns, and not for a client that has gone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ebus_jupyter.core.broker.account import Account
from ebus_jupyter.core.broker.agenda import Agenda
from ebus_jupyter.core.broker.unread import SHORT_BYTES
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from tests.core.play import Play, Raw, pack

KB = 1024
LIMITS = Limits(page_bytes=64 * KB, send_bytes=128 * KB)


def _publish(bus: int, id_: int, value: Any = 1, **how: Any) -> frames.Publish:
    return frames.Publish(bus, id_, msgspec.Raw(pack(value)), **how)


def _message(*said: frames.Frame) -> bytes:
    return frames.join([frames.encode(frame) for frame in said])


def _with_history(limits: Limits = LIMITS, kilobytes: int = 128) -> tuple[Play, Raw, int]:
    play = Play(limits=limits)
    mallory = Raw(play).hello()
    (opened,) = mallory.say(frames.Open(1, "server", "votes"))
    for n in range(1, kilobytes // 8 + 1):
        mallory.say(_publish(opened.bus, n, "x" * 8 * KB))
    play.turn()
    return play, mallory, opened.bus


def _sent(raw: Raw) -> int:
    """The bytes that wait for the client."""
    return sum(len(data) for data, _ in raw.player.inbox)


# --- answers --------------------------------------------------------------------------------------------------------


def test_law_10_pages_are_made_only_as_their_reader_takes_them():
    play, mallory, bus = _with_history()
    play.broker.flushed()
    conn = mallory.player.conn
    play.do(play.broker.receive(conn, _message(*(frames.Fetch(n, bus) for n in range(1, 101))), play.now))
    while play.broker.agenda:  # all turns, and no socket takes anything
        play.do(play.broker.take_turn(play.now)[1])
    bound = play.limits.send_bytes + play.limits.page_bytes + 9 * KB
    assert 0 < _sent(mallory) <= bound
    rounds = 0
    pages: list[int] = []
    while len(pages) < 100:
        pages += [frame.req for frame in mallory.heard()]
        play.broker.flushed()
        while play.broker.agenda:
            play.do(play.broker.take_turn(play.now)[1])
        assert _sent(mallory) <= bound
        rounds += 1
    assert pages == list(range(1, 101))
    assert rounds > 20


def test_law_10_nothing_is_answered_while_a_socket_is_full():
    play, mallory, bus = _with_history()
    mallory.player.block()
    assert mallory.say(*(frames.Fetch(n, bus) for n in range(1, 50)), frames.SetPresence(bus, watch=True)) == []
    play.take_turns()
    assert mallory.heard() == []
    (pong,) = mallory.say(frames.Ping(7))
    assert pong.n == 7, "small answers overtake"
    mallory.player.drain()
    play.take_turns()
    assert len(mallory.heard()) >= 49


@pytest.mark.parametrize("asked", [lambda n, bus: frames.Fetch(n, bus), lambda n, bus: frames.List(n)])
def test_law_10_what_a_client_that_has_gone_asked_for_is_not_done(asked):
    play, mallory, bus = _with_history()
    conn = mallory.player.conn
    said = [asked(n, bus) for n in range(1, 1_001)]
    play.do(play.broker.receive(conn, _message(*said, _publish(bus, 999, "last words")), play.now))
    mallory.player.inbox.clear()
    play.wires[conn] = mallory.player
    play.do(play.broker.disconnect(conn, play.now))
    turns = play.take_turns()
    assert _sent(mallory) == 0
    assert turns <= 1_001 / 32 + 2
    assert play.kept[-1].id == 999, "what it wrote is kept"
    assert conn not in play.broker._connections


def test_law_10_line_that_has_ended_gets_no_answers_before_its_messages_are_handed_over():
    play, mallory, bus = _with_history()
    conn = mallory.player.conn
    play.do(play.broker.receive(conn, _message(*(frames.Fetch(n, bus) for n in range(1, 500))), play.now))
    mallory.player.inbox.clear()
    play.broker.hung_up(conn)
    play.take_turns()
    assert _sent(mallory) == 0
    assert not play.broker.has_more(conn)


def test_law_10_requests_that_wait_are_bounded_and_none_is_lost():
    play, mallory, bus = _with_history(Limits(page_bytes=64 * KB, send_bytes=128 * KB, requests=5))
    mallory.player.block()
    conn = mallory.player.conn
    play.do(play.broker.receive(conn, _message(*(frames.Fetch(n, bus, -1) for n in range(1, 101))), play.now))
    play.take_turns()
    assert len(play.broker._connections[conn].requests) == 5
    assert play.broker.has_more(conn), "it is not read from"
    mallory.player.drain()
    play.take_turns()
    assert [page.req for page in mallory.heard()] == list(range(1, 101))
    assert not play.broker.has_more(conn)


def test_law_10_specifications_are_told_only_as_their_reader_takes_them():
    play = Play(limits=Limits(send_bytes=64 * KB))
    mallory = Raw(play).hello()
    mallory.say(frames.Open(1, "server", "votes", {"schema": {"description": "x" * 60 * KB}}))
    play.broker.flushed()
    conn = mallory.player.conn
    play.do(play.broker.receive(conn, _message(*(frames.Open(n, "server", "votes") for n in range(1, 31))), play.now))
    while play.broker.agenda:
        play.do(play.broker.take_turn(play.now)[1])
    assert _sent(mallory) <= 3 * 64 * KB
    play.take_turns()
    assert [opened.req for opened in mallory.heard()] == list(range(1, 31))


def test_law_10_openings_under_way_are_bounded_and_none_is_lost():
    play = Play(limits=Limits(opening=4))
    mallory = Raw(play).hello()
    play.logs_work = False
    mallory.say(*(frames.Open(n, "user", f"b{n}") for n in range(1, 21)))
    assert len(play.jobs) == 4
    play.logs_work = True
    play.work()
    play.take_turns()
    assert sorted(opened.req for opened in mallory.heard()) == list(range(1, 21))


# --- turns ----------------------------------------------------------------------------------------------------------


class Client:
    def __init__(self, id_: int, account: Account) -> None:
        self.id = id_
        self.account = account


def _account(user: str, rate: float = 10.0) -> Account:
    return Account(
        user, Limits(request_rate=rate, request_burst=1.0), dict.fromkeys(Account("", Limits(), {}, 0).held, 0), 0.0
    )


def test_users_take_turns_whatever_their_number_of_connections():
    agenda: Agenda[Client] = Agenda()
    many, one = _account("mallory"), _account("alice")
    for n in range(100):
        agenda.add(Client(n, many))
    agenda.add(Client(1_000, one))
    first = [agenda.next(0.0) for _ in range(3)]
    assert 1_000 in [client.id for client in first if client is not None]


def test_connection_that_is_added_twice_has_one_turn():
    agenda: Agenda[Client] = Agenda()
    client = Client(1, _account("alice"))
    agenda.add(client)
    agenda.add(client)
    assert (len(agenda), agenda.next(0.0), agenda.next(0.0)) == (1, client, None)


def test_user_whose_rate_is_spent_is_passed_over_until_it_is_refilled():
    agenda: Agenda[Client] = Agenda()
    spent, other = _account("mallory"), _account("alice")
    spent.requests.level = -5.0
    first, second = Client(1, spent), Client(2, other)
    agenda.add(first)
    agenda.add(second)
    assert (agenda.next(0.0), agenda.next(0.0)) == (second, None)
    assert agenda.wait() == pytest.approx(0.6)
    assert agenda.next(0.6) is first


def test_law_10_frames_over_the_rate_are_delayed_and_not_refused():
    play = Play(limits=Limits(request_rate=10.0, request_burst=2.0))
    mallory, alice = Raw(play).hello(), Raw(play, "alice").hello()
    conn = mallory.player.conn
    play.do(play.broker.receive(conn, _message(*(frames.Ping(n) for n in range(100))), play.now))
    play.take_turns()
    assert len(mallory.heard()) <= 20
    assert len(alice.say(frames.Ping(1))) == 1
    for _ in range(10):
        play.now += 1.0
        play.take_turns()
    assert mallory.heard()[-1].n == 99


def test_law_10_refused_writes_spend_from_the_rate_of_frames():
    play = Play(limits=Limits(request_rate=10.0, request_burst=2.0))
    mallory = Raw(play).hello()
    conn = mallory.player.conn
    play.do(play.broker.receive(conn, _message(*(_publish(12345, n) for n in range(1, 101))), play.now))
    play.take_turns()
    assert len(mallory.heard()) <= 21
    assert play.broker.has_more(conn)


# --- frames that are too long -----------------------------------------------------------------------------------------


def test_law_10_message_of_too_many_frames_is_refused_before_it_is_decoded():
    play = Play(limits=Limits(batch_frames=100))
    mallory = Raw(play).hello()
    (bye,) = mallory.say(*(frames.Ping(n) for n in range(101)))
    assert "`batch_frames` is 100 (c.EBus.batch_frames)" in bye.text
    assert mallory.hung_up


def test_law_10_long_message_is_decoded_frame_by_frame():
    play, mallory, bus = _with_history()
    conn = mallory.player.conn
    said = [_publish(bus, n, "x" * 100) for n in range(1_000, 1_000 + 1 + SHORT_BYTES // 100)]
    play.do(play.broker.receive(conn, _message(*said), play.now))
    waiting = play.broker._connections[conn].unread._waiting
    assert waiting
    assert {type(frame) for frame in waiting} == {msgspec.Raw}
    play.take_turns()
    assert [entry.id for entry in play.kept][-3:] == [frame.id for frame in said[-3:]]


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        (lambda bus: _publish(bus, 5, 1, to=["a"] * 500_000), "recipients"),
        (lambda bus: _publish(bus, 5, 1, key="k" * 1_000_000), "recipients"),
        (lambda bus: frames.Open(5, "server", "x", {"schema": {"description": [[]] * 2_000_000}}), "schema_bytes"),
        (lambda bus: frames.SetPresence(bus, msgspec.Raw(pack([[]] * 500_000))), "presence_bytes"),
    ],
)
def test_law_10_frame_with_a_part_that_is_too_long_is_refused_undecoded(said, limit, monkeypatch):
    _, mallory, bus = _with_history()
    decoded = []
    monkeypatch.setattr(frames, "one_from_client", lambda frame: decoded.append(frame))
    (error,) = mallory.say(said(bus))
    assert (error.code, error.details) == ("too_large", {"limit": limit})
    assert f"`{limit}`" in error.text
    assert 5 in (error.req, error.id) or error.bus == bus
    assert decoded == []


def test_malformed_frame_of_a_long_message_ends_its_connection_alone():
    play, mallory, bus = _with_history()
    alice = Raw(play, "alice").hello()
    bad = frames.join([frames.encode(_publish(bus, 900, "x" * SHORT_BYTES)), pack([99, 1])])
    heard = mallory.shout(bad)
    assert isinstance(heard[-1], frames.Bye)
    assert mallory.hung_up
    assert len(alice.say(frames.Ping(1))) == 1
