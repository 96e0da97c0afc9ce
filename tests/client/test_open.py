"""Opening buses: by name, by URI, unnamed, pickled."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import ebus_jupyter as ebus
from ebus_jupyter.client import discover
from ebus_jupyter.core.client.channel import GATHER_SECONDS

from .conftest import Line


@dataclass
class Vote:
    choice: str
    weight: float = 1.0


def test_name_and_uri_opened_at_once_are_one_bus(line: Line) -> None:
    client = line.client("alice")
    client.wait_live(5)

    async def open_both() -> list[ebus.Bus[Any, Any]]:
        return [client.bus("notes", scope="user"), client.bus("ebus:user/alice/notes")]

    buses = line.run(open_both())
    streams = [bus.stream() for bus in buses]
    assert [bus.write(n).result(5) for n, bus in enumerate(buses)] == [1, 2]
    assert [stream.take(2, 5) for stream in streams] == [[0, 1], [0, 1]]
    buses[0].close()
    assert buses[1].write(2).result(5) == 3
    assert streams[1].get(5) == 2


def test_opening_with_another_spec_shows_both_values(line: Line) -> None:
    line.client().bus("votes", Vote, size=10)
    with pytest.raises(ebus.SpecConflict, match="size is 10, you asked for 9") as conflict:
        line.client("bob", "k2").bus("votes", size=9)
    assert (conflict.value.existing, conflict.value.given) == ({"size": 10}, {"size": 9})


def test_unnamed_bus_needs_its_uri_and_ends_with_its_maker(line: Line) -> None:
    maker, guest = line.client("alice"), line.client("bob", "k2")
    private = maker.bus(type=int)
    entered = guest.bus(private.uri)
    stream = entered.stream()
    private.write(7)
    assert stream.get(5) == 7
    with pytest.raises(ebus.NoSuchBus):
        guest.bus(private.uri.replace("#", "#0"))
    private.close()
    with pytest.raises(ebus.Closed, match="its maker has closed"):
        stream.get(5)


@pytest.mark.parametrize(
    ("name", "scope"), [("mine", "user"), ("mine", "kernel"), ("mine", "server"), (None, "server")]
)
def test_bus_opened_by_name_and_by_uri_is_the_same(line: Line, name: str | None, scope: str) -> None:
    client = line.client()
    bus = client.bus(name, int, scope=scope)
    before = bus.stream()
    again = client.bus(bus.uri)
    after = again.stream()
    bus.write(1).result(5)
    assert (before.get(5), after.get(5)) == (1, 1)
    again.close()
    bus.write(2).result(5)
    assert before.get(5) == 2


def test_uri_of_another_user_s_bus_is_out_of_reach(line: Line) -> None:
    alice, bob = line.client("alice"), line.client("bob", "k2")
    uri = alice.bus("diary", str, scope="user").uri
    bob.bus("diary", str, scope="user")
    with pytest.raises(ebus.NoSuchBus):
        bob.bus(uri)


def test_bus_can_be_pickled_and_sent_on_another_bus(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    client = line.client()
    monkeypatch.setattr(discover, "default_client", lambda: client)
    bus = client.bus("votes", Vote)
    again = pickle.loads(pickle.dumps(bus))
    stream = again.stream()
    bus.write(Vote("tea"))
    assert stream.get(5) == Vote("tea")
    doors = client.bus("doors", str)
    knocks = doors.stream()
    doors.write(bus.uri)
    assert knocks.get(5) == "ebus:server/votes"


def test_closed_bus_can_be_reopened_at_once(line: Line) -> None:
    client = line.client()
    for n in range(20):
        bus = client.bus("door")
        assert bus.write(n).result(5) == n + 1
        bus.close()


def test_address_names_a_guarded_bus_without_its_capability(line: Line) -> None:
    bus = line.client().bus("mine", int, scope="kernel")
    assert (bus.scope, bus.owner, bus.address) == ("kernel", "k1", "ebus:kernel/k1/mine")
    assert bus.capability and bus.uri == f"{bus.address}#{bus.capability}"
    assert bus.epoch
    assert not bus.is_receiving
    bus.stream()
    assert bus.is_receiving


def test_pickled_bus_keeps_the_type_that_its_filter_emits(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def by(text: str, sender: ebus.Participant) -> Vote:
        return Vote(f"{text} for {sender.user}")

    client = line.client("alice")
    monkeypatch.setattr(discover, "default_client", lambda: client)
    bus = client.bus("drinks", str, emits=Vote, filter=by)
    again = pickle.loads(pickle.dumps(bus))
    stream = again.stream()
    again.write("tea").result(5)
    assert stream.get(5) == Vote("tea for alice")


def test_refused_second_open_leaves_the_first_unharmed(line: Line) -> None:
    def louder(text: str, sender: ebus.Participant) -> str:
        return text.upper()

    client = line.client()
    votes = client.bus("votes", str, size=5, filter=louder, flush_size=3, flush_interval=9.0)
    with pytest.raises(ebus.SpecConflict):
        client.bus("votes", str, size=4, filter=lambda text, _: text * 2, flush_size=1, flush_interval=0.0)
    with pytest.raises(ebus.SpecConflict):
        client.bus("votes", size=3)
    assert (votes.channel.flush_size, votes.channel.flush_interval) == (3, 9.0)
    line.cut()
    line.mend()
    heard = votes.stream()
    votes.write("tea")
    votes.flush()
    assert heard.get(5) == "TEA"


def test_granted_second_open_replaces_the_filter(line: Line) -> None:
    client = line.client()
    votes = client.bus("votes", str, filter=lambda text, _: text.upper())
    client.bus("votes", str, filter=lambda text, _: text * 2, flush_size=2, flush_interval=9.0)
    heard = votes.stream()
    votes.write("tea")
    votes.write("milk")
    assert heard.take(2, 5) == ["teatea", "milkmilk"]


def test_second_open_without_options_keeps_the_flush_settings(line: Line) -> None:
    client = line.client()
    votes = client.bus("votes", flush_size=3, flush_interval=9.0)
    client.bus("votes")
    assert (votes.channel.flush_size, votes.channel.flush_interval) == (3, 9.0)


def test_spec_that_cannot_be_encoded_harms_nothing(line: Line) -> None:
    client = line.client()
    with pytest.raises(TypeError):
        client.bus("votes", size=object())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        client.bus("votes", filter=object())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="writers"):
        client.bus("votes", writers=["\ud800"])
    assert client.bus("votes", size=np.int64(10)).write(1).result(5) == 1
    with pytest.raises(TypeError):
        client.bus("votes", retain=object())  # type: ignore[arg-type]
    line.cut()
    line.mend()
    assert client.bus("votes").write(2).result(5) == 2


def test_flush_size_alone_gathers_for_a_bounded_time(line: Line) -> None:
    votes = line.client().bus("votes", flush_size=1000)
    assert votes.channel.flush_interval == GATHER_SECONDS
    assert votes.write("tea").result(5) == 1


def test_flush_interval_alone_gathers_writes(line: Line) -> None:
    votes = line.client().bus("votes", flush_interval=60.0)
    ack = votes.write("tea")
    assert list(votes.channel.batch) == [1]
    votes.flush()
    assert ack.result(5) == 1


def test_write_before_close_is_settled_by_its_answer(line: Line) -> None:
    def slow(text: str, sender: ebus.Participant) -> str:
        return text.upper()

    client = line.client()
    votes = client.bus("votes", str, filter=slow)
    ack = votes.write("tea")
    votes.close()
    assert ack.result(5) == 1
    assert client.bus("votes").history() == ["TEA"]


PICKLE_OF_0_1_0 = (
    b"\x80\x04\x95P\x00\x00\x00\x00\x00\x00\x00\x8c\x17ebus_jupyter.client.bus\x94\x8c\x08_rebuild\x94\x93\x94"
    b"\x8c\x0eebus:server/a1\x94\x8c\x06typing\x94\x8c\x03Any\x94\x93\x94h\x06\x87\x94R\x94."
)


def test_pickle_of_an_earlier_version_opens_its_bus() -> None:
    assert pickle.loads(PICKLE_OF_0_1_0).uri == "ebus:server/a1"
