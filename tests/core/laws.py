"""The state machine that checks the laws; see `test_laws`."""

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

from ebus_jupyter.core.broker.entry import Entry
from ebus_jupyter.core.client.channel import Channel
from ebus_jupyter.core.client.reader import Reader
from ebus_jupyter.core.client.replica import MISSING
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import OWNER, Participant
from ebus_jupyter.core.protocol.seat import decode_seat
from ebus_jupyter.errors import BackendError, Closed, Conflict, EbusError, NoSuchBus, Rejected, TooLarge

from .listener import History, Listener, id_of, sender_of
from .logs import Logs, perform
from .play import Play, Raw
from .player import Player, unpack

USERS = ("alice", "bob", "carol")
KEYS = ("left", "right", "up", "down")
DELETED = (Closed, NoSuchBus)
"""The errors that report a deleted bus: at once, or after a reconnect."""
MOSTLY = st.sampled_from([True, True, False])
LIMITS = Limits(page_bytes=300, send_bytes=300, gone_seconds=5, creator_seconds=20)


class Laws(RuleBasedStateMachine):
    """Reliable broadcast over unreliable parts."""

    retentions: tuple[str, ...] = ("log", "latest", "keys")
    filtered = False
    logs = Logs

    players = Bundle("players")

    # --- the play ---------------------------------------------------------------------------------------------------

    @initialize(target=players, data=st.data())
    def begin(self, data: st.DataObject) -> Any:
        retain = data.draw(st.sampled_from(self.retentions), "retain")
        size = data.draw(st.integers(2, 6), "size")
        self.play = Play(limits=LIMITS, logs=self.logs())
        self.given: dict[str, Any] = {"retain": retain, "size": size}
        self.history = History(self.play, retain, size)
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
            # A filtered bus is created by its owner: one that another participant created would have no filter.
            how = {"create": False} if self.filtered else self.given
            self.buses[player] = player.open("votes", "server", **how)

    @rule(target=players, user=st.sampled_from(USERS), since=st.sampled_from([None, "start"]), quietly=MOSTLY)
    def participant_joins(self, user: str, since: Any, quietly: bool) -> Any:
        return self.join(user, since, quietly=quietly) if len(self.buses) < 5 else multiple()

    def join(self, user: str, since: Any, *, quietly: bool) -> Player:
        player = self.play.player(user)
        self.open(player)
        self.listen(player, since)
        self.settle_or_not(quietly)
        return player

    def settle_or_not(self, quietly: bool) -> None:
        """Let everything settle, or let the next fault come in between."""
        if quietly:
            self.play.settle()

    @rule(player=players, since=st.sampled_from([None, "start"]))
    def listen(self, player: Player, since: Any) -> None:
        bus = self.buses[player]
        if len(self.listeners) < 8 and bus.error is None:
            reader = Reader(player.session, bus, since)
            self.listeners.append(Listener(self.history, player, bus, reader, since == "start"))

    @rule(player=players, since=st.sampled_from([None, "start"]))
    def open_again(self, player: Player, since: Any) -> None:
        """Open the bus again after it was deleted."""
        if self.buses[player].error is not None:
            self.open(player)
            self.listen(player, since)

    @rule(player=players, n=st.integers(1, 4), quietly=MOSTLY, data=st.data())
    def write(self, player: Player, n: int, quietly: bool, data: st.DataObject) -> None:
        for _ in range(n):
            how: dict[str, Any] = {}
            if self.history.retain == "keys":
                how["key"] = data.draw(st.sampled_from(KEYS), "key")
                how["deleted"] = data.draw(st.integers(0, 3), "deleted") == 0
            elif self.history.retain == "log":
                kind = data.draw(st.sampled_from(["all", "all", "quiet", "private"]), "for")
                how = {"quiet": {"echo": False}, "private": {"to": ["bob"]}}.get(kind, {})
            if data.draw(st.integers(0, 5), "compare") == 0:
                how["expect"] = data.draw(st.integers(0, len(self.play.kept)), "expect")
            self.publish(player, how)
        self.settle_or_not(quietly)

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
            data.draw(st.sampled_from(self.listeners), "listener").read()

    # --- faults -----------------------------------------------------------------------------------------------------

    @rule(player=players)
    def lose_connection(self, player: Player) -> None:
        player.lose()

    @rule(player=players)
    def lose_connection_before_the_answer(self, player: Player) -> None:
        player.say()
        player.lose()

    @rule(player=players, quietly=MOSTLY)
    def reconnect(self, player: Player, quietly: bool) -> None:
        player.connect()
        self.settle_or_not(quietly)

    @rule()
    def everyone_reconnects(self) -> None:
        self.recover()

    @rule(player=players)
    def repeat_unanswered_writes(self, player: Player) -> None:
        """Send every unanswered write twice, as a proxy or a needless retry might."""
        bus = self.buses[player]
        if bus.number and player.conn:
            for publish in bus.unacked.values():
                player.send(frames.join([frames.encode(publish)]))

    @rule(player=players)
    def pause_reading(self, player: Player) -> None:
        player.block()

    @rule(player=players)
    def resume_reading(self, player: Player) -> None:
        player.drain()

    @rule(player=players)
    def delete_the_bus(self, player: Player) -> None:
        player = self.owner or player  # only its maker may delete a bus with a filter
        bus = self.buses[player]
        if player.conn and bus.is_open and self.play.logs_work and len(self.play.lives) < 4:
            player.session.delete(bus)
            player.say()
            self.recreate_owned_bus()

    def recreate_owned_bus(self) -> None:
        """Let the owner create the bus again: no other participant may."""
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
        self.law_3_received_messages_are_kept()
        if self.owner is not None:
            self.owner.connect()
        self.mallory = Raw(self.play, "mallory").hello()
        if quietly:
            self.recover()

    @rule(works=MOSTLY)
    def stall_or_resume_the_log(self, works: bool) -> None:
        self.play.logs_work = works
        self.play.work()

    @rule(fails=MOSTLY)
    def fill_the_disk_or_make_room(self, fails: bool) -> None:
        self.play.failing = BackendError("the disk is full.") if fails else None

    @rule(number=st.integers(-1, 1 << 31), data=st.data())
    def mallory_sends_frames_for_a_bus(self, number: int, data: st.DataObject) -> None:
        """A client that has opened no bus sends frames for any number, the bus's own among them."""
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
        assert {frame.code for frame in heard} == {"no_such_bus"}, "law 7: not even its existence is revealed"

    # --- what must hold, always -------------------------------------------------------------------------------------

    @invariant()
    def law_2_one_order(self) -> None:
        for life in self.lives:
            offsets = [entry.offset for entry in life]
            assert offsets == sorted(set(offsets)), "an offset was reused, or the order went back"
            by_writer: dict[bytes, list[int]] = {}
            for entry in life:
                by_writer.setdefault(entry.sender, []).append(entry.id)
            for ids in by_writer.values():
                assert ids == sorted(set(ids)), "a writer's writes changed places, or one was accepted twice"

    def law_3_received_messages_are_kept(self) -> None:
        """The next server finds everything that was committed, whenever the last one was killed."""
        history = self.history.current
        found = perform(self.play.durable.open("ebus:server/votes", None, ""))
        if found is None:
            assert not history, "a bus is gone, with messages that were received"
            return
        assert found.last == (history[-1].offset if history else 0)
        assert found.epoch
        entries = found.entries
        if found.start > found.floor:  # the older ones are read when they are asked for
            entries, _ = self.play.durable.read("ebus:server/votes", found.floor, 1 << 20)
        kept = {entry.offset: entry for entry in entries}
        retained = {"log": history[-self.history.size :], "latest": history[-1:], "keys": history}
        for entry in retained[self.history.retain]:
            if not self.history.is_replaced(entry, history):
                assert kept.get(entry.offset) == entry, "a received message is not kept as it was"
        answered = dict(found.ids())
        for entry in history:
            assert answered[sender_of(entry).id, entry.id] == entry.offset, "a retry would be accepted once more"

    @invariant()
    def law_6_identity_is_stamped(self) -> None:
        mine = {(id_of(instance), id_): wrote for (instance, id_), wrote in self.wrote.items()}
        for entry in [entry for life in self.lives for entry in life]:
            sender = sender_of(entry)
            value, who, _ = mine[sender.id, entry.id]
            assert (sender.user, sender.kind, sender.kernel_id) == (who.user, who.kind, who.kernel_id)
            assert entry.deleted or self.filtered_value(value) == unpack(entry.value)

    @invariant()
    def law_9_presence_is_of_those_who_are_here(self) -> None:
        """A participant is shown as here only where its present connection has the bus open."""
        for bus in self.play.broker.registry.buses.values() if hasattr(self, "play") else ():
            for seat in map(decode_seat, bus.presence.snapshot()):
                wire = self.play.broker._connections.get(self.play.broker._by_participant.get(seat.who.id, 0))
                assert seat.status == "away" or (wire is not None and bus.info.number in wire.open)

    @invariant()
    def law_8_everything_is_bounded(self) -> None:
        if not hasattr(self, "play"):
            return
        for bus in self.play.broker.registry.buses.values():
            keys = 2 if self.history.retain == "keys" else 1  # as many marks of removed keys
            assert len(bus.log) <= keys * bus.info.spec.size
            assert set(bus.subscribers) <= set(self.play.wires)
        for player in self.play.players:
            assert player.forced == 0, "messages were delivered to a full socket"

    # --- at the end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if hasattr(self, "play"):
            try:
                self.check_the_end()
            finally:
                self.play.logs.close()

    def check_the_end(self) -> None:
        """End all faults, and check that every participant has received everything."""
        self.recover()
        for listener in self.listeners:
            listener.read()
        self.law_1_everyone_hears()
        self.law_2_one_order()
        self.law_5_accepted_or_refused_once()

    def recover(self) -> None:
        """Reconnect every participant, and let everything settle."""
        self.play.logs_work, self.play.failing = True, None
        for player in self.buses:
            if not player.conn:
                player.connect()
            player.drain()
        self.settle()

    def settle(self) -> None:
        self.play.settle()

    def law_1_everyone_hears(self) -> None:
        history = self.history.current
        for listener in self.listeners:
            if listener.ended is not None:
                assert isinstance(listener.ended, DELETED), "law 9: nothing but a deletion ends a stream here"
                assert len(self.play.lives) > 1
                continue
            assert listener.reader.caught_up, "law 9: a stream went quiet without an error"
            if listener.last is not None:
                listener.check_gap(listener.last, 1 << 62)
            if self.history.retain == "keys" and listener.last is not None:
                state: dict[str | None, Any] = {}
                for entry in history:
                    state[entry.key] = MISSING if entry.deleted else unpack(entry.value)
                for key in list(listener.mirror.keys()):
                    assert listener.mirror.shown(key) == state[key], "law 2: every participant ends with the same state"
                for key in KEYS if listener.is_whole else ():
                    assert listener.mirror.shown(key) == state.get(key, MISSING), "law 4: a snapshot is whole"

    def law_5_accepted_or_refused_once(self) -> None:
        accepted: dict[tuple[str, int], set[int]] = {}
        for life in self.lives:
            for entry in life:
                accepted.setdefault((sender_of(entry).id, entry.id), set()).add(entry.offset)
        for instance, id_ in self.wrote:
            player = next(player for player in self.buses if player.session.instance == instance)
            answer = player.answers.get(id_)
            assert answer is not None, "a write has no answer, though every participant is connected"
            offsets = accepted.get((id_of(instance), id_), set())
            if isinstance(answer, DELETED):
                assert len(self.play.lives) > 1, "only a deletion leaves the fate of a write unknown"
            elif isinstance(answer, EbusError):
                # A write that a restart found overtaken by later writes of its client is refused without its first reason.
                assert isinstance(answer, self.refusals()) or type(answer) is Rejected, repr(answer)
                # It may have been accepted before a deletion, which deletes the remembered answers too.
                assert not self.is_in(self.history.current, instance, id_), (
                    f"refused with {answer!r}, and yet in the log"
                )
            else:
                assert answer in offsets, "the ack's offset is not the log's"

    def is_in(self, history: list[Entry], instance: str, id_: int) -> bool:
        return any((sender_of(entry).id, entry.id) == (id_of(instance), id_) for entry in history)

    def refusals(self) -> tuple[type[EbusError], ...]:
        return (Conflict, TooLarge, BackendError)

    @property
    def lives(self) -> list[list[Entry]]:
        """The committed entries, before and after each deletion of the bus."""
        return self.history.lives if hasattr(self, "history") else []

    def filtered_value(self, value: Any) -> Any:
        return value
