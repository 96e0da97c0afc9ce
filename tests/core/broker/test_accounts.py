"""Law 10: a user's connections share one account, which holds what the broker holds for that user."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ebus_jupyter.core.broker.account import IDLE_SECONDS
from ebus_jupyter.core.broker.catalogue import spec_size
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from tests.core.play import Play, Raw, pack


def _publish(bus: int, id_: int, value: Any = 1, **how: Any) -> frames.Publish:
    return frames.Publish(bus, id_, msgspec.Raw(pack(value)), **how)


def _errors(answers: list[Any]) -> list[frames.Error]:
    return [answer for answer in answers if isinstance(answer, frames.Error)]


def test_law_10_connections_of_a_user_are_bounded_and_others_come_in():
    play = Play(limits=Limits(user_connections=3, connections=10))
    for _ in range(3):
        Raw(play, "mallory").hello()
    late = Raw(play, "mallory")
    (bye,) = late.heard()
    assert (bye.code, late.hung_up) == ("too_large", True)
    assert "`user_connections` is 3 (c.EBus.user_connections)" in bye.text
    assert Raw(play, "alice").hello().say(frames.Open(1, "server", "votes"))


def test_law_10_kernel_and_page_of_a_user_share_an_account():
    play = Play(limits=Limits(user_connections=2))
    Raw(play, "alice", "kernel", "k1").hello()
    Raw(play, "alice", "page").hello()
    assert Raw(play, "alice").hung_up


def test_law_10_connection_that_says_nothing_is_closed():
    play = Play(limits=Limits(hello_seconds=20.0))
    silent, speaking = Raw(play), Raw(play).hello()
    play.pass_time(21)
    (bye,) = silent.heard()
    assert "`hello_seconds`" in bye.text
    assert silent.hung_up
    assert not speaking.hung_up


@pytest.mark.parametrize("limit", ["user_buses", "user_spec_bytes"])
def test_law_10_buses_that_a_user_makes_are_bounded_and_others_make_theirs(limit):
    play = Play(limits=Limits(**{limit: 2 if limit == "user_buses" else 2_000}))
    mallory = Raw(play).hello()
    given = {"schema": {"description": "x" * 1_500}}
    answers = [mallory.say(frames.Open(n, "user", f"b{n}", given))[0] for n in range(1, 5)]
    refused = _errors(answers)
    assert refused
    assert {error.details["limit"] for error in refused} == {limit}
    assert Raw(play, "alice").hello().say(frames.Open(1, "user", "mine"))[0].address == "ebus:user/alice/mine"
    mallory.say(frames.Delete(9, answers[0].bus))
    assert mallory.say(frames.Open(10, "user", "again"))[0].req == 10, "what is deleted makes room"


def test_law_10_buses_that_are_kept_count_after_a_restart():
    play = Play(limits=Limits(user_buses=2))
    mallory = Raw(play).hello()
    for n in (1, 2):
        mallory.say(frames.Open(n, "user", f"b{n}"))
    play.restart()
    mallory = Raw(play).hello()
    assert _errors(mallory.say(frames.Open(1, "user", "b3")))
    assert not _errors(mallory.say(frames.Open(2, "user", "b1"))), "what is there is opened"


def test_law_10_open_buses_of_all_connections_are_bounded():
    play = Play(limits=Limits(user_opened=3))
    first, second = Raw(play).hello(), Raw(play).hello()
    for n, name in enumerate(("a", "b"), 1):
        first.say(frames.Open(n, "server", name))
    assert not _errors(second.say(frames.Open(1, "server", "a")))
    (error,) = second.say(frames.Open(2, "server", "b"))
    assert error.details["limit"] == "user_opened"
    first.player.lose()
    assert not _errors(second.say(frames.Open(3, "server", "b")))


def test_law_10_presence_of_a_user_is_bounded_in_bytes():
    play = Play(limits=Limits(user_presence_bytes=250))
    mallory = Raw(play).hello()
    numbers = [mallory.say(frames.Open(n, "server", f"b{n}"))[0].bus for n in (1, 2, 3)]
    state = msgspec.Raw(pack("x" * 98))
    assert [bool(_errors(mallory.say(frames.SetPresence(bus, state)))) for bus in numbers] == [False, False, True]
    mallory.say(frames.SetPresence(numbers[0], frames.NIL))
    assert not _errors(mallory.say(frames.SetPresence(numbers[2], state)))


def test_law_10_presence_keeps_no_more_than_itself_of_a_message():
    play = Play()
    mallory = Raw(play).hello()
    (opened,) = mallory.say(frames.Open(1, "server", "votes"))
    junk = frames.encode(frames.FilterAnswer(opened.bus, 1, msgspec.Raw(pack(bytes(100_000)))))
    mallory.shout(frames.join([frames.encode(frames.SetPresence(opened.bus, msgspec.Raw(pack(1)))), junk]))
    bus = play.broker.registry.buses["ebus:server/votes"]
    (member,) = bus.presence._members.values()
    assert len(memoryview(member.state).obj or b"") < 10


def test_law_10_pages_of_a_user_share_one_rate():
    play = Play(limits=Limits(publish_rate=2.0, publish_burst=2, user_publish_rate=3.0))
    pages = [Raw(play, "mallory", "page").hello() for _ in range(3)]
    numbers = [page.say(frames.Open(1, "server", "votes"))[0].bus for page in pages]
    answers = [page.say(_publish(bus, id_))[0] for id_ in range(1, 5) for page, bus in zip(pages, numbers, strict=True)]
    assert sum(isinstance(answer, frames.Ok) for answer in answers) == 6
    limits = {error.details["limit"] for error in _errors(answers)}
    assert "user_publish_rate" in limits
    play.pass_time(1.0)
    assert isinstance(pages[0].say(_publish(numbers[0], 9))[0], frames.Ok)


def test_law_10_kernels_of_a_user_are_not_slowed_by_its_pages():
    play = Play(limits=Limits(user_publish_rate=1.0, publish_burst=1))
    page, kernel = Raw(play, "alice", "page").hello(), Raw(play, "alice", "kernel", "k1").hello()
    (hers,) = page.say(frames.Open(1, "server", "votes"))
    (its,) = kernel.say(frames.Open(1, "server", "votes"))
    assert _errors(page.say(*(_publish(hers.bus, n) for n in (1, 2))))
    answers = kernel.say(*(_publish(its.bus, n) for n in range(1, 20)))
    assert sum(answer.count for answer in answers if isinstance(answer, frames.Ok)) == 19


def test_law_10_writes_without_an_offset_are_bounded_in_bytes():
    play = Play(limits=Limits(user_pending_bytes=10_000))
    mallory, alice = Raw(play).hello(), Raw(play, "alice").hello()
    bus, hers = (client.say(frames.Open(1, "server", "votes"))[0].bus for client in (mallory, alice))
    play.logs_work = False
    refused = _errors(mallory.say(*(_publish(bus, n, "x" * 3_000) for n in range(1, 6))))
    assert {error.details["limit"] for error in refused} == {"user_pending_bytes"}
    assert {error.temporary for error in refused} == {True}
    assert not _errors(alice.say(_publish(hers, 1, "x" * 3_000)))
    play.logs_work = True
    play.work()
    mallory.heard()
    assert isinstance(mallory.say(_publish(bus, 9, "x"))[0], frames.Ok)


def test_law_10_recipients_count_towards_a_log():
    play = Play(limits=Limits(log_bytes=20_000))
    mallory = Raw(play).hello()
    (opened,) = mallory.say(frames.Open(1, "server", "votes", {"size": 1_000}))
    names = [f"{n:0100d}" for n in range(50)]
    for n in range(1, 31):
        mallory.say(_publish(opened.bus, n, 1, to=names))
    assert len(play.broker.registry.buses["ebus:server/votes"].log) <= 4


@pytest.mark.parametrize("limit", ["user_log_bytes", "total_log_bytes"])
def test_law_10_logs_of_a_user_drop_their_oldest_messages_over_their_bound(limit):
    play = Play(limits=Limits(**{limit: 10_000}))
    mallory = Raw(play).hello()
    numbers = [mallory.say(frames.Open(n, "server", f"b{n}"))[0].bus for n in range(1, 6)]
    for id_ in range(1, 51):
        (ok,) = mallory.say(_publish(numbers[id_ % 5], id_, "x" * 500))
        assert isinstance(ok, frames.Ok)
    logs = [bus.log for bus in play.broker.registry.buses.values()]
    assert sum(log.bytes for log in logs) <= 10_000 + 5 * 600
    assert sum(len(log) for log in logs) < 50
    assert all(log.in_memory_after for log in logs if len(log) < 10), "a reader reads the older ones from the backend"


def test_law_10_messages_that_wait_are_bounded_in_bytes():
    play = Play(limits=Limits(request_rate=1.0, request_burst=1.0, user_received_bytes=100_000))
    clients = [Raw(play).hello() for _ in range(3)]
    pings = frames.join([frames.encode(frames.Ping(n)) for n in range(10_000)])
    closed = []
    for client in clients:
        play.do(play.broker.receive(client.player.conn, pings, play.now))
        closed.append(client.hung_up)
    assert closed == [False, False, True]
    assert play.broker.accounts.totals["received"] <= 100_000


def test_account_is_forgotten_when_nothing_is_held():
    play = Play()
    alice = Raw(play, "alice").hello()
    alice.say(frames.Open(1, "server", None))
    assert len(play.broker.accounts) == 1
    alice.player.lose()
    for _ in range(3):
        play.pass_time(play.limits.creator_seconds + IDLE_SECONDS)
    assert len(play.broker.accounts) == 0


# --- what accounts hold is what the broker holds ------------------------------------------------------------------------

LIMITS = Limits(
    user_opened=12,
    user_buses=6,
    user_presence_bytes=60,
    user_log_bytes=3_000,
    user_pending_bytes=2_000,
    gone_seconds=2.0,
)


class Books(RuleBasedStateMachine):
    """Clients of two users do anything; the books are kept."""

    @initialize()
    def begin(self) -> None:
        self.play = Play(limits=LIMITS)
        self.clients: list[Raw] = []
        self.ids = iter(range(1, 1 << 30))

    @precondition(lambda self: len(self.clients) < 5)
    @rule(user=st.sampled_from(["alice", "bob"]))
    def come(self, user: str) -> None:
        self.clients.append(Raw(self.play, user).hello())

    def client(self, data: st.DataObject) -> Raw:
        return data.draw(st.sampled_from(self.clients))

    def bus(self, client: Raw, data: st.DataObject) -> int:
        conn = self.play.broker._connections[client.player.conn]
        return data.draw(st.sampled_from(sorted(conn.open))) if conn.open else 1

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), name=st.sampled_from(["a", "b", "c", None]), keys=st.booleans())
    def open(self, data: st.DataObject, name: str | None, keys: bool) -> None:
        given = {"retain": "keys"} if keys else {"size": 5}
        self.client(data).say(frames.Open(1, "server", name, given))

    @precondition(lambda self: self.clients)
    @rule(
        data=st.data(),
        size=st.integers(1, 900),
        key=st.sampled_from([None, "k", "l"]),
        expect=st.sampled_from([None, 1]),
    )
    def write(self, data: st.DataObject, size: int, key: str | None, expect: int | None) -> None:
        client = self.client(data)
        client.say(_publish(self.bus(client, data), next(self.ids), "x" * size, key=key, expect=expect))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), size=st.integers(0, 40))
    def set_presence(self, data: st.DataObject, size: int) -> None:
        client = self.client(data)
        client.say(frames.SetPresence(self.bus(client, data), msgspec.Raw(pack("x" * size))))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), deletes=st.booleans())
    def leave(self, data: st.DataObject, deletes: bool) -> None:
        client = self.client(data)
        bus = self.bus(client, data)
        client.say(frames.Delete(1, bus) if deletes else frames.Leave(bus))

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        client = self.client(data)
        self.clients.remove(client)
        client.player.lose()

    @rule(works=st.booleans())
    def storage(self, works: bool) -> None:
        self.play.logs_work = works
        self.play.work()

    @rule(seconds=st.sampled_from([1.0, 100.0]))
    def pass_time(self, seconds: float) -> None:
        self.play.pass_time(seconds)

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "play"):
            return
        broker = self.play.broker
        registry = broker.registry
        buses, catalogue = list(registry.buses.values()), registry.catalogue
        unnamed = [bus for bus in buses if bus.info.address.unnamed]
        kept = [catalogue[uri] for uri in catalogue._listed]
        reserved = registry._reserved.values()
        in_flight = [
            size
            for bus in buses
            if bus._admission is not None
            for size in (
                *(size for _, size in bus._admission.in_flight.values()),
                *(waiting[3] for waiting in bus._admission._waiting.values()),
            )
        ]
        holds = {
            "connections": len(broker._connections),
            "opened": sum(len(conn.open) for conn in broker._connections.values()),
            "received": sum(conn.unread.size for conn in broker._connections.values()),
            "pending": sum(in_flight),
            "presence": sum(len(m.state) for bus in buses for m in bus.presence._members.values() if m.account),
            "specs": sum(spec_size(bus.info.spec) for bus in unnamed)
            + sum(b.size for b in kept)
            + sum(r[1] for r in reserved),
            "buses": len(unnamed) + len(kept) + len(reserved),
            "log": sum(bus.log.bytes for bus in buses),
        }
        assert broker.accounts.totals == holds
        for kind, total in holds.items():
            assert sum(account.held[kind] for account in broker.accounts) == total
        assert all(n >= 0 for account in broker.accounts for n in account.held.values())

    def teardown(self) -> None:
        if not hasattr(self, "play"):
            return
        self.play.logs_work = True
        self.play.work()
        for client in self.clients:
            for number in list(self.play.broker._connections[client.player.conn].open):
                client.say(frames.Delete(1, number))
            client.player.lose()
        for _ in range(4):
            self.play.pass_time(100.0)
        kept = len(self.play.broker.registry.catalogue)
        self.the_books_are_right()
        totals = self.play.broker.accounts.totals
        assert {kind: n for kind, n in totals.items() if n and kind not in ("buses", "specs")} == {}
        assert totals["buses"] == kept


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
