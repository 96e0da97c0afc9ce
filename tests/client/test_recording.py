"""Recording a bus in a file, and replaying it."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ebus_jupyter as ebus
from ebus_jupyter import recording
from ebus_jupyter.recording import RecordingError, bus_for, record, replay

from .conftest import Line


@dataclass
class Vote:
    choice: str
    weight: float = 1.0


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_recorded_messages_replay_into_another_bus(line: Line, tmp_path: Path) -> None:
    alice, bob = line.client("alice"), line.client("bob", "k2")
    votes = alice.bus("votes", Vote)
    bob.bus("votes", Vote).write(Vote("tea")).result(5)
    votes.write(Vote("milk", 2)).result(5)
    assert record(votes, tmp_path / "votes.jsonl", n=2, since="start") == 2

    again = alice.bus("again", Vote)
    heard = again.messages()
    assert replay(again, tmp_path / "votes.jsonl") == 2
    replayed = heard.take(2, 5)
    assert [message.value for message in replayed] == [Vote("tea"), Vote("milk", 2)]
    assert {message.sender.user for message in replayed} == {"alice"}, "nobody writes as someone else"


def test_recording_holds_the_spec_and_the_senders(line: Line, tmp_path: Path) -> None:
    votes = line.client("alice").bus("votes", Vote, size=5)
    votes.write(Vote("tea")).result(5)
    record(votes, tmp_path / "votes.jsonl", n=1, since="start")
    header, message = lines(tmp_path / "votes.jsonl")
    assert (header["ebus"], header["bus"], header["spec"]["size"]) == (1, "ebus:server/votes", 5)
    assert header["spec"]["schema"] == votes.spec.schema
    assert (message["at"], message["sender"]["user"], message["value"]) == (
        0.0,
        "alice",
        {"choice": "tea", "weight": 1.0},
    )


@pytest.mark.parametrize(
    "value",
    [
        b"\x00\xff",
        dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC),
        float("inf"),
        {1: "one", 2: [b"two"]},
        {"$bytes": "is only a word"},
        None,
    ],
    ids=repr,
)
def test_values_beyond_json_survive_record_and_replay(line: Line, tmp_path: Path, value: Any) -> None:
    bus = line.client().bus("anything")
    bus.write(value).result(5)
    record(bus, tmp_path / "x.jsonl", n=1, since="start")
    heard = bus.stream()
    replay(bus, tmp_path / "x.jsonl")
    assert heard.get(5) == value


def test_recorded_array_keeps_dtype_and_shape(line: Line, tmp_path: Path) -> None:
    bus = line.client().bus("pictures", np.ndarray)
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4)
    bus.write(picture).result(5)
    record(bus, tmp_path / "x.jsonl", n=1, since="start")
    heard = bus.stream()
    replay(bus, tmp_path / "x.jsonl")
    back = heard.get(5)
    assert back.dtype == picture.dtype
    np.testing.assert_array_equal(back, picture)


def test_state_replays_keys_and_removals(line: Line, tmp_path: Path) -> None:
    client = line.client()
    dash = client.bus("dash", retain="keys")
    dash.write(1, key="a")
    dash.write(2, key="b")
    dash.remove("a").result(5)
    record(dash, tmp_path / "dash.jsonl", n=2, since="start")
    again = client.state("again")
    again["a"] = 0
    again.flush()
    replay(again.bus, tmp_path / "dash.jsonl")
    heard = again.bus.messages(since="start")
    while not heard.get(5).deleted:
        pass
    assert dict(again) == {"b": 2}


def test_record_ends_after_its_time_or_with_the_bus(line: Line, tmp_path: Path) -> None:
    bus = line.client().bus("quiet")
    assert record(bus, tmp_path / "x.jsonl", seconds=0.01) == 0
    recorder = threading.Thread(target=record, args=(bus, tmp_path / "x.jsonl"), kwargs={"since": "start"})
    bus.write("tea").result(5)
    recorder.start()
    bus.delete()
    recorder.join(10)
    assert not recorder.is_alive()


def test_replay_speed_scales_the_recorded_pauses(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = line.client().bus("drums")
    path = tmp_path / "drums.jsonl"
    bus.write("boom").result(5)
    record(bus, path, n=1, since="start")
    header, boom = path.read_text().splitlines()
    path.write_text("\n".join([header, *(json.dumps(json.loads(boom) | {"at": at}) for at in (0, 2.0, 5.0))]) + "\n")

    slept: list[float] = []
    now = [100.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

        @staticmethod
        def sleep(seconds: float) -> None:
            slept.append(seconds)
            now[0] += seconds

    monkeypatch.setattr(recording, "time", Clock)
    replay(bus, path, speed=2)
    assert slept == [0.0, 1.0, 1.5]
    slept.clear()
    replay(bus, path)
    assert slept == []
    with pytest.raises(ValueError, match="greater than 0"):
        replay(bus, path, speed=0)


def test_lag_of_the_recorder_is_in_the_file(line: Line, tmp_path: Path) -> None:
    bus = line.client().bus("fast", size=2)
    stream_began = bus.write("a").result(5)
    for value in "bcde":
        bus.write(value).result(5)
    record(bus, tmp_path / "x.jsonl", n=2, since=stream_began)
    _, lag, *messages = lines(tmp_path / "x.jsonl")
    assert lag["lagged"]["skipped"] == 2
    assert [message["value"] for message in messages] == ["d", "e"]
    assert replay(line.client().bus("again"), tmp_path / "x.jsonl") == 2


def test_truncated_recording_replays_its_complete_lines(line: Line, tmp_path: Path) -> None:
    bus = line.client().bus("votes")
    for value in "abc":
        bus.write(value).result(5)
    path = tmp_path / "x.jsonl"
    record(bus, path, n=3, since="start")
    path.write_bytes(path.read_bytes()[:-20])
    assert replay(line.client().bus("again"), path) == 2


@pytest.mark.parametrize("text", ["", "a shopping list\n", "[1, 2]\n", '{"ebus": 99}\n'])
def test_file_that_is_not_a_recording_is_named(line: Line, tmp_path: Path, text: str) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(RecordingError, match=r"x\.jsonl"):
        replay(line.client().bus("again"), tmp_path / "x.jsonl")


def test_replay_of_a_mistyped_message_raises_type_mismatch(line: Line, tmp_path: Path) -> None:
    client = line.client()
    words = client.bus("words")
    words.write("tea").result(5)
    record(words, tmp_path / "x.jsonl", n=1, since="start")
    with pytest.raises(ebus.TypeMismatch):
        replay(client.bus("numbers", int), tmp_path / "x.jsonl")


def test_bus_for_makes_a_bus_like_the_recorded_one(line: Line, tmp_path: Path) -> None:
    def stamped(text: str, sender: ebus.Participant) -> dict[str, str]:
        return {"text": text, "by": sender.user}

    maker = line.client("alice")
    clean = maker.bus("clean", str, emits=dict[str, str], filter=stamped, size=50)
    clean.write("tea").result(5)
    record(clean, tmp_path / "x.jsonl", n=1, since="start")
    player = line.client("bob", "k2")
    again = bus_for(player, tmp_path / "x.jsonl", "again")
    assert (again.spec.schema, again.spec.filter, again.spec.size) == (clean.spec.emits, None, 50)
    heard = again.stream()
    replay(again, tmp_path / "x.jsonl")
    assert heard.get(5) == {"text": "tea", "by": "alice"}
    assert bus_for(player, tmp_path / "x.jsonl", "again").uri == again.uri, "one that is there is joined"


def test_replay_faster_than_the_server_s_rate_is_whole(make_line: Callable[..., Line], tmp_path: Path) -> None:
    line = make_line(publish_rate=2000.0, publish_burst=0.1)
    bus = line.client(kind="client").bus("votes")
    path = tmp_path / "x.jsonl"
    bus.write(0).result(5)
    record(bus, path, n=1, since="start")
    header, first = path.read_text().splitlines()
    path.write_text("\n".join([header, *(json.dumps(json.loads(first) | {"value": n}) for n in range(1500))]) + "\n")
    again = line.client(kind="client").bus("again", size=2000)
    assert replay(again, path) == 1500
    assert again.history(2000) == list(range(1500))


HEADER = b'{"ebus": 1, "name": "rr", "scope": "server", "spec": {}}\n'


@pytest.mark.parametrize(
    "header",
    [
        b"{}\n",
        b'{"ebus": 1}\n',
        b'{"ebus": true, "name": "x", "scope": "server", "spec": {}}\n',
        b'{"ebus": 1, "name": "rr", "scope": "server", "spec": []}\n',
        b'{"ebus": 1, "name": "rr", "scope": 5, "spec": {}}\n',
        b'{"ebus": 1, "name": "rr", "scope": "server", "spec": {"size": "many"}}\n',
        b'{"ebus": 1, "name": "rr", "scope": "server", "spec": {"schema": ' + b"[" * 5000 + b"]" * 5000 + b"}}\n",
        b"\xff\xfe\n",
    ],
)
def test_malformed_header_of_a_recording_is_a_named_error(line: Line, tmp_path: Path, header: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(header)
    with pytest.raises(RecordingError, match=r"x\.jsonl"):
        bus_for(line.client(), tmp_path / "x.jsonl")
    with pytest.raises(RecordingError, match=r"x\.jsonl"):
        replay(line.client().bus("again"), tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    "message",
    [
        b'{"at": "soon", "value": 1}',
        b'{"at": -1, "value": 1}',
        b'{"at": 1e300, "value": 1}',
        b'{"value": 1}',
        b'{"at": 0}',
        b'["value"]',
        b'{"at": 0, "value": 1, "key": 5}',
        b'{"at": 0, "deleted": true}',
        b'{"at": 0, "value": {"$msgpack": "k5OT"}}',
        b'{"at": 0, "value": {"$bytes": "?"}}',
        b'{"at": 0, "value": {"$array": {"dtype": "<f3", "shape": "x", "data": ""}}}',
        b'{"at": 0, "value": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"at": 0, "value": "\xff"}',
        b"null",
        b"",
    ],
)
def test_malformed_message_of_a_recording_is_an_error_with_its_line(line: Line, tmp_path: Path, message: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(HEADER + b'{"at": 0, "value": "good"}\n' + message + b"\n")
    bus = line.client().bus("again")
    with pytest.raises((RecordingError, ebus.TypeMismatch), match=r"x\.jsonl, line 3: "):
        replay(bus, tmp_path / "x.jsonl", speed=1e9)
    assert bus.history() == ["good"]


def test_refused_message_of_a_recording_is_an_error_with_its_line(line: Line, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(HEADER + b'{"at": 0, "value": 1}\n{"at": 0, "value": 2, "key": "k"}\n')
    with pytest.raises(ebus.EbusError, match=r"x\.jsonl, line 3: "):
        replay(line.client().bus("again"), tmp_path / "x.jsonl")
