"""The nine laws, under every kind of trouble in any order.

One bus, several people, a broker that is killed now and then, a bus that is deleted under everyone's feet, lines that break
at the worst moment: after a write was accepted and before its writer heard so. The same machine plays with each kind of
retention, with a filter in the owner's kernel, and over each backend: in memory, and in a file that the next server finds as
the killed one left it. Where each law of the design is held:

| law | where |
| --- | --- |
| 1. Everyone hears | `law_1_everyone_hears` at the end of a play: who listens has heard all there was, once |
| 2. One order | `law_2_one_order`, always; at the end, everyone shows the same state |
| 3. Log before fan-out | `law_3_what_was_told_is_kept`, after each kill; `take`: what is heard is in the log, of one history |
| 4. No silent gap | `check_gap`, for each message read and at the end; a snapshot is whole (`law_1_everyone_hears`) |
| 5. Accepted or refused, once | `law_5_accepted_or_refused_once` at the end; `play.Player`: nobody is answered twice |
| 6. Identity is stamped | `law_6_identity_is_stamped`, always |
| 7. Scopes hold | `mallory_guesses`: who has opened nothing learns nothing, whatever is said (`test_broker` has the rest) |
| 8. Everything is bounded | `law_8_everything_is_bounded`, always |
| 9. Closed says so | `law_1_everyone_hears`: at the end a stream is caught up, or has said why it is not |
"""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from ebus_jupyter.core.broker.entry import Entry
from ebus_jupyter.core.client.channel import Channel
from ebus_jupyter.core.client.reader import Reader
from ebus_jupyter.core.client.replica import MISSING, Replica
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import OWNER, Participant
from ebus_jupyter.errors import Closed, Conflict, EbusError, FilterUnavailable, Lagged, NoSuchBus, TooLarge

from .logs import FileLogs, Logs, perform
from .play import Play, Raw
from .player import Player, unpack

USERS = ("alice", "bob", "carol")
KEYS = ("left", "right", "up", "down")
DELETED = (Closed, NoSuchBus)
"""How one learns that the bus was deleted: there, or when one is back."""
MOSTLY = st.sampled_from([True, True, False])
SMALL = Limits(page_bytes=300, send_bytes=300, gone_seconds=5, creator_seconds=20)


class Listener:
    """A reader, and what it was told, held against what happened."""

    def __init__(self, player: Player, bus: Channel, reader: Reader, since_start: bool) -> None:
        self.player = player
        self.bus = bus
        self.reader = reader
        self.last = 0 if since_start else None  # the offset up to which it has heard all; None: it has not begun
        self.heard = 0
        self.unsure = False  # it was told that something was missed: what comes next needs not follow
        self.mirror = Replica()
        self.in_snapshot = False
        self.whole = since_start  # its mirror holds the whole state
        self.life: int | None = None  # which history it hears, once it has heard something of it
        self.ended: EbusError | None = None


class Laws(RuleBasedStateMachine):
    """Reliable broadcast over an unreliable world."""

    retentions: tuple[str, ...] = ("log", "latest", "keys")
    filtered = False
    logs = Logs

    players = Bundle("players")

    # --- the play ---------------------------------------------------------------------------------------------------

    @initialize(target=players, data=st.data())
    def begin(self, data: st.DataObject) -> Any:
        retain = data.draw(st.sampled_from(self.retentions), "retain")
        size = data.draw(st.integers(2, 6), "size")
        self.play = Play(limits=SMALL, logs=self.logs())
        self.given: dict[str, Any] = {"retain": retain, "size": size}
        self.retain, self.size = retain, size
        self.next = 0
        self.buses: dict[Player, Channel] = {}
        self.listeners: list[Listener] = []
        self.wrote: dict[tuple[str, int], tuple[Any, Participant, Channel]] = {}
        self.mallory = Raw(self.play, "mallory").hello()
        self.owner: Player | None = None
        if self.filtered:
            self.owner = self.play.kernel("alice", "k1")
            self.open(self.owner)
            self.play.settle()
        return multiple(self.join("alice", "start", quietly=True), self.join("bob", None, quietly=True))

    def open(self, player: Player) -> None:
        if player is self.owner:
            self.buses[player] = player.open("votes", "server", filter=OWNER, **self.given)
        else:
            # Where a kernel filters, nobody else makes the bus: it would be one that nobody filters.
            how = {"create": False} if self.filtered else self.given
            self.buses[player] = player.open("votes", "server", **how)

    @rule(target=players, user=st.sampled_from(USERS), since=st.sampled_from([None, "start"]), quietly=MOSTLY)
    def comes(self, user: str, since: Any, quietly: bool) -> Any:
        return self.join(user, since, quietly=quietly) if len(self.buses) < 5 else multiple()

    def join(self, user: str, since: Any, *, quietly: bool) -> Player:
        player = self.play.player(user)
        self.open(player)
        self.listen(player, since)
        self.then(quietly)
        return player

    def then(self, quietly: bool) -> None:
        """Either all goes well from here on, for a while, or the next trouble comes in the midst of it."""
        if quietly:
            self.play.settle()

    @rule(player=players, since=st.sampled_from([None, "start"]))
    def listen(self, player: Player, since: Any) -> None:
        bus = self.buses[player]
        if len(self.listeners) < 8 and bus.error is None:
            self.listeners.append(Listener(player, bus, Reader(player.session, bus, since), since == "start"))

    @rule(player=players, since=st.sampled_from([None, "start"]))
    def open_again(self, player: Player, since: Any) -> None:
        """After the bus was deleted."""
        if self.buses[player].error is not None:
            self.open(player)
            self.listen(player, since)

    @rule(player=players, n=st.integers(1, 4), quietly=MOSTLY, data=st.data())
    def write(self, player: Player, n: int, quietly: bool, data: st.DataObject) -> None:
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
        self.then(quietly)

    def publish(self, player: Player, how: dict[str, Any]) -> None:
        bus = self.buses[player]
        if bus.error is None:
            self.next += 1
            id_ = player.write(bus, self.next, **how)
            self.wrote[player.session.instance, id_] = (self.next, player.who, bus)

    @rule(player=players)
    def say(self, player: Player) -> None:
        player.say()

    @rule(player=players, most=st.integers(1, 5))
    def hear(self, player: Player, most: int) -> None:
        player.hear(most)

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

    @rule(player=players, quietly=MOSTLY)
    def reconnect(self, player: Player, quietly: bool) -> None:
        player.connect()
        self.then(quietly)

    @rule()
    def everybody_is_back(self) -> None:
        self.all_is_well()

    @rule(player=players)
    def repeat_oneself(self, player: Player) -> None:
        """A proxy, or a retry too many, says everything without an answer twice."""
        bus = self.buses[player]
        if bus.number and player.conn:
            for publish in bus.unacked.values():
                player.send(frames.join([frames.encode(publish)]))

    @rule(player=players)
    def stop_reading(self, player: Player) -> None:
        player.block()

    @rule(player=players)
    def read_again(self, player: Player) -> None:
        player.drain()

    @rule(player=players)
    def delete_the_bus(self, player: Player) -> None:
        bus = self.buses[player]
        if player.conn and bus.is_open and self.play.logs_work and len(self.play.lives) < 4:
            player.session.delete(bus)
            player.say()
            self.taken_again()

    def taken_again(self) -> None:
        """The owner makes the bus again: nobody else may."""
        if self.owner is not None:
            self.owner.asked.clear()
            if not self.owner.conn:
                self.owner.connect()
            self.play.settle()
            if self.buses[self.owner].error is not None:
                self.open(self.owner)
                self.play.settle()

    @rule(quietly=MOSTLY)
    def restart(self, quietly: bool) -> None:
        self.play.restart()
        self.law_3_what_was_told_is_kept()
        if self.owner is not None:  # or the bus is taken by nobody
            self.owner.connect()
        self.mallory = Raw(self.play, "mallory").hello()
        if quietly:
            self.all_is_well()

    @rule(works=MOSTLY)
    def the_log_stalls_and_goes_on(self, works: bool) -> None:
        self.play.logs_work = works
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
        for life in self.lives():
            offsets = [entry.offset for entry in life]
            assert offsets == sorted(set(offsets)), "an offset was reused, or the order went back"
            by_writer: dict[bytes, list[int]] = {}
            for entry in life:
                by_writer.setdefault(entry.sender, []).append(entry.id)
            for ids in by_writer.values():
                assert ids == sorted(set(ids)), "a writer's writes changed places, or one was accepted twice"

    def law_3_what_was_told_is_kept(self) -> None:
        """What the next server finds, after any instant."""
        history = self.history()
        found = perform(self.play.durable.open("ebus:server/votes", None, ""))
        if found is None:
            assert not history, "a bus is gone, with what was told of it"
            return
        assert found.last == (history[-1].offset if history else 0)
        assert found.epoch
        kept = {entry.offset: entry for entry in found.entries}
        wanted = history[-self.size :] if self.retain == "log" else history[-1:] if self.retain == "latest" else history
        for entry in wanted:
            if not self.is_replaced(entry, history):
                assert kept.get(entry.offset) == entry, "what was told is not kept as it was"
        answered = dict(found.ids())
        for entry in history:
            assert answered[self.id_of_sender(entry), entry.id] == entry.offset, "a retry would be accepted once more"

    @invariant()
    def law_6_identity_is_stamped(self) -> None:
        mine = {(self.id_of(instance), id_): wrote for (instance, id_), wrote in self.wrote.items()}
        for entry in [entry for life in self.lives() for entry in life]:
            sender = unpack(entry.sender, type=Participant)
            value, who, _ = mine[sender.id, entry.id]
            assert (sender.user, sender.kind, sender.kernel_id) == (who.user, who.kind, who.kernel_id)
            assert entry.deleted or self.kept_of(value) == unpack(entry.value)

    @invariant()
    def law_8_everything_is_bounded(self) -> None:
        if not hasattr(self, "play"):
            return
        for bus in self.play.broker.registry.buses.values():
            keys = 2 if self.retain == "keys" else 1  # as many marks of removed keys
            assert len(bus.log) <= keys * bus.info.spec.size
            assert set(bus.subscribers) <= set(self.play.wires)
        for player in self.play.players:
            assert player.forced == 0, "a full socket was handed messages"

    # --- at the end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if hasattr(self, "play"):
            try:
                self.all_is_told()
            finally:
                self.play.logs.close()

    def all_is_told(self) -> None:
        """The trouble ends, and everybody has heard everything."""
        self.all_is_well()
        for listener in self.listeners:
            self.follow(listener)
        self.law_1_everyone_hears()
        self.law_2_one_order()
        self.law_5_accepted_or_refused_once()

    def all_is_well(self) -> None:
        """Everyone is back, and nothing is on its way."""
        self.play.logs_work = True
        for player in self.buses:
            if not player.conn:
                player.connect()
            player.drain()
        self.quiet()

    def quiet(self) -> None:
        self.play.settle()

    def law_1_everyone_hears(self) -> None:
        history = self.history()
        for listener in self.listeners:
            if listener.ended is not None:
                assert isinstance(listener.ended, DELETED), "law 9: nothing but a deletion ends a stream here"
                assert len(self.play.lives) > 1
                continue
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
        accepted: dict[tuple[str, int], set[int]] = {}
        for life in self.lives():
            for entry in life:
                accepted.setdefault((self.id_of_sender(entry), entry.id), set()).add(entry.offset)
        for instance, id_ in self.wrote:
            player = next(player for player in self.buses if player.session.instance == instance)
            answer = player.answers.get(id_)
            assert answer is not None, "no answer to a write, though everyone is connected"
            offsets = accepted.get((self.id_of(instance), id_), set())
            if isinstance(answer, DELETED):
                assert len(self.play.lives) > 1, "nothing but a deletion leaves a writer in the dark"
            elif isinstance(answer, EbusError):
                assert isinstance(answer, self.refusals()), repr(answer)
                # In another life it may have been accepted: that was deleted, with the memory of it.
                assert not self.is_in(self.history(), instance, id_), f"refused with {answer!r}, and yet in the log"
            else:
                assert answer in offsets, "the ack's offset is not the log's"

    def is_in(self, history: list[Entry], instance: str, id_: int) -> bool:
        return any((self.id_of_sender(entry), entry.id) == (self.id_of(instance), id_) for entry in history)

    def refusals(self) -> tuple[type[EbusError], ...]:
        return (Conflict, TooLarge)

    # --- reading along ----------------------------------------------------------------------------------------------

    def follow(self, listener: Listener) -> None:
        for item in self.read_all(listener):
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

    def read_all(self, listener: Listener) -> list[Any]:
        found: list[Any] = []
        try:
            while item := listener.player.read_next(listener.reader):
                found.append(item)
        except EbusError as ended:
            listener.ended = ended
        return found

    def take(self, listener: Listener, item: frames.Delivery) -> None:
        found = [(n, entry) for n, life in enumerate(self.lives()) for entry in life if self.is_told_by(item, entry)]
        assert found, "law 3: what was heard is not in the log"
        if listener.unsure:
            listener.life = None
        if listener.life is not None:
            found = [(n, entry) for n, entry in found if n == listener.life]
            assert found, "law 3: one reader, two histories, and no word of it"
        listener.life, entry = found[-1]
        assert self.is_for(listener, entry), "somebody else's message"
        if listener.last is not None and not listener.unsure:
            assert item.offset > listener.last, "law 4: offsets strictly increase"
            self.check_gap(listener, listener.last, item.offset)
        listener.unsure = False
        listener.heard += 1
        listener.last = item.offset
        value = MISSING if item.deleted else unpack(item.value)
        listener.mirror.apply(item.key or "", item.offset, value)

    @staticmethod
    def is_told_by(item: frames.Delivery, entry: Entry) -> bool:
        sender = unpack(entry.sender, type=Participant)
        told = item.offset, item.id, item.key, item.deleted, bytes(item.value), item.sender
        return told == (entry.offset, entry.id, entry.key, entry.deleted, entry.value, sender)

    def check_gap(self, listener: Listener, after: int, until: int) -> None:
        """Nothing that was for this listener lies in between, but what a newer one has replaced."""
        if listener.unsure:
            return
        history = self.history() if listener.life is None else self.lives()[listener.life]
        if not listener.heard and self.retain == "log":  # it wanted what is kept, and that is not everything
            after = max(after, history[-1].offset - self.size if history else 0)
        for entry in history:
            if after < entry.offset < until and self.is_for(listener, entry) and not self.is_replaced(entry, history):
                raise AssertionError(f"law 4: a silent gap: {listener.player} did not hear offset {entry.offset}")

    def is_for(self, listener: Listener, entry: Entry) -> bool:
        sender = unpack(entry.sender, type=Participant)
        own = sender.id == self.id_of(listener.player.session.instance)
        if own and not entry.echo:
            return False
        return entry.to is None or own or listener.player.who.user in entry.to

    def is_replaced(self, entry: Entry, history: list[Entry]) -> bool:
        if self.retain == "log":
            return False
        if entry.deleted:  # the marks of removed keys are bounded; what counts is that nobody goes on showing the key
            return True
        return any(other.offset > entry.offset and other.key == entry.key for other in history)

    # --- words ------------------------------------------------------------------------------------------------------

    def history(self) -> list[Entry]:
        """All that was accepted since the bus was made."""
        return self.play.kept

    def lives(self) -> list[list[Entry]]:
        """The same, and before that what was deleted."""
        return self.play.lives if hasattr(self, "play") else []

    def kept_of(self, value: Any) -> Any:
        return value

    @staticmethod
    def id_of(instance: str) -> str:
        return hashlib.blake2b(instance.encode(), digest_size=8).hexdigest()

    @staticmethod
    def id_of_sender(entry: Entry) -> str:
        return unpack(entry.sender, type=Participant).id


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


class LawsInAFile(Laws):
    logs = FileLogs


class FilteredLawsInAFile(FilteredLaws):
    logs = FileLogs


TestLaws = Laws.TestCase
TestFilteredLaws = FilteredLaws.TestCase
TestLawsInAFile = LawsInAFile.TestCase
TestFilteredLawsInAFile = FilteredLawsInAFile.TestCase
TestLawsInAFile.settings = settings(max_examples=settings.default.max_examples // 2)
TestFilteredLawsInAFile.settings = settings(max_examples=settings.default.max_examples // 2)
