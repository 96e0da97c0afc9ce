"""One client of a play: a session, its connection, and what it has been told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from ebus_jupyter.core.broker.effects import Effect
from ebus_jupyter.core.broker.state import BrokerState
from ebus_jupyter.core.client import events
from ebus_jupyter.core.client.channel import Channel
from ebus_jupyter.core.client.reader import Reader, Since
from ebus_jupyter.core.client.session import Session
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import EbusError, Lagged, Reject

pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode


class Stage(Protocol):
    """What a player needs of its play."""

    broker: BrokerState
    now: float
    authorize: Any
    wires: dict[int, Player]

    def new_connection(self) -> int: ...
    def do(self, effects: Iterable[Effect]) -> None: ...
    def turn(self) -> bool: ...
    def take_turns(self) -> int: ...
    def settle(self) -> None: ...


class Player:
    """One client: its session, its connection, and what it has been told."""

    def __init__(self, play: Stage, who: Participant, instance: str, may_write: bool = True) -> None:
        self.play = play
        self.who = who
        self.may_write = may_write
        self.session = Session(instance)
        self.inbox: deque[tuple[bytes, int]] = deque()
        self.conn = 0
        self.writing_paused = False
        self.hung_up = False
        self.forced = 0  # messages that were delivered in spite of a full socket
        self.answers: dict[int, int | EbusError] = {}  # to writes: the offset, or the error
        self.replies: dict[int, Any] = {}  # to requests
        self.refused: dict[Channel, EbusError] = {}
        self.ended: events.ConnectionEnded | None = None
        self.asked: list[events.FilterRequested] = []  # the writes that this player has to filter
        self.filter: Callable[[Any, Participant], Any] | None = None
        self._readers: dict[int, Reader] = {}

    def __repr__(self) -> str:
        return f"{self.who.user}#{self.session.instance[-2:]}"

    # --- the connection ---------------------------------------------------------------------------------------------

    def connect(self) -> None:
        self.lose()
        self.conn = self.play.new_connection()
        self.hung_up = self.writing_paused = False
        self.play.wires[self.conn] = self
        self.play.do(
            self.play.broker.connect(
                self.conn, self.who, self.play.now, may_write=self.may_write, authorize=self.play.authorize is not None
            )
        )
        self.session.connection_made()

    def lose(self) -> None:
        """Lose the connection, and all data that was not carried yet."""
        if self.conn:
            self.play.wires.pop(self.conn, None)
            self.inbox.clear()
            self.writing_paused = False
            conn, self.conn = self.conn, 0
            self.play.do(self.play.broker.disconnect(conn, self.play.now))
            self.play.take_turns()
            self._happened(self.session.connection_lost())

    def say(self) -> bool:
        """Carry the data that this player has to send to the broker, whose answers come into the inbox."""
        said = False
        while self.conn and not self.hung_up and (data := self.next_data()) is not None:
            self.send(data)
            said = True
        return said

    def next_data(self) -> bytes | None:
        self.session.tick(self.play.now)
        return self.session.data_to_send()

    def send(self, data: bytes) -> None:
        broker, conn = self.play.broker, self.conn
        self.play.do(broker.receive(conn, data, self.play.now))
        while broker.has_more(conn) and self.play.turn():
            pass

    def hear(self, most: int = 1 << 30) -> bool:
        """Receive the messages in the inbox, up to ``most``."""
        heard = False
        while self.inbox and most > 0:
            frame, number = self.inbox.popleft()
            self._happened(self.session.receive_data(frames.head(number) + frame, self.play.now))
            heard, most = True, most - 1
        while self.conn and not self.writing_paused and self.play.broker.is_catching_up(self.conn) and not self.inbox:
            if not self.play.turn():
                break
        return heard

    def block(self) -> None:
        """The socket is full: the broker has to pause writing."""
        if self.conn:
            self.writing_paused = True
            self.play.broker.pause_writing(self.conn)

    def drain(self) -> None:
        if self.conn and self.writing_paused:
            self.writing_paused = False
            self.play.broker.resume_writing(self.conn)
            self.play.turn()

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

    # --- a player's actions -----------------------------------------------------------------------------------------

    def open(self, name: str | None = "votes", scope: str = "server", **given: Any) -> Channel:
        more = {key: given.pop(key) for key in ("owner", "cap", "create") if key in given}
        return self.session.open(scope, name, given, **more)

    def opened(self, name: str | None = "votes", scope: str = "server", **given: Any) -> Channel:
        """Open a bus, and return it once it is open. Raises the error that refuses it."""
        bus = self.open(name, scope, **given)
        self.play.settle()
        if bus in self.refused:
            raise self.refused[bus]
        assert bus.is_open
        return bus

    def write(self, bus: Channel, value: Any, **how: Any) -> int:
        return self.session.publish(bus, pack(value), self.play.now, **how)

    def written(self, bus: Channel, value: Any, **how: Any) -> int:
        """Write, and return the offset. Raises the error that refuses the write."""
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
        """Everything that can be read now: deliveries, and `Lagged` where messages were missed."""
        found: list[Any] = []
        while (item := self.read_next(reader)) is not None:
            found.append(item)
        return found

    def read_next(self, reader: Reader) -> Any:
        """The next of them; None where there is nothing to read now."""
        while True:
            try:
                item = reader.read_nowait()
            except Lagged as lag:
                return lag
            if item is not None or not self.turn(reader):
                return item

    def turn(self, reader: Reader) -> bool:
        """Get the next page of history; False where there is none."""
        req = reader.request_page()
        if req:
            self._readers[req] = reader
        before = reader._next_page, len(reader._past), reader._page_request
        self.say()
        self.play.take_turns()  # there may have been no room for the page before
        self.hear()
        return (reader._next_page, len(reader._past), reader._page_request) != before

    def values(self, reader: Reader) -> list[Any]:
        """The values that `read` finds, decoded; `Lagged` as ("lagged", skipped)."""
        return [
            ("lagged", item.skipped) if isinstance(item, Lagged) else None if item.deleted else unpack(item.value)
            for item in self.read(reader)
        ]

    def judge(self, which: int = 0) -> None:
        """Filter one of the writes that this player was asked about, by its place among them."""
        asked = self.asked.pop(which)
        assert self.filter is not None
        try:
            self.session.answer_filter(asked.channel, asked.id, pack(self.filter(unpack(asked.value), asked.sender)))
        except Reject as rejected:
            self.session.answer_filter(asked.channel, asked.id, b"\xc0", str(rejected))
