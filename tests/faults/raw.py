"""A client of its own: the wire format by its numbers, as `tests/vectors/frames.json` describes it, and none of the product.

`Auditor` asks for what the checker needs to know. `RawParticipant` writes, reads, reconnects, resumes and repeats by itself:
one thread, one connection at a time.
"""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from .check.records import Recorder

HELLO, OPEN, SUBSCRIBE, FETCH, PUBLISH, DELETE = 1, 2, 3, 5, 6, 9
WELCOME, OPENED, SUBSCRIBED, DELIVERY, ADVANCE, LAG, PAGE, OK, DONE, ERROR = 64, 65, 66, 67, 68, 69, 70, 71, 72, 73
GONE, BYE = 78, 79

QUIET = logging.getLogger("ebus.faults.raw")  # a library's word on lost connections, of which there are thousands here
QUIET.disabled = True

LOST = (OSError, WebSocketException, EOFError)


def unpack(data: bytes) -> list[list[Any]]:
    """The frames of one message."""
    found: list[list[Any]] = msgspec.msgpack.decode(data)
    return found


def pack(*frames: list[Any]) -> bytes:
    return msgspec.msgpack.encode(list(frames))


def dial(url: str, token: str, ping_seconds: float | None = 2.0) -> ClientConnection:
    return connect(
        "ws" + url[4:] + "ebus/ws",
        additional_headers={"Authorization": f"token {token}"},
        compression=None,
        proxy=None,
        max_size=None,
        open_timeout=5,
        close_timeout=0.5,
        ping_interval=ping_seconds,
        ping_timeout=ping_seconds,
        logger=QUIET,
    )


def line_of(delivery: list[Any]) -> dict[str, Any]:
    """What a record says of a message."""
    _, _, offset, number, _, sender, value, *more = [*delivery]
    key, deleted, *_ = [*more, *[None, False][len(more) :]]
    found = {"o": offset, "id": f"{sender[0]}-{number}", "v": value, "s": [sender[0], sender[1], sender[2]]}
    if key is not None:
        found["key"] = key
    if deleted:
        found["deleted"] = True
    return found


class Auditor:
    """Fetches whole logs, over a line of its own that has no faults."""

    def __init__(self, url: str, token: str) -> None:
        self._dialled = contextlib.ExitStack()
        self._where = url, token
        self._req = 0

    def __enter__(self) -> Auditor:
        with self._dialled as dialled:
            self._socket = dialled.enter_context(dial(*self._where, ping_seconds=None))
            self._ask([HELLO, 1, secrets.token_hex(16), "auditor"], WELCOME)
            self._dialled = dialled.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._dialled.close()

    def _ask(self, frame: list[Any], answer: int) -> list[Any]:
        self._socket.send(pack(frame))
        while True:
            for found in unpack(self._socket.recv(timeout=30)):  # type: ignore[arg-type]
                if found[0] == answer:
                    return found
                if found[0] in (ERROR, BYE):
                    raise LookupError(f"{found[1]}: {found[2]}")

    def open(self, name: str, scope: str, spec: dict[str, Any]) -> tuple[int, str]:
        self._req += 1
        opened = self._ask([OPEN, self._req, scope, name, spec], OPENED)
        return opened[2], opened[4]

    def log(self, bus: int) -> list[dict[str, Any]]:
        """All that is kept of a bus, as far as this user may see it. Fails where it is not in order."""
        found: list[dict[str, Any]] = []
        after, more = 0, True
        while more:
            self._req += 1
            page = self._ask([FETCH, self._req, bus, after], PAGE)
            after, more = page[4], page[6]
            found += [line_of(message) for message in page[7]] if len(page) > 7 else []
        assert [line["o"] for line in found] == sorted({line["o"] for line in found}), "a log is not in order"
        return found

    def delete(self, bus: int) -> None:
        self._req += 1
        self._ask([DELETE, self._req, bus], DONE)


class RawBus:
    """A bus, as a raw participant knows it."""

    def __init__(self, facts: dict[str, Any], reader: int) -> None:
        self.name, self.scope, self.spec, self.key = facts["name"], facts["scope"], facts["spec"], facts["key"]
        self.retain, self.private = self.spec.get("retain", "log"), facts["private"]
        self.reader = reader
        self.number, self.subscribes = 0, False
        self.epoch, self.last, self.last_id, self.id_offset = "", 0, "", 0
        self.unacked: dict[int, list[Any]] = {}  # by the wire's id: the frame, and the number of the write


class RawParticipant:
    """One participant. `run` it on a thread of its own; set `writes` and `finishes` from others."""

    def __init__(
        self, url: str, token: str, name: str, user: str, record: Any, buses: list[dict[str, Any]], seed: int
    ) -> None:
        self.url, self.token, self.name = url, token, name
        self.record = Recorder(record)
        self.writes, self.finishes, self.ended = True, False, False
        self._user = user
        self._random = random.Random(seed)
        self._instance = secrets.token_hex(16)
        self._buses = [RawBus(facts, n) for n, facts in enumerate(buses)]
        self._by_number: dict[int, RawBus] = {}
        self._numbers: dict[int, int] = {}  # the wire's id of a write: our own number
        self._id = self._n = 0
        self._quiet_since = self._next_write = 0.0
        self.record("me", name=name, user=user, kind="client")
        for bus in self._buses:
            self.record("reader", r=bus.reader, bus=bus.key, since="start")

    @property
    def unanswered(self) -> int:
        return sum(len(bus.unacked) for bus in self._buses)

    def run(self) -> None:
        try:
            while not self.ended:
                with contextlib.suppress(*LOST), dial(self.url, self.token) as socket:
                    self._converse(socket)
                time.sleep(self._random.uniform(0, 0.1))
        except Exception as error:
            self.record("error", text=repr(error))
            raise

    def _converse(self, socket: ClientConnection) -> None:
        self._by_number.clear()
        for bus in self._buses:
            bus.number = 0
        opens = [[OPEN, n + 1, bus.scope, bus.name, bus.spec] for n, bus in enumerate(self._buses)]
        socket.send(pack([HELLO, 1, self._instance, "raw"], *opens))
        while not self.ended:
            try:
                data = socket.recv(timeout=self._random.uniform(0.005, 0.06))
            except TimeoutError:
                if self.finishes and time.monotonic() - self._quiet_since > 1.0 and not self.unanswered:
                    self._finish()
            else:
                self._quiet_since = time.monotonic()
                for frame in unpack(data):  # type: ignore[arg-type]
                    answer = [*self._taken(frame)]
                    if answer:
                        socket.send(pack(*answer))
            if self.writes and self.unanswered < 500:
                for frame in self._written():
                    socket.send(pack(frame))

    def _finish(self) -> None:
        if all(bus.epoch for bus in self._buses):
            for bus in self._buses:
                self.record("end", r=bus.reader, caught_up=True)
            self.ended = True

    # --- writing ----------------------------------------------------------------------------------------------------

    def _written(self) -> Iterator[list[Any]]:
        ready = [bus for bus in self._buses if bus.number]
        if not ready or time.monotonic() < self._next_write:
            return
        self._next_write = time.monotonic() + self._random.uniform(0, 0.1)
        bus = self._random.choice(ready)
        for _ in range(self._random.choice([1, 1, 2, 10])):
            self._id += 1
            self._n += 1
            value: Any = [self.name, self._n, "x" * self._random.choice([0, 10, 100, 3000])]
            how: dict[str, Any] = {}
            frame = [PUBLISH, bus.number, self._id, value]
            if bus.retain == "keys":
                how = {"key": f"k{self._random.randrange(8)}"}
                if self._random.random() < 0.1:
                    how["deleted"], frame[3] = True, None
                frame += [how["key"], how.get("deleted", False)]
            elif bus.private and self._random.random() < 0.1:
                how = {"to": ["bob"]} if self._random.random() < 0.5 else {"echo": False}
                frame += [None, False, how.get("echo", True), how.get("to")]
            self.record("write", n=self._n, bus=bus.key, **how)
            self._numbers[self._id] = self._n
            bus.unacked[self._id] = frame
            yield frame

    def _answered(self, bus: RawBus, id_: int, kind: str, **facts: Any) -> None:
        if bus.unacked.pop(id_, None) is not None:
            self.record(kind, n=self._numbers[id_], **facts)

    # --- what arrives -----------------------------------------------------------------------------------------------

    def _taken(self, frame: list[Any]) -> Iterator[list[Any]]:
        match frame:
            case [tag, _, you, *_] if tag == WELCOME:
                self.record("me", name=self.name, user=self._user, kind="client", id=you[0])
            case [tag, req, number, _, _, _, *_] if tag == OPENED:
                bus = self._buses[req - 1]
                if bus.number:
                    return  # a copy
                bus.number, bus.subscribes = number, True
                self._by_number[number] = bus
                position = [bus.epoch, bus.last, bus.last_id, bus.id_offset] if bus.epoch else ["0", 0, "", 0]
                yield [SUBSCRIBE, 1000 + req, number, *position]
                for unacked in bus.unacked.values():
                    unacked[1] = number
                    yield unacked
            case [tag, _, number, epoch, after, _, *more] if tag == SUBSCRIBED:
                bus = self._by_number[number]
                if not bus.subscribes:
                    return
                bus.subscribes = False
                self._subscribed(bus, epoch, after, *(more + [True, 0, False][len(more) :]))
            case [tag, number, offset, *_] if tag == DELIVERY:
                bus = self._by_number[number]
                if offset > bus.last:
                    line = line_of(frame)
                    bus.last, bus.last_id, bus.id_offset = offset, line["id"], 0
                    self.record("heard", r=bus.reader, **line)
            case [tag, number, offset] if tag == ADVANCE:
                bus = self._by_number[number]
                if offset > bus.last:
                    bus.id_offset = bus.id_offset or (bus.last if bus.last_id else 0)
                    bus.last = offset
            case [tag, number, skipped, after] if tag == LAG:
                bus = self._by_number[number]
                bus.last, bus.last_id, bus.id_offset = after, "", 0
                self.record("lagged", r=bus.reader, skipped=skipped, after=after)
            case [tag, number, id_, offset, *count] if tag == OK:
                for i in range(count[0] if count else 1):
                    self._answered(self._by_number[number], id_ + i, "ack", offset=offset + i)
            case [tag, code, text, *more] if tag == ERROR:
                req, id_, number = (more + [0, 0, 0][len(more) :])[:3]
                if id_ and number in self._by_number:
                    self._answered(self._by_number[number], id_, "refused", code=code)
                elif code not in ("backend", "no_such_bus"):
                    self.record("error", text=f"{code}: {text} (request {req}, write {id_}, bus {number})")
                else:
                    raise ConnectionError(text)  # the file can't be read now: ask again
            case [tag, number, reason] if tag == GONE:
                self._gone(self._by_number.pop(number), reason)
                raise ConnectionError("a bus has gone")
            case [tag, code, text, *_] if tag == BYE:
                if code not in ("closed", "too_large"):
                    self.record("error", text=f"bye {code}: {text}")
                raise ConnectionError(text)

    def _subscribed(self, bus: RawBus, epoch: str, after: int, recovered: bool, skipped: int, fresh: bool) -> None:
        if bus.epoch and not recovered:
            lost = None if skipped < 0 else skipped
            self.record("lagged", r=bus.reader, skipped=lost, after=after)
            bus.last, bus.last_id, bus.id_offset = after, "", 0
        elif not bus.epoch:
            bus.last = after
        bus.epoch = epoch

    def _gone(self, bus: RawBus, reason: str) -> None:
        self.record("closed", r=bus.reader, code="closed", reason=reason)
        for id_ in list(bus.unacked):
            self._answered(bus, id_, "unknown", code="closed")
        bus.reader += len(self._buses)
        bus.epoch, bus.last, bus.last_id, bus.id_offset, bus.number = "", 0, "", 0, 0
        self.record("reader", r=bus.reader, bus=bus.key, since="start")
