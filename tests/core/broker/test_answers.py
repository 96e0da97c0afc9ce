"""The answers to writes: each client's own, small, and never so forgotten that a write is accepted twice."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebus_jupyter.backends import sqlite_log
from ebus_jupyter.core.broker.answers import RECORD_BYTES, RUNS, Answers
from ebus_jupyter.core.broker.entry import Entry
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import ConnectionLost, Filtered, Reject, Rejected, TypeMismatch
from tests.core.logs import FileLogs, Logs
from tests.core.play import Play, pack


def filled(answers, clients, writes):
    """Accept writes of several clients in turn, which makes each a run of its own."""
    offset = 0
    for n in range(1, writes + 1):
        for sender in clients:
            offset += 1
            answers.accept(sender, answers.of(sender, f"user of {sender}"), n, offset)
    return answers


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.integers(0, 3)), max_size=60))
def test_every_accepted_write_is_found(writes):
    answers, expected, next_id, offset = Answers(1000, 1 << 20), {}, dict.fromkeys("abc", 1), 0
    for sender, length, gap in writes:
        next_id[sender] += gap
        for _ in range(length):
            offset += 1
            answers.accept(sender, answers.of(sender, "u"), next_id[sender], offset)
            expected[sender, next_id[sender]] = offset
            next_id[sender] += 1
    loaded = Answers(1000, 1 << 20)
    loaded.load(answers.keep(), ())
    for found in (answers, loaded):
        for sender in {sender for sender, _, _ in writes}:
            client = found.get(sender)
            for id_ in range(1, next_id[sender]):
                assert client.offset_of(id_) == expected.get((sender, id_))
                assert client.refusal_of(id_) == Rejected.code
            assert client.highest == next_id[sender] - 1


def test_writes_of_one_client_in_a_row_take_no_memory():
    answers = filled(Answers(10_000, 1 << 20), ["a"], 100_000)
    assert answers.get("a").size < RECORD_BYTES + 100
    assert answers.get("a").offset_of(1) == 1


def test_interleaved_writes_take_a_few_bytes_each():
    answers = filled(Answers(10_000, 1 << 20), [f"c{n}" for n in range(30)], 1000)
    assert sum(answers.get(f"c{n}").size for n in range(30)) < 30 * (RECORD_BYTES + 64 * 96) + 30_000 * 8
    assert answers.get("c7").offset_of(1) == 8


def test_forgotten_write_is_not_accepted_again():
    answers = filled(Answers(100, 1 << 20), ["a", "b"], 1000)
    client = answers.get("a")
    assert [client.offset_of(id_) for id_ in (901, 1000)] == [1801, 1999]
    assert client.offset_of(1) is None
    assert client.refusal_of(1) == ConnectionLost.code


def test_user_with_the_most_answers_gives_way():
    answers = Answers(10_000, 100_000, present={"victim"})
    answers.accept("victim", answers.of("victim", "vera"), 1, 1)
    answers.accept("gone", answers.of("gone", "vera"), 1, 2)
    for n in range(2000):
        answers.accept(f"m{n}", answers.of(f"m{n}", "mallory"), 1, 3 + n)
    assert answers.get("victim").offset_of(1) == 1
    assert answers.get("gone").offset_of(1) == 2
    assert answers.get("m1999") is not None
    assert answers.get("m0") is None
    for n in range(1, 40 * RUNS):  # nor by writes
        for sender in ("m1998", "m1999"):
            answers.accept(sender, answers.of(sender, "mallory"), 1 + n, 10_000 * n)
    assert answers.get("victim").offset_of(1) == 1
    assert sum(client.size for client in answers._clients.values()) <= 120_000


# --- in a broker ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("logs", "writes"), [(Logs, 21_000), (FileLogs, 900)])
@pytest.mark.parametrize("kills", [0, 1])
def test_law_5_writes_of_others_push_no_answer_out(monkeypatch, logs, writes, kills):
    monkeypatch.setattr(sqlite_log, "FOLD", 50)
    play = Play(logs=logs())
    alice, mallory = play.player("alice"), play.player("mallory", "kernel")
    bus = alice.opened(size=10)
    theirs = mallory.opened()
    id_ = alice.write(bus, "tea")
    alice.say()  # and its answer is lost
    alice.lose()
    for n in range(writes):
        mallory.write(theirs, n)
        if n % 300 == 299:
            play.settle()
    for _ in range(kills):
        play.restart()
    alice.connect()
    play.settle()
    assert alice.answer(id_) == 1
    assert sum(entry.sender == play.kept[0].sender for entry in play.kept) == 1
    play.logs.close()


def test_law_5_refused_write_is_refused_again(play):
    alice = play.player("alice")
    bus = alice.opened(schema={"type": "string"})
    wrong, right = alice.write(bus, 1), alice.write(bus, "tea")
    alice.say()
    alice.lose()
    alice.connect()
    play.settle()
    assert alice.answer(right) == 1
    with pytest.raises(TypeMismatch):
        alice.answer(wrong)
    heard = play.broker.registry.buses[bus.uri].admission.answers.get(play.broker._connections[alice.conn].who.id)
    assert heard.refusal_of(wrong) == TypeMismatch.code
    assert len(play.kept) == 1


def test_refusals_are_kept_without_their_texts(play):
    alice = play.player("alice")
    bus = alice.opened(schema={"type": "object", "additionalProperties": {"type": "string"}})
    for n in range(200):
        alice.write(bus, {"k" * 10_000 + str(n): n})
    play.settle()
    (client,) = play.broker.registry.buses[bus.uri].admission.answers._clients.values()
    assert client._refused == [[1, 200, TypeMismatch.code]]


def test_law_5_filtered_refusal_is_repeated():
    def no(value, sender):
        raise Reject("no")

    play = Play(filters={"no": no})
    alice = play.player("alice")
    bus = alice.opened(filter="no")
    id_ = alice.write(bus, 1)
    alice.say()
    alice.lose()
    alice.connect()
    play.settle()
    with pytest.raises(Filtered) as refused:
        alice.answer(id_)
    assert refused.value.reason == ""


def test_law_2_refused_write_is_not_accepted_after_a_restart(play):
    alice = play.player("alice")
    bus = alice.opened()
    conflicting, later = alice.write(bus, "first", expect=1), alice.write(bus, "second")
    alice.say()  # the answers are lost with the server
    play.restart()
    alice.connect()
    play.settle()
    assert alice.answer(later) == 1
    with pytest.raises(Rejected):
        alice.answer(conflicting)


def test_shared_engine_remembers_the_writes_of_other_brokers(play):
    alice = play.player("alice")
    bus = alice.opened()
    sender = msgspec.msgpack.encode(Participant("0123456789abcdef", "page", "bob"))
    entry = Entry(bus.uri, 1, 1.0, sender, pack("tea"), offset=1)
    play.do(play.broker.commit([entry]))
    client = play.broker.registry.buses[bus.uri].admission.answers.get("0123456789abcdef")
    assert (client.user, client.offset_of(1)) == ("bob", 1)


def test_old_write_sent_again_is_refused_and_not_accepted(play):
    play = Play(limits=msgspec.structs.replace(play.limits, dedupe=1))
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    for n in range(3 * RUNS):
        alice.written(hers, n)
        bob.written(his, n)
    alice.send(frames.join([frames.encode(frames.Publish(hers.number, 1, msgspec.Raw(pack(0))))]))
    answer = frames.from_broker(frames.head(1) + alice.inbox.pop()[0])[0]
    assert (answer.code, answer.id) == (ConnectionLost.code, 1)
    assert len(play.kept) == 6 * RUNS
