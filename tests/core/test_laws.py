"""The nine laws, under every kind of trouble in any order.

One bus, several people, a broker that is killed now and then, lines that break at the worst moment: after a write was
accepted and before its writer heard so. Each law is an invariant, or part of `all_is_told` at the end of a play, and is
named there. The same machine plays with each kind of retention, and with a filter in the owner's kernel.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from ebus_jupyter.core import frames
from ebus_jupyter.core.entry import Entry
from ebus_jupyter.core.limits import Limits
from ebus_jupyter.core.link import BusLink
from ebus_jupyter.core.message import OWNER, Participant
from ebus_jupyter.core.reader import Reader
from ebus_jupyter.core.replica import MISSING, Replica
from ebus_jupyter.errors import Conflict, EbusError, FilterUnavailable, Lagged, TooLarge

from .play import Play, Player, Raw, unpack

USERS = ("alice", "bob", "carol")
KEYS = ("left", "right", "up", "down")
SMALL = Limits(page_bytes=300, send_bytes=300, gone_seconds=5, creator_seconds=20)


class Listener:
    """A reader, and what it was told, held against what happened."""

    def __init__(self, player: Player, bus: BusLink, reader: Reader, since_start: bool) -> None:
        self.player = player
        self.bus = bus
        self.reader = reader
        self.last = 0 if since_start else None  # the offset up to which it has heard all; None: it has not begun
        self.heard = 0
        self.unsure = False  # it was told that something was missed: what comes next needs not follow
        self.mirror = Replica()
        self.in_snapshot = False
        self.whole = since_start  # its mirror holds the whole state


class Laws(RuleBasedStateMachine):
    """Reliable broadcast over an unreliable world."""

    retentions: tuple[str, ...] = ("log", "latest", "keys")
    filtered = False

    players = Bundle("players")

    # --- the play ---------------------------------------------------------------------------------------------------

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        retain = data.draw(st.sampled_from(self.retentions), "retain")
        size = data.draw(st.integers(2, 6), "size")
        self.play = Play(limits=SMALL, durable=self.durable())
        self.given: dict[str, Any] = {"retain": retain, "size": size}
        self.retain, self.size = retain, size
        self.next = 0
        self.buses: dict[Player, BusLink] = {}
        self.listeners: list[Listener] = []
        self.wrote: dict[tuple[str, int], tuple[Any, Participant, BusLink]] = {}
        self.mallory = Raw(self.play, "mallory").hello()
        self.owner: Player | None = None
        if self.filtered:
            self.owner = self.play.kernel("alice", "k1")
            self.buses[self.owner] = self.owner.opened("votes", "server", filter=OWNER, **self.given)

    def durable(self) -> Any:
        return None

    @rule(target=players, user=st.sampled_from(USERS), since=st.sampled_from([None, "start"]))
    def join(self, user: str, since: Any) -> Any:
        if len(self.buses) > 4:
            return multiple()
        player = self.play.player(user)
        self.buses[player] = player.open("votes", "server", **({} if self.filtered else self.given))
        self.listen(player, since)
        return player

    @rule(player=players, since=st.sampled_from([None, "start"]))
    def listen(self, player: Player, since: Any) -> None:
        bus = self.buses[player]
        if len(self.listeners) < 8 and bus.error is None:
            self.listeners.append(Listener(player, bus, Reader(player.link, bus, since), since == "start"))

    @rule(player=players, n=st.integers(1, 4), data=st.data())
    def write(self, player: Player, n: int, data: st.DataObject) -> None:
        for _ in range(n):
            how: dict[str, Any] = {}
            if self.retain == "keys":
                how["key"] = data.draw(st.sampled_from(KEYS), "key")
                how["deleted"] = data.draw(st.integers(0, 3), "deleted") == 0
            else:
                kind = data.draw(st.sampled_from(["all", "all", "quiet", "private"]), "for")
                how = {"quiet": {"echo": False}, "private": {"to": ["bob"]}}.get(kind, {})
            if data.draw(st.integers(0, 5), "compare") == 0:
                how["expect"] = data.draw(st.integers(0, len(self.play.kept)), "expect")
            self.publish(player, how)

    def publish(self, player: Player, how: dict[str, Any]) -> None:
        bus = self.buses[player]
        if bus.error is None:
            self.next += 1
            id_ = player.write(bus, self.next, **how)
            self.wrote[player.link.instance, id_] = (self.next, player.who, bus)

    @rule(player=players)
    def say(self, player: Player) -> None:
        player.say()

    @rule(player=players, most=st.integers(1, 5))
    def hear(self, player: Player, most: int) -> None:
        player.hear(most)

    @rule()
    def settle(self) -> None:
        self.play.settle()

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        if self.listeners:
            self.follow(data.draw(st.sampled_from(self.listeners), "listener"))

    # --- the trouble ------------------------------------------------------------------------------------------------

    @rule(player=players)
    def lose_line(self, player: Player) -> None:
        player.lose()

    @rule(player=players)
    def lose_line_before_the_answer(self, player: Player) -> None:
        player.say()
        player.lose()

    @rule(player=players)
    def reconnect(self, player: Player) -> None:
        if player.link.closed is None:
            player.connect()

    @rule(player=players)
    def repeat_oneself(self, player: Player) -> None:
        """A proxy, or a retry too many, says everything without an answer twice."""
        bus = self.buses[player]
        if bus.number and player.conn:
            for publish in bus.pending.values():
                player.send(frames.join([frames.encode(publish)]))

    @rule(player=players)
    def stop_reading(self, player: Player) -> None:
        player.block()

    @rule(player=players)
    def read_again(self, player: Player) -> None:
        player.drain()

    @rule()
    def restart(self) -> None:
        self.play.restart()
        if self.owner is not None:  # or the bus is taken by nobody
            self.owner.connect()
        self.mallory = Raw(self.play, "mallory").hello()

    @rule()
    def the_log_stalls(self) -> None:
        self.play.logs_work = False

    @rule()
    def the_log_goes_on(self) -> None:
        self.play.logs_work = True
        self.play.work()

    @rule(number=st.integers(-1, 1 << 31), data=st.data())
    def mallory_guesses(self, number: int, data: st.DataObject) -> None:
        """Somebody who has opened nothing says anything about any bus, the true one too."""
        real = [bus.number for bus in self.buses.values() if bus.number]
        bus = data.draw(st.sampled_from([number, *real]), "bus")
        nil = frames.NIL
        heard = self.mallory.say(
            frames.Publish(bus, 1, nil),
            frames.Subscribe(1, bus),
            frames.Fetch(2, bus),
            frames.SetPresence(bus, watch=True),
            frames.FilterAnswer(bus, 1, nil),
            frames.Delete(3, bus),
            frames.Leave(bus),
        )
        assert {type(frame) for frame in heard} == {frames.Error}, "law 7: scopes hold"
        assert {frame.code for frame in heard} == {"no_such_bus"}, "law 7: nothing is learnt, not even that it exists"

    # --- what must hold, always -------------------------------------------------------------------------------------

    @invariant()
    def law_2_one_order(self) -> None:
        offsets = [entry.offset for entry in self.history()]
        assert offsets == sorted(set(offsets)), "an offset was reused, or the order went back"
        by_writer: dict[bytes, list[int]] = {}
        for entry in self.history():
            by_writer.setdefault(entry.sender, []).append(entry.id)
        for ids in by_writer.values():
            assert ids == sorted(set(ids)), "a writer's writes changed places, or one was accepted twice"

    @invariant()
    def law_6_identity_is_stamped(self) -> None:
        mine = {(self.id_of(instance), id_): wrote for (instance, id_), wrote in self.wrote.items()}
        for entry in self.history():
            sender = unpack(entry.sender, type=Participant)
            value, who, _ = mine[sender.id, entry.id]
            assert (sender.user, sender.kind, sender.kernel_id) == (who.user, who.kind, who.kernel_id)
            assert entry.deleted or self.kept_of(value) == unpack(entry.value)

    @invariant()
    def law_8_everything_is_bounded(self) -> None:
        if not hasattr(self, "play"):
            return
        for bus in self.play.broker._buses.values():
            keys = 2 if self.retain == "keys" else 1  # as many marks of removed keys
            assert len(bus.log) <= keys * bus.spec.size
            assert set(bus.behind) <= set(bus.readers)
            assert set(bus.readers) <= set(self.play.wires)
        for player in self.play.players:
            assert player.forced == 0, "a full socket was handed messages"

    # --- at the end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if hasattr(self, "play"):
            self.all_is_told()

    def all_is_told(self) -> None:
        """The trouble ends: everyone is back, and nothing is on its way."""
        self.play.logs_work = True
        for player in self.buses:
            if not player.conn:
                player.connect()
            player.drain()
        self.quiet()
        for listener in self.listeners:
            self.follow(listener)
        self.law_1_everyone_hears()
        self.law_2_one_order()
        self.law_5_accepted_or_refused_once()

    def quiet(self) -> None:
        self.play.settle()

    def law_1_everyone_hears(self) -> None:
        history = self.history()
        for listener in self.listeners:
            assert listener.reader.caught_up, "law 9: a stream that just goes quiet"
            if listener.last is not None:
                self.check_gap(listener, listener.last, 1 << 62)
            if self.retain == "keys" and listener.last is not None:
                state: dict[str | None, Any] = {}
                for entry in history:
                    state[entry.key] = MISSING if entry.deleted else unpack(entry.value)
                for key in list(listener.mirror.keys()):
                    assert listener.mirror.shown(key) == state[key], "law 2: everyone ends with the same state"
                for key in KEYS if listener.whole else ():
                    assert listener.mirror.shown(key) == state.get(key, MISSING), "law 4: a snapshot is whole"

    def law_5_accepted_or_refused_once(self) -> None:
        accepted = {(unpack(entry.sender, type=Participant).id, entry.id): entry.offset for entry in self.history()}
        for instance, id_ in self.wrote:
            player = next(player for player in self.buses if player.link.instance == instance)
            answer = player.answers.get(id_)
            assert answer is not None, "no answer to a write, though everyone is connected"
            offset = accepted.get((self.id_of(instance), id_))
            if isinstance(answer, EbusError):
                assert isinstance(answer, self.refusals()), repr(answer)
                assert offset is None, f"refused with {answer!r}, and yet in the log"
            else:
                assert answer == offset, "the ack's offset is not the log's"

    def refusals(self) -> tuple[type[EbusError], ...]:
        return (Conflict, TooLarge)

    # --- reading along ----------------------------------------------------------------------------------------------

    def follow(self, listener: Listener) -> None:
        for item in listener.player.read(listener.reader):
            if isinstance(item, Lagged):
                listener.unsure = True
                listener.last = item.resume_after if listener.last is None else listener.last
                if self.retain == "keys":
                    listener.mirror.begin_snapshot()
                    listener.in_snapshot = True
                continue
            self.take(listener, item)
        if listener.last is None and listener.reader._cursor is not None:
            listener.last = listener.reader._cursor
        if listener.in_snapshot and listener.reader.caught_up:
            listener.mirror.end_snapshot()
            listener.in_snapshot = False

    def take(self, listener: Listener, item: frames.Delivery) -> None:
        entry = next(entry for entry in self.history() if entry.offset == item.offset)
        assert (item.id, item.key, item.deleted) == (entry.id, entry.key, entry.deleted), "law 3: two histories"
        assert bytes(item.value) == entry.value, "law 3: the log has another value"
        assert item.sender == unpack(entry.sender, type=Participant)
        assert self.is_for(listener, entry), "somebody else's message"
        if listener.last is not None and not listener.unsure:
            assert item.offset > listener.last, "law 4: offsets strictly increase"
            self.check_gap(listener, listener.last, item.offset)
        listener.unsure = False
        listener.heard += 1
        listener.last = item.offset
        value = MISSING if item.deleted else unpack(item.value)
        listener.mirror.apply(item.key or "", item.offset, value)

    def check_gap(self, listener: Listener, after: int, until: int) -> None:
        """Nothing that was for this listener lies in between, but what a newer one has replaced."""
        if listener.unsure:
            return
        if not listener.heard and self.retain == "log":  # it wanted what is kept, and that is not everything
            after = max(after, self.history()[-1].offset - self.size if self.history() else 0)
        for entry in self.history():
            if after < entry.offset < until and self.is_for(listener, entry) and not self.is_replaced(entry):
                raise AssertionError(f"law 4: a silent gap: {listener.player} did not hear offset {entry.offset}")

    def is_for(self, listener: Listener, entry: Entry) -> bool:
        sender = unpack(entry.sender, type=Participant)
        own = sender.id == self.id_of(listener.player.link.instance)
        if own and not entry.echo:
            return False
        return entry.to is None or own or listener.player.who.user in entry.to

    def is_replaced(self, entry: Entry) -> bool:
        if self.retain == "log":
            return False
        if entry.deleted:  # the marks of removed keys are bounded; what counts is that nobody goes on showing the key
            return True
        return any(other.offset > entry.offset and other.key == entry.key for other in self.history())

    # --- words ------------------------------------------------------------------------------------------------------

    def history(self) -> list[Entry]:
        return self.play.kept if hasattr(self, "play") else []

    def kept_of(self, value: Any) -> Any:
        return value

    @staticmethod
    def id_of(instance: str) -> str:
        import hashlib

        return hashlib.blake2b(instance.encode(), digest_size=8).hexdigest()


def tenfold(value: Any, sender: Participant) -> Any:
    return None if value is None else value * 10  # None: a key is removed


class FilteredLaws(Laws):
    """The same laws on a bus that its owner's kernel filters, slowly and out of order."""

    retentions = ("log", "keys")
    filtered = True

    @rule(data=st.data())
    def judge(self, data: st.DataObject) -> None:
        assert self.owner is not None
        if self.owner.asked:
            self.owner.filter = tenfold
            self.owner.judge(data.draw(st.integers(0, len(self.owner.asked) - 1), "which"))
            self.owner.filter = None
            self.owner.say()

    @rule()
    def lose_the_owner(self) -> None:
        assert self.owner is not None
        self.owner.lose()
        self.owner.asked.clear()

    @rule()
    def the_owner_is_back(self) -> None:
        assert self.owner is not None
        self.owner.connect()
        self.owner.asked.clear()
        self.play.settle()

    @rule()
    def the_filter_is_too_slow(self) -> None:
        self.play.pass_time(SMALL.filter_seconds)

    def quiet(self) -> None:
        assert self.owner is not None
        self.play.settle()
        self.owner.filter = tenfold
        while self.owner.asked:
            self.owner.judge()
            self.play.settle()

    def kept_of(self, value: Any) -> Any:
        return value * 10

    def refusals(self) -> tuple[type[EbusError], ...]:
        return (Conflict, TooLarge, FilterUnavailable)


TestLaws = Laws.TestCase
TestFilteredLaws = FilteredLaws.TestCase
