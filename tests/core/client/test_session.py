"""The session: buses, subscriptions, writes and requests survive every reconnect."""

from __future__ import annotations

import pytest

from ebus_jupyter.core.client.events import BusClosed, RequestSettled, WriteSettled
from ebus_jupyter.core.client.session import Session
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.errors import Closed, ConnectionLost, NoSuchBus, ProtocolError, RateLimited, SpecConflict, TooLarge
from tests.core.play import Play, Raw, pack, unpack


def sent(session: Session, now: float = 0.0) -> list[frames.ClientFrame]:
    session.tick(now)
    data = session.data_to_send()
    return [] if data is None else frames.from_client(data)


def test_calls_before_the_connection_are_sent_after_hello():
    session = Session("0" * 32)
    bus = session.open("server", "votes", {})
    session.publish(bus, pack(1), 0.0)
    assert sent(session) == []
    session.connection_made()
    assert [type(frame) for frame in sent(session)] == [frames.Hello, frames.Open]


def test_writes_made_while_disconnected_keep_their_order(play):
    alice = play.player()
    bus = alice.opened()
    reader = alice.reader(bus)
    alice.lose()
    ids = [alice.write(bus, n) for n in range(3)]
    alice.connect()
    play.settle()
    assert [alice.answer(id_) for id_ in ids] == [1, 2, 3]
    assert alice.values(reader) == [0, 1, 2]


def test_subscriber_receives_messages_sent_before_the_subscribed_reply(play):
    """The connection breaks after the broker has registered the subscriber, and before its reply arrives."""
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    from ebus_jupyter.core.client.reader import Reader

    reader = Reader(alice.session, hers)
    alice.say()
    alice.lose()
    bob.written(his, "while she was away")
    alice.connect()
    play.settle()
    assert alice.values(reader) == ["while she was away"]


def test_requests_are_repeated_until_answered(play):
    alice = play.player()
    bus = alice.opened()
    alice.written(bus, "tea")
    asked = [alice.session.fetch(bus, 0), alice.session.list_buses(), alice.session.reopen(bus, {})]
    alice.say()
    alice.lose()
    alice.connect()
    page, listed, joined = (alice.reply(req) for req in asked)
    assert [unpack(frames.delivery(message).value) for message in page.messages] == ["tea"]
    assert [found["name"] for found in listed.buses] == ["votes"]
    assert joined.bus == bus.number


def test_delete_made_while_disconnected_is_sent_on_reconnect(play):
    alice = play.player()
    bus = alice.opened()
    alice.lose()
    req = alice.session.delete(bus)
    alice.connect()
    assert isinstance(alice.reply(req), frames.Done)
    assert not play.durable._buses


def test_presence_and_watching_survive_a_reconnect(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    alice.session.set_presence(hers, pack({"typing": True}))
    bob.session.watch_presence(his)
    play.settle()
    play.restart()
    alice.connect(), bob.connect()
    play.settle()
    seats = {who.user: (status, state) for who, status, _, state, _ in his.participants.values()}
    assert seats["alice"] == ("here", {"typing": True})


def test_unnamed_bus_is_reopened_by_its_capability(play):
    kernel = play.kernel()
    bus = kernel.opened(None, "server")
    name = bus.name
    assert name.startswith("~")
    kernel.lose()
    kernel.connect()
    play.settle()
    assert (bus.name, kernel.written(bus, 1)) == (name, 1)


def test_bus_recreated_while_disconnected_is_another_history(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(size=5), bob.opened()
    reader = alice.reader(hers)
    alice.written(hers, "old")
    assert alice.values(reader) == ["old"]
    alice.lose()
    bob.reply(bob.session.delete(his))
    again = bob.opened(size=5)
    bob.written(again, "new")
    alice.connect()
    play.settle()
    assert alice.values(reader) == [("lagged", None), "new"]


def test_bus_recreated_with_another_spec_raises_spec_conflict(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(size=5), bob.opened()
    alice.lose()
    bob.reply(bob.session.delete(his))
    bob.opened(size=6)
    alice.connect()
    play.settle()
    assert isinstance(alice.refused[hers], SpecConflict)


def test_late_filter_answer_is_not_taken_for_another_writes(play):
    """The broker is killed while a kernel's filter is at work; the next broker counts its filter requests anew."""
    kernel, alice = play.kernel(), play.player("alice")
    clean, hers = kernel.opened(filter="@owner"), alice.opened()
    kernel.filter = None
    first = alice.write(hers, "first")
    play.settle()
    (late,) = kernel.asked
    kernel.asked.clear()
    play.restart()
    kernel.connect(), alice.connect()
    play.settle()
    kernel.session.answer_filter(late.channel, late.id, pack("an answer from before"))
    play.settle()
    assert first not in alice.answers
    kernel.filter = lambda value, sender: value.upper()
    kernel.judge()
    play.settle()
    assert alice.answer(first) == 1
    assert unpack(play.kept[0].value) == "FIRST"
    assert clean.is_open


# --- batching -------------------------------------------------------------------------------------------------------


def batching(play: Play, size: int = 3, interval: float = 1.0):
    alice = play.player()
    bus = alice.opened()
    bus.flush_size, bus.flush_interval = size, interval
    return alice, bus


def test_batch_is_sent_when_it_is_full(play):
    alice, bus = batching(play)
    for n in range(2):
        alice.write(bus, n)
    assert sent(alice.session, play.now) == []
    alice.write(bus, 2)
    assert len(sent(alice.session, play.now)) == 3


def test_steady_writes_do_not_postpone_the_flush_interval(play):
    alice, bus = batching(play, size=100)
    for n in range(4):
        alice.session.publish(bus, pack(n), 1000.0 + n * 0.3)
        assert alice.session.next_deadline() == 1001.0
    assert sent(alice.session, 1000.9) == []
    assert len(sent(alice.session, 1001.0)) == 4
    assert alice.session.next_deadline() is None


def test_flush_and_leave_send_the_batch(play):
    alice, bus = batching(play)
    alice.write(bus, "first")
    alice.session.flush(bus)
    assert len(sent(alice.session, play.now)) == 1
    alice.write(bus, "last")
    alice.session.leave(bus)
    assert [type(frame) for frame in sent(alice.session, play.now)] == [frames.Publish]


def test_write_does_not_overtake_the_batch(play):
    alice, bus = batching(play)
    alice.write(bus, "first")
    bus.flush_size = 1
    alice.write(bus, "second")
    assert [frame.id for frame in sent(alice.session, play.now)] == [1, 2]


def test_batch_of_a_lost_connection_is_sent_on_the_next_one(play):
    alice, bus = batching(play)
    id_ = alice.write(bus, "tea")
    alice.lose()
    alice.connect()
    play.settle()
    assert alice.answer(id_) == 1


def test_data_to_send_respects_max_bytes_with_at_least_one_frame(play):
    alice = play.player()
    bus = alice.opened()
    for _ in range(3):
        alice.write(bus, "x" * 100)
    parts = []
    while (data := alice.session.data_to_send(max_bytes=250)) is not None:
        parts.append(len(frames.from_client(data)))
    assert parts == [2, 1]


# --- bounds and ends ------------------------------------------------------------------------------------------------


def test_law_8_unanswered_writes_are_bounded():
    session = Session("0" * 32, max_pending=2)
    bus = session.open("server", "votes", {})
    for n in range(2):
        session.publish(bus, pack(n), 0.0)
    with pytest.raises(RateLimited, match="Await their acks") as refused:
        session.publish(bus, pack(2), 0.0)
    assert refused.value.limit == "max_pending"


@pytest.mark.parametrize(("limit", "size"), [("value_bytes", 600), ("batch_bytes", 1000)])
def test_law_8_write_over_the_server_s_bound_is_too_large(limit, size):
    play = Play(limits=Limits(**{"value_bytes": 2000, "batch_bytes": 900, limit: 500}))
    alice = play.player()
    bus = alice.open()
    early = alice.write(bus, "x" * size)
    play.settle()
    with pytest.raises(TooLarge) as refused:
        alice.answer(early)
    assert refused.value.limit == limit
    with pytest.raises(TooLarge, match=limit):
        alice.write(bus, "x" * size)
    assert alice.written(bus, "tea") == 1


def test_burst_is_sent_within_the_server_s_batch_bytes():
    play = Play(limits=Limits(batch_bytes=400))
    alice = play.player()
    bus = alice.opened()
    for _ in range(9):
        alice.write(bus, "x" * 100)
    parts = []
    while (data := alice.next_data()) is not None:
        parts.append(len(data))
        alice.send(data)
    assert max(parts) <= 400
    assert len(play.kept) == 9


@pytest.mark.parametrize("how", [{"key": object()}, {"expect": object()}, {"to": [object()]}, {"key": "\ud800"}])
def test_write_that_cannot_be_encoded_harms_nothing(play, how):
    alice = play.player()
    bus = alice.open(size=5)
    with pytest.raises((TypeError, UnicodeEncodeError)):
        alice.write(bus, 1, **how)
    play.settle()
    assert alice.written(bus, "tea") == 1


# --- the broker's rate ----------------------------------------------------------------------------------------------


def limited(rate: float = 10.0, burst: float = 1.0):
    play = Play(limits=Limits(publish_rate=rate, publish_burst=burst))
    alice = play.player()
    return play, alice, alice.opened()


def run(play: Play) -> None:
    """Let time pass from deadline to deadline until nothing waits for it."""
    for _ in range(10_000):
        play.settle()
        due = [at for player in play.players if (at := player.session.next_deadline()) is not None]
        if not due:
            return
        play.now = max(play.now, *due)
    raise AssertionError("the deadlines do not end")


def test_writes_over_the_rate_arrive_whole_and_in_order():
    play, alice, bus = limited()
    began = play.now
    ids = [alice.write(bus, n) for n in range(100)]
    play.settle()
    assert len(play.kept) == 9
    run(play)
    assert [alice.answer(id_) for id_ in ids] == list(range(1, 101))
    assert [unpack(entry.value) for entry in play.kept] == list(range(100))
    assert play.now - began == pytest.approx(9.1, abs=0.2)


def test_refused_writes_are_sent_again_in_order():
    """The broker's clock runs behind the client's, so that the client is too fast for it."""
    play, alice, bus = limited()
    other = alice.opened("other")
    ids = []
    for n in range(60):
        ids.append(alice.session.publish((bus, other)[n % 2], pack(n), 2000.0 + n))
        data = alice.session.data_to_send()
        if data is not None:
            alice.send(data)
    assert len(play.kept) == 10
    play.now = 3000.0
    run(play)
    assert [alice.answer(id_) for id_ in ids] == [n // 2 + 1 for n in range(60)]
    for part, name in enumerate(("votes", "other")):
        got = [unpack(entry.value) for entry in play.kept if entry.bus.endswith(name)]
        assert got == list(range(part, 60, 2))


def test_writes_held_for_the_rate_survive_a_reconnect():
    play, alice, bus = limited()
    ids = [alice.write(bus, n) for n in range(40)]
    play.settle()
    alice.lose()
    alice.connect()
    run(play)
    assert [alice.answer(id_) for id_ in ids] == list(range(1, 41))


def test_write_that_does_not_wait_sees_the_refusal():
    play, alice, bus = limited()
    for n in range(9):
        alice.write(bus, n, wait=False)
    with pytest.raises(RateLimited) as refused:
        alice.write(bus, 9, wait=False)
    assert (refused.value.limit, refused.value.retry_after) == ("publish_rate", pytest.approx(0.1))
    waits = alice.write(bus, 9)
    with pytest.raises(RateLimited):
        alice.write(bus, 10, wait=False)
    run(play)
    assert alice.answer(waits) == 10


def test_refused_write_that_does_not_wait_is_settled():
    play, alice, bus = limited()
    ids = [alice.session.publish(bus, pack(n), 2000.0 + n, wait=False) for n in range(12)]
    while (data := alice.session.data_to_send()) is not None:
        alice.send(data)
    play.settle()
    assert [alice.answer(id_) for id_ in ids[:10]] == list(range(1, 11))
    for id_ in ids[10:]:
        with pytest.raises(RateLimited):
            alice.answer(id_)
    play.now = 3000.0
    assert alice.written(bus, "later", wait=False) == 11


def test_deletion_does_not_overtake_held_writes():
    play, alice, bus = limited()
    ids = [alice.write(bus, n) for n in range(20)]
    req = alice.session.delete(bus)
    run(play)
    assert isinstance(alice.reply(req), frames.Done)
    assert [alice.answer(id_) for id_ in ids[:-1]] == list(range(1, 20))


def test_law_9_close_settles_writes_requests_and_buses(play):
    alice = play.player()
    bus = alice.opened()
    id_, req = alice.write(bus, 1), alice.session.list_buses()
    error = Closed("this client was closed.", reason="closed")
    assert set(alice.session.close(error)) == {
        WriteSettled(id_, 0, error),
        RequestSettled(req, None, error),
        BusClosed(bus, error),
    }
    for late in (lambda: alice.write(bus, 2), lambda: alice.open("other")):
        with pytest.raises(Closed):
            late()


def test_law_9_leave_closes_the_bus_only_for_this_client(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    bob.session.watch_presence(his)
    reader = alice.reader(hers)
    alice.session.leave(hers)
    play.settle()
    with pytest.raises(Closed, match="was closed here"):
        alice.read(reader)
    assert [seat[0].user for seat in his.participants.values()] == ["bob"]
    assert bob.written(his, 1) == 1


def test_leave_waits_for_the_answers_to_writes(play):
    alice = play.player()
    bus = alice.opened()
    id_ = alice.write(bus, "last")
    alice.session.leave(bus)
    with pytest.raises(Closed):
        alice.write(bus, "too late")
    again = alice.open()
    other = alice.write(again, "anew")
    play.settle()
    assert [alice.answer(id_), alice.answer(other)] == [1, 2]
    assert isinstance(alice.refused[bus], Closed)
    assert again.is_open and alice.written(again, "more") == 3


@pytest.mark.parametrize("opened", [True, False])
def test_leave_repeats_unanswered_writes_after_a_reconnect(play, opened):
    alice = play.player()
    bus = alice.opened() if opened else alice.open()
    alice.lose()
    id_ = alice.write(bus, "last")
    assert alice.session.leave(bus) == []
    again = alice.open()
    alice.connect()
    play.settle()
    assert alice.answer(id_) == 1
    assert bus in alice.refused
    reader = alice.reader(again)
    assert alice.written(again, "more") == 2
    assert alice.values(reader) == ["more"]
    alice.session.leave(again)
    play.settle()
    assert not list(alice.session._channels)
    assert not any(conn.open for conn in play.broker._connections.values())


def test_bus_that_is_left_while_it_opens_is_left_at_the_broker(play):
    alice = play.player()
    bus = alice.open()
    alice.say()
    alice.session.leave(bus)
    play.settle()
    assert bus in alice.refused
    assert not any(conn.open for conn in play.broker._connections.values())


def test_refused_open_closes_only_that_bus(play):
    alice = play.player()
    with pytest.raises(NoSuchBus):
        alice.opened("nothing", create=False)
    assert alice.opened("something").is_open


def test_data_of_another_protocol_raises_protocol_error(play):
    alice = play.player()
    with pytest.raises(ProtocolError, match="the broker sent"):
        alice.session.receive_data(b"<html>504 Gateway Time-out</html>", 0.0)


def test_unsolicited_replies_change_nothing(play):
    alice = play.player()
    bus = alice.opened()
    who = alice.session.you
    assert who is not None
    strays = [
        frames.Ok(bus.number, 99, 1),
        frames.Done(99),
        frames.Error("closed", "?", req=99),
        frames.Error("closed", "?", id=99),
        frames.Opened(99, 5, "ebus:server/x", "e", 0, {}),
        frames.Subscribed(99, bus.number, "e", 5, 5),
        frames.Delivery(12345, 1, 1, 0.0, who, frames.NIL),
        frames.Lag(12345, 1, 1),
        frames.Gone(12345, "?"),
        frames.Pong(3),
    ]
    assert alice.session.receive_data(frames.join([frames.encode(frame) for frame in strays]), 0.0) == []
    assert alice.written(bus, "tea") == 1


def test_duplicate_delivery_is_read_once(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    reader = bob.reader(his)
    alice.write(hers, "tea")
    alice.say()
    bob.inbox.extend(list(bob.inbox))
    play.settle()
    assert bob.values(reader) == ["tea"]


def test_bye_reports_whether_to_reconnect(play):
    mallory = Raw(play)
    mallory.player.inbox.append((frames.encode(frames.Bye("closed", "the server is shutting down.")), 1))
    mallory.player.hear()
    ended = mallory.player.ended
    assert ended is not None
    assert (ended.reconnect, ended.error.code) == (True, "closed")
    assert not isinstance(ended.error, ConnectionLost)
