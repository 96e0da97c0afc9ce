"""A reader in a play, and the checks of what it receives against what was committed."""

from __future__ import annotations

import hashlib
from typing import Any

from ebus_jupyter.core.broker.entry import Entry
from ebus_jupyter.core.client.channel import Channel
from ebus_jupyter.core.client.reader import Reader
from ebus_jupyter.core.client.replica import MISSING, Replica
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import EbusError, Lagged

from .play import Play
from .player import Player, unpack


def id_of(instance: str) -> str:
    """The participant's id of a client instance."""
    return hashlib.blake2b(instance.encode(), digest_size=8).hexdigest()


def sender_of(entry: Entry) -> Participant:
    return unpack(entry.sender, type=Participant)


class History:
    """What was committed to the bus of a play.

    Args:
        play: The play.
        retain: What the bus retains.
        size: The bus's bound.
    """

    def __init__(self, play: Play, retain: str, size: int) -> None:
        self._play = play
        self.retain = retain
        self.size = size

    @property
    def lives(self) -> list[list[Entry]]:
        """The committed entries. Each deletion of the bus begins another list."""
        return self._play.lives

    @property
    def current(self) -> list[Entry]:
        """The entries committed since the bus was last created."""
        return self._play.kept

    def is_for(self, player: Player, entry: Entry) -> bool:
        """Whether ``player`` may receive the entry."""
        own = sender_of(entry).id == id_of(player.session.instance)
        if own and not entry.echo:
            return False
        return entry.to is None or own or player.who.user in entry.to

    def is_replaced(self, entry: Entry, life: list[Entry]) -> bool:
        """Whether a reader may miss the entry, as a newer one takes its place."""
        if self.retain == "log":
            return False
        if entry.deleted:  # the marks of removed keys are bounded; what counts is that no reader still shows the key
            return True
        return any(other.offset > entry.offset and other.key == entry.key for other in life)


class Listener:
    """A reader that checks each item that it receives.

    Args:
        history: What was committed.
        player: The reader's client.
        bus: The bus, as the client has opened it.
        reader: The reader.
        since_start: Whether it reads from the start.

    Attributes:
        last: The offset up to which it has received everything; None until it has begun.
        unsure: Whether it was told that messages were missed: the next one need not follow the last.
        mirror: The state that it shows, on a bus with keys.
        is_whole: Whether the mirror holds the whole state.
        possible: The indices of the histories that it may be reading; None before the first message. Two histories can
            begin alike, where writes are repeated after a deletion.
        ended: The error that has ended it.
    """

    def __init__(self, history: History, player: Player, bus: Channel, reader: Reader, since_start: bool) -> None:
        self.history = history
        self.player = player
        self.bus = bus
        self.reader = reader
        self.last = 0 if since_start else None
        self.received = 0
        self.unsure = False
        self.mirror = Replica()
        self.is_whole = since_start
        self.possible: set[int] | None = None
        self.ended: EbusError | None = None
        self._in_snapshot = False

    def read(self) -> None:
        """Read everything that there is, and check it."""
        for item in self._read_all():
            if isinstance(item, Lagged):
                self.unsure = True
                self.last = item.resume_after if self.last is None else self.last
                if self.history.retain == "keys":
                    self.mirror.begin_snapshot()
                    self._in_snapshot = True
            else:
                self._take(item)
        if self.last is None and self.reader._cursor is not None:
            self.last = self.reader._cursor
        if self._in_snapshot and self.reader.caught_up:
            self.mirror.end_snapshot()
            self._in_snapshot = False

    def _read_all(self) -> list[Any]:
        found: list[Any] = []
        try:
            while item := self.player.read_next(self.reader):
                found.append(item)
        except EbusError as ended:
            self.ended = ended
        return found

    def _take(self, item: frames.Delivery) -> None:
        lives = self.history.lives
        found = {n: entry for n, life in enumerate(lives) for entry in life if _is_delivery_of(item, entry)}
        assert found, "law 3: a received message is not in the log"
        if self.unsure:
            self.possible = None
        if self.possible is not None:
            found = {n: entry for n, entry in found.items() if n in self.possible}
            assert found, "law 3: one reader received two histories without a notice"
        self.possible = {n for n, entry in found.items() if self.history.is_for(self.player, entry)}
        assert self.possible, "received a message for somebody else"
        if self.last is not None and not self.unsure:
            assert item.offset > self.last, "law 4: offsets strictly increase"
            self.check_gap(self.last, item.offset)
        self.unsure = False
        self.received += 1
        self.last = item.offset
        value = MISSING if item.deleted else unpack(item.value)
        self.mirror.apply(item.key or "", item.offset, value)

    def check_gap(self, after: int, until: int) -> None:
        """Check that no message for this listener lies in between, except those that a newer one has replaced."""
        if self.unsure:
            return
        if self.possible is None:
            missed = self._missed(self.history.current, after, until)
        else:
            gaps = {n: self._missed(self.history.lives[n], after, until) for n in self.possible}
            self.possible = {n for n, offset in gaps.items() if not offset}
            missed = 0 if self.possible else max(gaps.values())
        assert not missed, f"law 4: a silent gap: {self.player} did not receive offset {missed}"

    def _missed(self, life: list[Entry], after: int, until: int) -> int:
        """The offset of a message of this history that lies in between; 0 where there is none."""
        history = self.history
        if not self.received and history.retain == "log":  # it asked for what is kept, which is not everything
            after = max(after, life[-1].offset - history.size if life else 0)
        return next(
            (
                entry.offset
                for entry in life
                if after < entry.offset < until
                and history.is_for(self.player, entry)
                and not history.is_replaced(entry, life)
            ),
            0,
        )


def _is_delivery_of(item: frames.Delivery, entry: Entry) -> bool:
    received = item.offset, item.id, item.key, item.deleted, bytes(item.value), item.sender
    return received == (entry.offset, entry.id, entry.key, entry.deleted, entry.value, sender_of(entry))
