"""A whole broker with its clients, joined by function calls alone.

`Play` performs the broker's effects at once and in order; a `Player` is a client of it. Nothing waits: `say` carries the
data that a player has to send to the broker, `hear` brings it the messages in its inbox, and data that is in neither yet is
lost with the connection (`lose`). `settle` goes on until no player has anything to send. Time stands still until a test
changes `Play.now`.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any

from ebus_jupyter.backends.base import Backend, SharedBackend, reader
from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.core.broker.effects import (
    AlterLog,
    Append,
    Authorize,
    AuthorizeList,
    DeleteLog,
    Deliver,
    Effect,
    Filter,
    Hangup,
    OpenLog,
    Send,
    SendQueued,
)
from ebus_jupyter.core.broker.entry import Entry
from ebus_jupyter.core.broker.state import BrokerState
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import EbusError, Reject

from .logs import Logs, perform
from .player import Player, pack, unpack

SECRET = b"only the broker knows"


class Mint:
    """Fresh digits, the same ones in each run of a test."""

    def __init__(self) -> None:
        self._n = count()

    def __call__(self, digits: int) -> str:
        return hashlib.blake2b(str(next(self._n)).encode(), digest_size=32).hexdigest()[:digits]


class Play:
    """A broker, its logs and its clients.

    Args:
        limits: The bounds.
        logs: Keeps the named buses over a `restart`.
        shared: Whether the scope "hub" exists.
        filters: The server's filters, by name: from value and sender to the value to keep.
        authorize: The authorizer: from participant and address to (may read, may write).
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
        self.lives: list[list[Entry]] = [[]]  # what was committed, in order; a deletion begins another list
        self.wires: dict[int, Player] = {}
        self.jobs: deque[Effect] = deque()
        self.logs_work = True  # False: the jobs of the backends wait
        self.failing: EbusError | None = None  # the error of the next appends
        self.mint = Mint()
        self._instances = count(1)
        self._conns = count(1)
        self._begin()

    @property
    def kept(self) -> list[Entry]:
        """Every entry that was committed, in order, since a bus was deleted."""
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
        if isinstance(self.durable, SharedBackend):
            self.durable.on_committed(self._committed)
        for uri, spec in perform(self.durable.buses()).items():
            self.broker.registry.catalogue.add(Address.parse(uri), spec, self.now)

    def new_connection(self) -> int:
        return next(self._conns)

    # --- players ----------------------------------------------------------------------------------------------------

    def player(self, user: str = "alice", kind: Any = "client", kernel: str = "", **more: Any) -> Player:
        """A new client, connected."""
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
        """Kill the server, and start another one on the same durable logs."""
        for player in self.players:
            player.lose()
        self.jobs.clear()
        self.wires.clear()
        self.logs.kill()
        self.volatile = MemoryBackend()
        self._begin()

    def turn(self) -> bool:
        """Let the broker take one turn of its agenda, or its sockets take what they are sent. Returns whether there was any."""
        conn, effects = self.broker.take_turn(self.now)
        if conn:
            self.do(effects)
        elif self.broker.awaits_flush:
            self.broker.flushed()
        else:
            return False
        return True

    def take_turns(self) -> int:
        """Go on until there are no more turns. Returns how many there were."""
        turns = 0
        while self.turn():
            turns += 1
        return turns

    # --- time -------------------------------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.broker.tick(self.now))

    def settle(self) -> None:
        """Go on until no player has anything to send or to receive. Players that `block` receive nothing new."""
        self.work()
        busy = True
        while busy:
            busy = False
            for player in self.players:
                busy |= player.say() | player.hear()
            self.work()
            busy |= self.take_turns() > 0
            self.do(self.broker.presence(self.now))

    # --- the host ---------------------------------------------------------------------------------------------------

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
                case Authorize(conn, frame, address):
                    assert self.authorize is not None
                    read, write = self.authorize(self.wires[conn].who, address)
                    self.do(self.broker.registry.authorized(conn, frame, address, read, write, self.now))
                case AuthorizeList(conn, listing, buses):
                    assert self.authorize is not None
                    who = self.wires[conn].who
                    allowed = {uri: any(self.authorize(who, Address.parse(uri))) for uri in buses}
                    self.do(self.broker.list_authorized(conn, listing, allowed, self.now))
                case Filter(address, request, name, value, sender):
                    self._filter(address, request, name, value, sender)
                case _:
                    self.jobs.append(effect)
        self.work()

    def work(self) -> None:
        """Do the jobs of the backends."""
        while self.jobs and self.logs_work:
            job = self.jobs.popleft()
            match job:
                case Append(entry):
                    if self.failing is not None:
                        self.do(self.broker.failed([entry], self.failing))
                        continue
                    backend = self._backend(entry.bus)
                    try:
                        appended = perform(backend.append([entry]))
                    except EbusError as error:
                        self.do(self.broker.failed([entry], error))
                        continue
                    if not isinstance(backend, SharedBackend):
                        self._committed(appended)
                    self.do(self.broker.appended(appended))
                case OpenLog(address, spec, epoch):
                    backend = self._backend(str(address))
                    kept = perform(backend.open(str(address), spec, epoch))
                    older = reader(backend, str(address))
                    self.do(self.broker.registry.log_opened(address, kept, None, self.now, older))
                case AlterLog(address, spec) as change:
                    perform(self._backend(str(address)).alter(str(address), spec))
                    self.do(self.broker.registry.log_altered(change, None, self.now))
                case DeleteLog(address):
                    perform(self._backend(str(address)).delete(str(address)))
                    self.do(self.broker.registry.log_deleted(job, None))
                    self.lives.append([])
                case SendQueued(conn, frame):
                    self._hand(conn, frame, 1)

    def _backend(self, uri: str) -> Backend:
        return self.volatile if Address.parse(uri).unnamed else self.durable

    def _committed(self, entries: Sequence[Entry]) -> None:
        self.kept.extend(entries)
        self.do(self.broker.commit(entries))

    def _hand(self, conn: int, frame: bytes, number: int) -> None:
        player = self.wires.get(conn)
        if player is not None:
            player.inbox.append((frame, number))

    def _filter(self, address: Address, request: int, name: str, value: bytes, sender: Participant) -> None:
        try:
            answer = pack(self.filters[name](unpack(value), sender)), None
        except Reject as rejected:
            answer = b"", str(rejected)
        self.do(self.broker.filtered(address, request, *answer))


class Raw:
    """A client that sends frames by hand, and that the broker must not trust."""

    def __init__(self, play: Play, user: str = "mallory", kind: Any = "client", kernel: str = "", **more: Any) -> None:
        self.player = play.player(user, kind, kernel, **more)
        self.play = play
        self.player.session.data_to_send()  # its session's hello is never sent

    def hello(self) -> Raw:
        self.say(frames.Hello(frames.VERSION, self.player.session.instance))
        return self

    def say(self, *said: frames.Frame) -> list[Any]:
        """Send these frames in one message, and return the answers."""
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
