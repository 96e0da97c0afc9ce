"""Runs the scenarios that the browser client runs too; see `tests/vectors/README.md`."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
import numpy
import pytest

from ebus_jupyter import errors
from ebus_jupyter.core.client import events
from ebus_jupyter.core.client.channel import Channel
from ebus_jupyter.core.client.reader import Reader
from ebus_jupyter.core.client.replica import MISSING, Change, Replica
from ebus_jupyter.core.client.session import Session
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.core.protocol.position import Position
from ebus_jupyter.errors import EbusError, Lagged

from . import vectors
from .vectors import BY_NAME, described, fields, frame_of, load, step_of

pack, unpack = msgspec.msgpack.encode, msgspec.msgpack.decode


def cases(name: str) -> Any:
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in load(name)["cases"]])


def test_all_files_are_run():
    assert set(vectors.FILES) == {"frames", "values", "addresses", "errors", "replica", "session"}


# --- frames ---------------------------------------------------------------------------------------------------------


def test_layout_matches_the_frame_classes():
    layout = load("frames")["layout"]
    assert layout.pop("seat") == {"fields": vectors.SEAT, "defaults": {}}
    types: dict[str, Any] = {"participant": Participant, **BY_NAME}
    assert set(layout) == set(types)
    for name, type_ in types.items():
        with fields(layout[name]) as given:
            assert given.take("fields") == list(type_.__struct_fields__)
            assert given.take("defaults") == defaults(type_)
            if name != "participant":
                tag = type_.__struct_config__.tag
                assert (given.take("tag"), given.take("from")) == (tag, "client" if tag < 64 else "broker")


def defaults(type_: Any) -> dict[str, Any]:
    found = {}
    for field in msgspec.structs.fields(type_):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if default is not msgspec.NODEFAULT:
            default = unpack(default) if isinstance(default, msgspec.Raw) else default
            found[field.name] = list(default) if isinstance(default, tuple) else default
    return found


@cases("frames")
def test_frames_have_these_bytes(case):
    with fields(case) as given:
        given.take("name")
        if "longer" in given:
            received = frames.from_broker(bytes.fromhex(given.take("longer")))
            assert [described(frame) for frame in received] == given.take("means")
            return
        named = given.take("frame")
        data = bytes.fromhex(given.take("hex"))
        assert frames.encode(frame_of(named)) == data
        read = frames.from_client if BY_NAME[next(iter(named))].__struct_config__.tag < 64 else frames.from_broker
        for each in (data, bytes.fromhex(given.take("short", data.hex()))):
            assert [described(frame) for frame in read(frames.join([each]))] == [named]


def test_all_frames_have_a_case():
    assert {name for case in load("frames")["cases"] for name in case.get("frame", ())} == set(BY_NAME)


# --- values ---------------------------------------------------------------------------------------------------------


@cases("values")
def test_values_have_these_bytes(case):
    codec: Codec[Any] = Codec()
    with fields(case) as given:
        given.take("name"), given.take("page", None)
        data = bytes.fromhex(given.take("hex"))
        value = given.take("value")
        assert alike(codec.decode(data), value_of(value))
        written = given.take("written", value)
        if "python" in given.take("writers", ["python", "js"]):
            assert codec.encode(value_of(written)) == data


def value_of(given: Any) -> Any:
    """The value of a scenario."""
    if isinstance(given, list):
        return [value_of(item) for item in given]
    if not isinstance(given, dict):
        return given
    if "$" not in given:
        return {key: value_of(item) for key, item in given.items()}
    with fields(given) as found:
        match found.take("$"):
            case "int":
                return int(found.take("is"))
            case "float":
                return float(found.take("is"))
            case "bytes":
                return bytes.fromhex(found.take("hex"))
            case "time":
                return datetime.fromisoformat(found.take("is"))
            case "tuple":
                return tuple(value_of(item) for item in found.take("is"))
            case "array":
                data = [value_of(item) for item in found.take("data")]
                return numpy.array(data, dtype=found.take("dtype")).reshape(found.take("shape"))
            case other:
                raise AssertionError(f"unknown kind of value: {other}")


def alike(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, numpy.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and (a == b).all())
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


# --- addresses and errors -------------------------------------------------------------------------------------------


@cases("addresses")
def test_uris_have_these_addresses(case):
    with fields(case) as given:
        given.take("name")
        uri = given.take("uri")
        if "refused" in given:
            with pytest.raises(EbusError) as refused:
                Address.parse(uri)
            assert refused.value.code == given.take("refused")
            return
        address = Address(*(given.take(part) for part in ("scope", "owner", "bus")))
        cap = given.take("cap")
        assert Address.parse(uri) == address
        assert uri.partition("#")[2] == cap
        assert given.take("prints", uri.partition("#")[0]) == str(address)


@cases("errors")
def test_errors_have_these_codes(case):
    with fields(case) as given:
        name = given.take("name")
        if "wire" in given:
            error = errors.from_wire(**given.take("wire"))
            assert type(error).__name__ == given.take("class")
            assert {"code": error.code, "text": error.text, **error.details} == given.take("is")
            return
        type_ = errors.BY_CODE[given.take("code")]
        assert type_.__name__ == name
        assert type_.temporary is given.take("temporary")
        above = given.take("above")
        assert above is None or getattr(errors, above) in type_.__bases__


def test_all_errors_have_a_case():
    assert {case["code"] for case in load("errors")["cases"] if "code" in case} == set(errors.BY_CODE)


# --- replica --------------------------------------------------------------------------------------------------------


@cases("replica")
def test_replica(case):
    with fields(case) as given:
        given.take("name")
        replica = Replica()
        for step in given.take("steps"):
            replica_step(replica, step)


def missing(given: Any) -> Any:
    return MISSING if given == {"$": "missing"} else given


def replica_step(replica: Replica, step: dict[str, Any]) -> None:
    verb, what, more = step_of(step)
    changes: list[Change] = []
    match verb:
        case "write":
            change, send = replica.write(what[0], missing(what[1]))
            changes = [change]
            assert send is more.take("send", True)
        case "accepted":
            changes, send = replica.accepted(*what)
            assert send is more.take("send", False)
        case "refused":
            changes, send = replica.refused(what)
            assert send is more.take("send", False)
        case "apply":
            changes = replica.apply(what[0], what[1], missing(what[2]))
        case "begin_snapshot":
            replica.begin_snapshot()
        case "end_snapshot":
            changes = replica.end_snapshot()
        case "shown":
            assert {key: replica.shown(key) for key in list(replica.keys())} == what
        case "offset":
            assert {key: replica.offset(key) for key in what} == what
        case _:
            raise AssertionError(f"unknown step {verb}")
    wanted = [Change(key, missing(old), missing(new), local) for key, old, new, local in more.take("changes", [])]
    assert sorted(changes, key=repr) == sorted(wanted, key=repr), step
    assert not more, f"unknown fields {sorted(more)} of {step}"


# --- session --------------------------------------------------------------------------------------------------------


@cases("session")
def test_session(case):
    with fields(case) as given:
        given.take("name")
        session = ScriptedSession(load("session")["people"])
        for step in given.take("steps"):
            session.step(step)
        session.assert_done()


class ScriptedSession:
    """A session whose broker is the scenario."""

    def __init__(self, people: dict[str, Any]) -> None:
        self.people = people
        self.session = Session("0" * 32)
        self.now = 0.0
        self.buses: dict[str, Channel] = {}
        self.readers: dict[str, Reader] = {}
        self.reqs: dict[str, int] = {}
        self.writes: dict[int, str] = {}
        self.requests: dict[int, str | Reader] = {}
        self.settled: dict[str, Any] = {}
        self.closed: dict[str, str] = {}
        self.connection_ended: Any = None
        self.left: set[str] = set()

    def step(self, step: dict[str, Any]) -> None:
        verb, what, more = step_of(step)
        run: Callable[[Any], None] | None = getattr(self, f"step_{verb}", None)
        assert run is not None, f"unknown step {verb}"
        assert not more, f"unknown fields {sorted(more)} of {step}"
        try:
            run(what)
        except AssertionError as error:
            error.add_note(f"in the step {step}")
            raise

    def assert_done(self) -> None:
        left = (self.sent(), self.settled, self.closed, self.connection_ended)
        assert left == ([], {}, {}, None), "no step has expected this"

    def sent(self) -> list[Any]:
        found: list[Any] = []
        while (data := self.session.data_to_send()) is not None:
            found += frames.from_client(data)
        return found

    # --- calls ------------------------------------------------------------------------------------------------------

    def step_connection_made(self, what: Any) -> None:
        assert what is True
        self.session.connection_made()

    def step_connection_lost(self, what: Any) -> None:
        assert what is True
        self.sent()
        self.dispatch(self.session.connection_lost())

    def step_tick(self, what: float) -> None:
        self.now += what
        self.session.tick(self.now)

    def step_open(self, what: Any) -> None:
        with fields(what) as given:
            as_, name, batch = given.take("as"), given.take("name"), given.take("batch", False)
            scope, spec = given.take("scope", "server"), given.take("spec", {})
            options = {key: given.take(key) for key in ("owner", "cap", "create") if key in given}
            bus = self.session.open(scope, name, spec, **options)
            if batch:
                bus.flush_size, bus.flush_interval = 1000, math.inf
            self.buses[as_] = bus

    def step_publish(self, what: Any) -> None:
        with fields(what) as given:
            as_, bus, value = given.take("as"), self.buses[given.take("bus")], pack(given.take("value"))
            options = {key: given.take(key) for key in ("key", "deleted", "echo", "to", "expect") if key in given}
            self.writes[self.session.publish(bus, value, self.now, **options)] = as_

    def step_flush(self, what: str) -> None:
        self.session.flush(self.buses[what])

    def step_leave(self, what: str) -> None:
        self.left.add(what)
        self.dispatch(self.session.leave(self.buses[what]))

    def step_delete(self, what: Any) -> None:
        with fields(what) as given:
            as_ = given.take("as")
            self.requests[self.session.delete(self.buses[given.take("bus")])] = as_

    def step_reader(self, what: Any) -> None:
        with fields(what) as given:
            since = given.take("since")
            if isinstance(since, dict):
                since = Position(**since)
            self.readers[given.take("as")] = Reader(self.session, self.buses[given.take("bus")], since)

    def step_clone(self, what: Any) -> None:
        with fields(what) as given:
            self.readers[given.take("as")] = self.readers[given.take("of")].clone()

    def step_watch_presence(self, what: str) -> None:
        self.session.watch_presence(self.buses[what])

    def step_set_presence(self, what: Any) -> None:
        with fields(what) as given:
            self.session.set_presence(self.buses[given.take("bus")], pack(given.take("state")))

    def step_receive_data(self, what: list[Any]) -> None:
        data = [frames.encode(frame_of(self.complete(frame), self.people)) for frame in what]
        self.dispatch(self.session.receive_data(frames.join(data), self.now))

    def complete(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Fill in request numbers, and the defaults of a delivery."""
        ((name, given),) = frame.items()
        given = dict(given)
        if isinstance(given.get("req"), str):
            given["req"] = self.reqs[given["req"]]
        if name == "delivery":
            given = {"id": given["offset"], "time": 0.0, "sender": "bob", **given}
        if name == "page":
            messages = [self.complete({"delivery": each})["delivery"] for each in given.get("messages", [])]
            given["messages"] = [{"bus": given["bus"], **each} for each in messages]
        return {name: given}

    def dispatch(self, found: list[events.Event]) -> None:
        for event in found:
            match event:
                case events.WriteSettled(id_, offset, error):
                    self.settled[self.writes[id_]] = offset if error is None else error.code
                case events.RequestSettled(req, frame, error):
                    owner = self.requests.pop(req)
                    if isinstance(owner, Reader):
                        assert frame is None or isinstance(frame, frames.Page)
                        owner.page_received(frame, error)
                    else:
                        self.settled[owner] = "done" if error is None else error.code
                case events.BusClosed(bus, error):
                    name = next(name for name, each in self.buses.items() if each is bus)
                    if name not in self.left:
                        self.closed[name] = error.code
                case events.ConnectionEnded(error, reconnect):
                    self.connection_ended = {"code": error.code, "reconnect": reconnect}

    # --- expectations -----------------------------------------------------------------------------------------------

    def step_data_to_send(self, what: list[Any]) -> None:
        sent = [described(frame) for frame in self.sent()]
        assert [list(frame) for frame in sent] == [list(frame) for frame in what], sent
        for frame, wanted in zip(sent, what, strict=True):
            ((name, pattern),) = wanted.items()
            for field, value in pattern.items():
                if field == "req" and value not in self.reqs:
                    self.reqs[value] = frame[name][field]
                assert frame[name][field] == (self.reqs[value] if field == "req" else value), (field, sent)

    def step_settled(self, what: Any) -> None:
        assert self.settled == what
        self.settled = {}

    def step_closed(self, what: Any) -> None:
        assert self.closed == what
        self.closed = {}

    def step_connection_ended(self, what: Any) -> None:
        assert self.connection_ended == what
        self.connection_ended = None

    def step_read_nowait(self, what: Any) -> None:
        for name, wanted in what.items():
            assert self.read(self.readers[name]) == wanted

    def read(self, reader: Reader) -> list[Any]:
        """All items that are available; then the next page of history is requested, if one is needed."""
        found: list[Any] = []
        while True:
            try:
                item = reader.read_nowait()
            except Lagged as lag:
                found.append({"lagged": lag.skipped, "resume_after": lag.resume_after})
                continue
            except EbusError as error:
                return [*found, {"error": error.code}]
            if item is None:
                if req := reader.request_page():
                    self.requests[req] = reader
                return found
            read = {"offset": item.offset} if item.key is None else {"offset": item.offset, "key": item.key}
            found.append({**read, "deleted": True} if item.deleted else {**read, "value": unpack(item.value)})

    def step_position(self, what: Any) -> None:
        assert {name: list(self.buses[name].position) for name in what} == what

    def step_caught_up(self, what: Any) -> None:
        assert {name: self.readers[name].caught_up for name in what} == what

    def step_participants(self, what: Any) -> None:
        for name, wanted in what.items():
            seats = self.buses[name].participants.values()
            assert [[who.id, status, state] for who, status, _, state, _ in seats] == wanted
