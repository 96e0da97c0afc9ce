"""A whole broker with its clients, joined with nothing but function calls.

`Play` performs the broker's effects at once and in order; a `Player` is a client's half of it. Nothing waits: `say`
carries what a player has to say to the broker, `hear` brings it what lies in its inbox, and what is in neither yet is
lost with the connection (`lose`). `settle` goes on until nobody has anything more to say. Time stands still until
somebody sets `Play.now`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from ebus_jupyter.backends.base import Backend
from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.backends.sqlite import SqliteBackend
from ebus_jupyter.core.broker.effects import (
    Append,
    Authorize,
    DeleteLog,
    Deliver,
    Effect,
    Filter,
    Hangup,
    ListBuses,
    OpenLog,
    Send,
)
from ebus_jupyter.core.broker.entry import Entry
from ebus_jupyter.core.broker.state import BrokerState
from ebus_jupyter.core.client import events
from ebus_jupyter.core.client.channel import Channel
from ebus_jupyter.core.client.reader import Reader, Since
from ebus_jupyter.core.client.session import Session
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import EbusError, Lagged, Reject

SECRET = b"only the broker knows"

pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode


def perform(job: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    try:
        job.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a backend of a play may not wait")


class Logs:
    """Where a play keeps its named buses, and what the next server finds of them. These: in memory, all of it."""

    backend: Backend

    def __init__(self) -> None:
        self.backend = MemoryBackend()

    def kill(self) -> None:
        """The server is killed; `backend` is then the next one's."""

    def close(self) -> None:
        """The play is over."""


class FileLogs(Logs):
    """In a file. Who kills the server finds the file as it was at that instant: nobody has closed it."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="ebus-play-")
        self._files = count()
        self.backend = self._open()

    def _open(self) -> SqliteBackend:
        return SqliteBackend(Path(self._folder.name, f"{next(self._files)}.db"))

    def kill(self) -> None:
        old = self.backend
        assert isinstance(old, SqliteBackend)
        self.backend = new = self._open()
        for beside in ("", "-wal"):
            left = old.path.with_name(old.path.name + beside)
            if left.exists():
                shutil.copyfile(left, new.path.with_name(new.path.name + beside))
        perform(old.aclose())

    def close(self) -> None:
        perform(self.backend.aclose())
        self._folder.cleanup()


class Mint:
    """Digits that nobody could guess if this were not a test."""

    def __init__(self) -> None:
        self._n = count()

    def __call__(self, digits: int) -> str:
        return hashlib.blake2b(str(next(self._n)).encode(), digest_size=32).hexdigest()[:digits]


class Play:
    """A broker, its logs and everybody who is connected to it.

    Args:
        logs: Keeps the named buses over a `restart`.
        filters: What the server's filters do, by name: value and sender to the value to keep.
        authorize: What the authorizer says of a participant and an address: may it read, may it write.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        logs: Logs | None = None,
        shared: bool = False,
        filters: dict[str, Callable[[Any, Participant], Any]] | None = None,
        authorize: Callable[[Participant, Address], tuple[bool, bool]] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.logs = logs or Logs()
        self.volatile = MemoryBackend()
        self.shared = shared
        self.filters = filters or {}
        self.authorize = authorize
        self.now = 1000.0
        self.players: list[Player] = []
        self.lives: list[list[Entry]] = [[]]  # what the backends have reported, in order; a deletion begins another
        self.wires: dict[int, Player] = {}
        self.jobs: deque[Effect] = deque()
        self.logs_work = True  # False: what a backend is to do stays undone
        self.failing: EbusError | None = None  # what the next appends fail with
        self.mint = Mint()
        self._instances = count(1)
        self._conns = count(1)
        self._begin()

    @property
    def kept(self) -> list[Entry]:
        """Every entry that a backend has reported, in order, since a bus was deleted."""
        return self.lives[-1]

    @property
    def durable(self) -> Any:
        return self.logs.backend

    def _begin(self) -> None:
        self.broker = BrokerState(
            broker=self.mint(16),
            secret=SECRET,
            mint=self.mint,
            limits=self.limits,
            shared=self.shared,
            filters=self.filters,
        )
        for backend in (self.durable, self.volatile):
            backend.on_committed(self._committed)

    # --- who plays --------------------------------------------------------------------------------------------------

    def player(self, user: str = "alice", kind: Any = "client", kernel: str = "", **more: Any) -> Player:
        """Somebody new, connected."""
        groups, may_write = more.pop("groups", ()), more.pop("may_write", True)
        assert not more
        who = Participant("", kind, user, user.title(), kernel, groups)
        player = Player(self, who, f"{next(self._instances):032x}", may_write)
        self.players.append(player)
        player.connect()
        return player

    def kernel(self, user: str = "alice", kernel: str = "k1", **more: Any) -> Player:
        return self.player(user, "kernel", kernel, **more)

    # --- faults -----------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """The server is killed, and another one begins on the same durable logs."""
        for player in self.players:
            player.lose()
        self.jobs.clear()
        self.wires.clear()
        self.logs.kill()
        self.volatile = MemoryBackend()
        self._begin()

    # --- time -------------------------------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.broker.tick(self.now))

    def settle(self) -> None:
        """Until nobody has anything more to say or to hear. Blocked players hear nothing new."""
        self.work()
        busy = True
        while busy:
            busy = False
            for player in self.players:
                busy |= player.say() | player.hear()
            self.work()
            self.do(self.broker.presence())

    # --- the shell --------------------------------------------------------------------------------------------------

    def do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(conn, frame):
                    self._hand(conn, frame, 1)
                case Deliver(conns, joined, number):
                    for conn in conns:
                        self._hand(conn, joined, number)
                        player = self.wires.get(conn)
                        if player is not None and player.writing_paused:
                            said = frames.from_broker(frames.head(number) + joined)
                            player.forced += any(isinstance(frame, frames.Delivery) for frame in said)
                case Hangup(conn):
                    player = self.wires.pop(conn, None)
                    if player is not None:
                        player.hung_up = True
                        self.do(self.broker.disconnect(conn, self.now))
                case Authorize(conn, question, address):
                    assert self.authorize is not None
                    read, write = self.authorize(self.wires[conn].who, address)
                    self.do(self.broker.authorized(conn, question, address, read, write, self.now))
                case Filter(address, ask, name, value, sender):
                    self._filter(address, ask, name, value, sender)
                case _:
                    self.jobs.append(effect)
        self.work()

    def work(self) -> None:
        """Do what the backends are to do."""
        while self.jobs and self.logs_work:
            job = self.jobs.popleft()
            match job:
                case Append(entry):
                    if self.failing is not None:
                        self.do(self.broker.failed([entry], self.failing))
                        continue
                    try:
                        offsets = perform(self._backend(entry.bus).append([entry]))
                    except EbusError as error:
                        self.do(self.broker.failed([entry], error))
                        continue
                    self.do(self.broker.appended([entry], offsets))
                case OpenLog(address, spec, epoch):
                    kept = perform(self._backend(str(address)).open(str(address), spec, epoch))
                    self.do(self.broker.log_opened(address, kept, None, self.now))
                case DeleteLog(address):
                    perform(self._backend(str(address)).delete(str(address)))
                    self.do(self.broker.log_deleted(job, None))
                    self.lives.append([])
                case ListBuses(conn, req):
                    self.do(self.broker.listed(conn, req, perform(self.durable.buses())))

    def _backend(self, uri: str) -> Backend:
        return self.volatile if Address.parse(uri).unnamed else self.durable

    def _committed(self, entries: Any) -> None:
        self.kept.extend(entries)
        self.do(self.broker.commit(entries))

    def _hand(self, conn: int, frame: bytes, number: int) -> None:
        player = self.wires.get(conn)
        if player is not None:
            player.inbox.append((frame, number))

    def _filter(self, address: Address, ask: int, name: str, value: bytes, sender: Participant) -> None:
        try:
            verdict = pack(self.filters[name](unpack(value), sender)), None
        except Reject as no:
            verdict = b"", str(no)
        self.do(self.broker.filtered(address, ask, *verdict))


class Player:
    """One client: a link, its connection, and what it was told."""

    def __init__(self, play: Play, who: Participant, instance: str, may_write: bool = True) -> None:
        self.play = play
        self.who = who
        self.may_write = may_write
        self.session = Session(instance)
        self.inbox: deque[tuple[bytes, int]] = deque()
        self.conn = 0
        self.writing_paused = False
        self.hung_up = False
        self.forced = 0  # messages that came in spite of a full socket
        self.heard: list[Any] = []  # raw frames, of a player who speaks in raw frames
        self.answers: dict[int, int | EbusError] = {}  # to writes: the offset, or why not
        self.replies: dict[int, Any] = {}  # to questions
        self.refused: dict[Channel, EbusError] = {}
        self.ended: events.ConnectionEnded | None = None
        self.asked: list[events.FilterRequested] = []  # what this player is to filter
        self.filter: Callable[[Any, Participant], Any] | None = None
        self._readers: dict[int, Reader] = {}

    def __repr__(self) -> str:
        return f"{self.who.user}#{self.session.instance[-2:]}"

    # --- the connection ---------------------------------------------------------------------------------------------

    def connect(self) -> None:
        self.lose()
        self.conn = next(self.play._conns)
        self.hung_up = self.writing_paused = False
        self.play.wires[self.conn] = self
        self.play.do(
            self.play.broker.connect(
                self.conn, self.who, self.play.now, may_write=self.may_write, asks=self.play.authorize is not None
            )
        )
        self.session.connection_made()

    def lose(self) -> None:
        """The connection is lost, with all that was not said or heard yet."""
        if self.conn:
            self.play.wires.pop(self.conn, None)
            self.inbox.clear()
            self.writing_paused = False
            conn, self.conn = self.conn, 0
            self.play.do(self.play.broker.disconnect(conn, self.play.now))
            self._happened(self.session.connection_lost())

    def say(self) -> bool:
        """Carry what this player has to say to the broker; what the broker answers lies in the inbox."""
        said = False
        while self.conn and not self.hung_up and (data := self.session.data_to_send(self.play.now)) is not None:
            self.send(data)
            said = True
        return said

    def send(self, data: bytes) -> None:
        broker, conn = self.play.broker, self.conn
        self.play.do(broker.receive(conn, data, self.play.now))
        while broker.has_more(conn):
            self.play.do(broker.take_slice(conn, self.play.now))

    def hear(self, most: int = 1 << 30) -> bool:
        """Take in what lies in the inbox."""
        heard = False
        while self.inbox and most > 0:
            frame, number = self.inbox.popleft()
            self._happened(self.session.receive_data(frames.head(number) + frame, self.play.now))
            heard, most = True, most - 1
        while self.conn and not self.writing_paused and self.play.broker.is_catching_up(self.conn) and not self.inbox:
            self.play.do(self.play.broker.resume_writing(self.conn))
        return heard

    def block(self) -> None:
        """The socket is full: the broker has to hold back."""
        if self.conn:
            self.writing_paused = True
            self.play.broker.pause_writing(self.conn)

    def drain(self) -> None:
        if self.conn and self.writing_paused:
            self.writing_paused = False
            self.play.do(self.play.broker.resume_writing(self.conn))

    def _happened(self, happened: list[events.Event]) -> None:
        for event in happened:
            match event:
                case events.WriteSettled(id_, offset, error):
                    assert id_ not in self.answers, f"write {id_} was answered twice"
                    self.answers[id_] = offset if error is None else error
                case events.RequestSettled(req, frame, error):
                    reader = self._readers.pop(req, None)
                    if reader is not None:
                        reader.page_received(frame, error)  # type: ignore[arg-type]
                    else:
                        self.replies[req] = frame if error is None else error
                case events.BusClosed(bus, error):
                    self.refused[bus] = error
                case events.ConnectionEnded():
                    self.ended = event
                case events.FilterRequested():
                    self.asked.append(event)
                    if self.filter is not None:
                        self.judge()

    # --- what a player does -----------------------------------------------------------------------------------------

    def open(self, name: str | None = "votes", scope: str = "server", **given: Any) -> Channel:
        more = {key: given.pop(key) for key in ("owner", "cap", "create") if key in given}
        return self.session.open(scope, name, given, **more)

    def opened(self, name: str | None = "votes", scope: str = "server", **given: Any) -> Channel:
        """Open a bus, all the way; raises what refuses it."""
        bus = self.open(name, scope, **given)
        self.play.settle()
        if bus in self.refused:
            raise self.refused[bus]
        assert bus.is_open
        return bus

    def write(self, bus: Channel, value: Any, **how: Any) -> int:
        return self.session.publish(bus, pack(value), self.play.now, **how)

    def written(self, bus: Channel, value: Any, **how: Any) -> int:
        """Write, all the way: the offset; raises what refuses it."""
        id_ = self.write(bus, value, **how)
        self.play.settle()
        return self.answer(id_)

    def answer(self, id_: int) -> int:
        answer = self.answers[id_]
        if isinstance(answer, EbusError):
            raise answer
        return answer

    def reply(self, req: int) -> Any:
        self.play.settle()
        reply = self.replies[req]
        if isinstance(reply, EbusError):
            raise reply
        return reply

    def reader(self, bus: Channel, since: Since = None) -> Reader:
        reader = Reader(self.session, bus, since)
        self.play.settle()
        return reader

    def read(self, reader: Reader) -> list[Any]:
        """Everything there is to read now: deliveries, and `Lagged` where something was missed."""
        found: list[Any] = []
        while (item := self.read_next(reader)) is not None:
            found.append(item)
        return found

    def read_next(self, reader: Reader) -> Any:
        """The next of them; None where there is nothing more now."""
        while True:
            try:
                item = reader.read_nowait()
            except Lagged as lag:
                return lag
            if item is not None or not self.turn(reader):
                return item

    def turn(self, reader: Reader) -> bool:
        """Get the next page of history; False where none is to be had."""
        req = reader.request_page()
        if req:
            self._readers[req] = reader
        before = reader._next_page, len(reader._past), reader._asked
        self.say()
        self.hear()
        return (reader._next_page, len(reader._past), reader._asked) != before

    def values(self, reader: Reader) -> list[Any]:
        """What `read` finds, decoded; `Lagged` as ("lagged", skipped)."""
        return [
            ("lagged", item.skipped) if isinstance(item, Lagged) else None if item.deleted else unpack(item.value)
            for item in self.read(reader)
        ]

    def judge(self, which: int = 0) -> None:
        """Filter one of the writes that this player was asked about."""
        asked = self.asked.pop(which)
        assert self.filter is not None
        try:
            self.session.answer_filter(asked.bus, asked.ask, pack(self.filter(unpack(asked.value), asked.sender)))
        except Reject as no:
            self.session.answer_filter(asked.bus, asked.ask, b"\xc0", str(no))


class Raw:
    """Somebody who speaks the wire by hand: the one whom the broker must not believe."""

    def __init__(self, play: Play, user: str = "mallory", kind: Any = "client", kernel: str = "", **more: Any) -> None:
        self.player = play.player(user, kind, kernel, **more)
        self.play = play
        self.player.session.data_to_send(play.now)  # its own words are never said

    def hello(self) -> Raw:
        self.say(frames.Hello(frames.VERSION, self.player.session.instance))
        return self

    def say(self, *said: frames.Frame) -> list[Any]:
        """Say these, in one message, and hear what comes back."""
        return self.shout(frames.join([frames.encode(frame) for frame in said]))

    def shout(self, data: bytes) -> list[Any]:
        self.player.send(data)
        self.play.work()
        return self.heard()

    def heard(self) -> list[Any]:
        inbox, self.player.inbox = self.player.inbox, deque()
        return [found for frame, number in inbox for found in frames.from_broker(frames.head(number) + frame)]

    @property
    def hung_up(self) -> bool:
        return self.player.hung_up
