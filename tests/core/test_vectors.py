"""Runs the scenarios that the page's client runs too; `tests/vectors/README.md` says what they mean."""

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
from ebus_jupyter.errors import EbusError, Lagged

from . import vectors
from .vectors import BY_NAME, fields, frame_of, load, said_by, step_of

pack, unpack = msgspec.msgpack.encode, msgspec.msgpack.decode


def cases(name: str) -> Any:
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in load(name)["cases"]])


def test_every_file_is_run():
    assert set(vectors.FILES) == {"frames", "values", "addresses", "errors", "replica", "link"}


# --- frames ---------------------------------------------------------------------------------------------------------


def test_the_layout_is_that_of_the_frames():
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
def test_frames_are_these_bytes(case):
    with fields(case) as given:
        given.take("name")
        if "longer" in given:
            heard = frames.from_broker(bytes.fromhex(given.take("longer")))
            assert [said_by(frame) for frame in heard] == given.take("means")
            return
        named = given.take("frame")
        data = bytes.fromhex(given.take("hex"))
        assert frames.encode(frame_of(named)) == data
        read = frames.from_client if BY_NAME[next(iter(named))].__struct_config__.tag < 64 else frames.from_broker
        for each in (data, bytes.fromhex(given.take("short", data.hex()))):
            assert [said_by(frame) for frame in read(frames.join([each]))] == [named]


def test_every_frame_has_its_bytes():
    assert {name for case in load("frames")["cases"] for name in case.get("frame", ())} == set(BY_NAME)


# --- values ---------------------------------------------------------------------------------------------------------


@cases("values")
def test_values_are_these_bytes(case):
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
    """The value that a scenario means."""
    if isinstance(given, list):
        return [value_of(item) for item in given]
    if not isinstance(given, dict):
        return given
    if "$" not in given:
        return {key: value_of(item) for key, item in given.items()}
    with fields(given) as said:
        match said.take("$"):
            case "int":
                return int(said.take("is"))
            case "float":
                return float(said.take("is"))
            case "bytes":
                return bytes.fromhex(said.take("hex"))
            case "time":
                return datetime.fromisoformat(said.take("is"))
            case "tuple":
                return tuple(value_of(item) for item in said.take("is"))
            case "array":
                data = [value_of(item) for item in said.take("data")]
                return numpy.array(data, dtype=said.take("dtype")).reshape(said.take("shape"))
            case other:
                raise AssertionError(f"no value is of kind {other}")


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
def test_uris_name_buses(case):
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
def test_errors_have_their_codes(case):
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


def test_every_error_is_told_of():
    assert {case["code"] for case in load("errors")["cases"] if "code" in case} == set(errors.BY_CODE)


# --- a shared state -------------------------------------------------------------------------------------------------


@cases("replica")
def test_copies_of_a_shared_state(case):
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
            change, sends = replica.write(what[0], missing(what[1]))
            changes = [change]
            assert sends is more.take("sends", True)
        case "accepted" | "refused":
            key, offset = what if verb == "accepted" else (what, 0)
            changes, sends = replica.acked(key, offset, accepted=verb == "accepted")
            assert sends is more.take("sends", False)
        case "arrives":
            changes = replica.apply(what[0], what[1], missing(what[2]))
        case "snapshot":
            replica.begin_snapshot()
            for key, offset, value in what:
                changes += replica.apply(key, offset, missing(value))
            changes += replica.end_snapshot()
        case "snapshot_begins":
            replica.begin_snapshot()
        case "snapshot_ends":
            changes = replica.end_snapshot()
        case "shows":
            assert {key: replica.shown(key) for key in list(replica.keys())} == what
        case "offsets":
            assert {key: replica.offset(key) for key in what} == what
        case _:
            raise AssertionError(f"nobody knows the step {verb}")
    wanted = [Change(key, missing(old), missing(new), local) for key, old, new, local in more.take("changes", [])]
    assert sorted(changes, key=repr) == sorted(wanted, key=repr), step
    assert not more, f"nobody reads {sorted(more)} of {step}"


# --- a client -------------------------------------------------------------------------------------------------------


@cases("link")
def test_a_client_and_its_readers(case):
    with fields(case) as given:
        given.take("name")
        client = Scripted(load("link")["people"])
        for step in given.take("steps"):
            client.step(step)
        client.is_done()


class Scripted:
    """A client whose broker is a scenario."""

    def __init__(self, people: dict[str, Any]) -> None:
        self.people = people
        self.session = Session("0" * 32)
        self.now = 0.0
        self.buses: dict[str, Channel] = {}
        self.readers: dict[str, Reader] = {}
        self.reqs: dict[str, int] = {}
        self.writes: dict[int, str] = {}
        self.asked: dict[int, str | Reader] = {}
        self.answers: dict[str, Any] = {}
        self.ended: dict[str, str] = {}
        self.goodbye: Any = None

    def step(self, step: dict[str, Any]) -> None:
        verb, what, more = step_of(step)
        does: Callable[[Any], None] | None = getattr(self, f"step_{verb}", None)
        assert does is not None, f"nobody knows the step {verb}"
        assert not more, f"nobody reads {sorted(more)} of {step}"
        try:
            does(what)
        except AssertionError as error:
            error.add_note(f"in the step {step}")
            raise

    def is_done(self) -> None:
        assert (self.said(), self.answers, self.ended, self.goodbye) == ([], {}, {}, None), "no step told of this"

    def said(self) -> list[Any]:
        found: list[Any] = []
        while (data := self.session.data_to_send(self.now)) is not None:
            found += frames.from_client(data)
        return found

    # --- what the client does ---------------------------------------------------------------------------------------

    def step_connect(self, what: Any) -> None:
        assert what is True
        self.session.connection_made()

    def step_lose(self, what: Any) -> None:
        assert what is True
        self.said()
        self.happened(self.session.connection_lost())

    def step_passes(self, what: float) -> None:
        self.now += what

    def step_open(self, what: Any) -> None:
        with fields(what) as given:
            as_, name, hold = given.take("as"), given.take("name"), given.take("hold", False)
            scope, spec = given.take("scope", "server"), given.take("spec", {})
            bus = self.session.open(
                scope, name, spec, **{key: given.take(key) for key in ("owner", "cap", "create") if key in given}
            )
            if hold:
                bus.flush_size, bus.flush_interval = 1000, math.inf
            self.buses[as_] = bus

    def step_write(self, what: Any) -> None:
        with fields(what) as given:
            as_, bus, value = given.take("as"), self.buses[given.take("bus")], pack(given.take("value"))
            how = {key: given.take(key) for key in ("key", "deleted", "echo", "to", "expect") if key in given}
            self.writes[self.session.publish(bus, value, 0.0, **how)] = as_

    def step_flush(self, what: str) -> None:
        self.session.flush(self.buses[what])

    def step_leave(self, what: str) -> None:
        self.happened(self.session.leave(self.buses[what]))

    def step_delete(self, what: Any) -> None:
        with fields(what) as given:
            as_ = given.take("as")
            self.asked[self.session.delete(self.buses[given.take("bus")])] = as_

    def step_reader(self, what: Any) -> None:
        with fields(what) as given:
            self.readers[given.take("as")] = Reader(self.session, self.buses[given.take("bus")], given.take("since"))

    def step_clone(self, what: Any) -> None:
        with fields(what) as given:
            self.readers[given.take("as")] = self.readers[given.take("of")].clone()

    def step_watch(self, what: str) -> None:
        self.session.watch_presence(self.buses[what])

    def step_say(self, what: Any) -> None:
        with fields(what) as given:
            self.session.set_presence(self.buses[given.take("bus")], pack(given.take("state")))

    # --- what travels -----------------------------------------------------------------------------------------------

    def step_says(self, what: list[Any]) -> None:
        said = [said_by(frame) for frame in self.said()]
        assert [list(frame) for frame in said] == [list(frame) for frame in what], said
        for frame, wanted in zip(said, what, strict=True):
            ((name, pattern),) = wanted.items()
            for field, value in pattern.items():
                if field == "req" and value not in self.reqs:
                    self.reqs[value] = frame[name][field]
                assert frame[name][field] == (self.reqs[value] if field == "req" else value), (field, said)

    def step_hears(self, what: list[Any]) -> None:
        said = [frames.encode(frame_of(self.completed(frame), self.people)) for frame in what]
        self.happened(self.session.receive_data(frames.join(said), self.now))

    def completed(self, frame: dict[str, Any]) -> dict[str, Any]:
        ((name, given),) = frame.items()
        given = dict(given)
        if isinstance(given.get("req"), str):
            given["req"] = self.reqs[given["req"]]
        if name == "delivery":
            given = {"id": given["offset"], "time": 0.0, "sender": "bob", **given}
        if name == "page":
            messages = [self.completed({"delivery": each})["delivery"] for each in given.get("messages", [])]
            given["messages"] = [{"bus": given["bus"], **each} for each in messages]
        return {name: given}

    def happened(self, happened: list[events.Event]) -> None:
        for event in happened:
            match event:
                case events.WriteSettled(id_, offset, error):
                    self.answers[self.writes[id_]] = offset if error is None else error.code
                case events.RequestSettled(req, frame, error):
                    asker = self.asked.pop(req)
                    if isinstance(asker, Reader):
                        assert frame is None or isinstance(frame, frames.Page)
                        asker.page_received(frame, error)
                    else:
                        self.answers[asker] = "done" if error is None else error.code
                case events.BusClosed(bus, error):
                    self.ended[next(name for name, each in self.buses.items() if each is bus)] = error.code
                case events.ConnectionEnded(error, again):
                    self.goodbye = {"code": error.code, "again": again}

    # --- what has come of it ----------------------------------------------------------------------------------------

    def step_answers(self, what: Any) -> None:
        assert self.answers == what
        self.answers = {}

    def step_ended(self, what: Any) -> None:
        assert self.ended == what
        self.ended = {}

    def step_goodbye(self, what: Any) -> None:
        assert self.goodbye == what
        self.goodbye = None

    def step_reads(self, what: Any) -> None:
        for name, wanted in what.items():
            assert self.read(self.readers[name]) == wanted

    def read(self, reader: Reader) -> list[Any]:
        found: list[Any] = []
        while True:
            try:
                item = reader.read_nowait()
            except Lagged as lag:
                found.append({"lagged": lag.skipped, "after": lag.resume_after})
                continue
            except EbusError as error:
                return [*found, {"ends": error.code}]
            if item is None:
                req = reader.request_page()
                if req:
                    self.asked[req] = reader
                return found
            about = {"at": item.offset} if item.key is None else {"at": item.offset, "key": item.key}
            found.append({**about, "removed": True} if item.deleted else {**about, "is": unpack(item.value)})

    def step_caught_up(self, what: Any) -> None:
        assert {name: self.readers[name].caught_up for name in what} == what

    def step_seats(self, what: Any) -> None:
        for name, wanted in what.items():
            seats = self.buses[name].participants.values()
            assert [[who.id, status, state] for who, status, _, state, _ in seats] == wanted
