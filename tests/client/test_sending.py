"""What sending costs, and what happens when it fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import ebus_jupyter as ebus
from ebus_jupyter.client import discover
from ebus_jupyter.client.topic import TopicTable
from ebus_jupyter.core.client.directory import Directory

from .conftest import Line
from .test_supervision import next_status


def test_write_looks_at_no_other_bus(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    client = line.client()
    buses = [client.bus(f"bus-{n}") for n in range(20)]
    scans: list[type] = []

    def counting(cls: type) -> Any:
        scan = cls.__iter__  # type: ignore[attr-defined]

        def iterate(self: Any) -> Iterator[Any]:
            scans.append(cls)
            return scan(self)  # type: ignore[no-any-return]

        return iterate

    for cls in (TopicTable, Directory):
        monkeypatch.setattr(cls, "__iter__", counting(cls))
    buses[0].write(1).result(5)
    assert scans == []


def test_error_while_sending_is_reported_and_the_client_reconnects(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    client = line.client()
    bus = client.bus("votes")
    bus.write(1).result(5)
    reported: list[Exception] = []
    client.on_error(reported.append)
    send = client.connection.session.data_to_send
    failures = [RuntimeError("a bug")]

    def data_to_send() -> bytes | None:
        if failures:
            raise failures.pop()
        return send()

    wait = next_status(client)
    monkeypatch.setattr(client.connection.session, "data_to_send", data_to_send)
    ack = bus.write(2)
    wait("reconnecting")
    assert ack.result(10) == 2
    wait("live")
    assert [str(error) for error in reported] == ["a bug"]


def test_writes_made_offline_are_bounded_by_bytes(line: Line) -> None:
    client = line.client()
    bus = client.bus("votes")
    wait = next_status(client)
    line.cut()
    wait("reconnecting")
    client.connection.session._writes.max_bytes = 10_000
    for _ in range(9):
        bus.write(b"x" * 1000, wait=False)
    with pytest.raises(ebus.RateLimited, match="no answer yet") as full:
        bus.write(b"x" * 1000, wait=False)
    assert full.value.limit == "max_pending"
    assert full.value.retry_after > 0
    line.mend()
    assert client.flush(10) == 0


def test_status_says_where_who_and_why(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    client = line.client()
    monkeypatch.setattr(discover, "default_client", lambda: client)
    client.wait_live(5)
    assert "live as kernel of alice" in ebus.status()
    wait = next_status(client)
    line.cut()
    wait("reconnecting")
    assert "reconnecting" in ebus.status() and "the test's broker" in ebus.status()
    assert str(client.why) in ebus.status()
    client.close(0)
    assert "closed" in ebus.status() and "ebus.connect()" in ebus.status()


def test_state_is_a_context_manager(line: Line) -> None:
    with line.client().state("dash") as dash:
        dash["speed"] = 1
        dash.flush(5)
    with pytest.raises(ebus.Closed, match=r"ebus\.bus\(\)"):
        dash["speed"] = 2
    assert line.client().state("dash")["speed"] == 1


@pytest.mark.parametrize("is_async", [True, False])
def test_callback_that_sleeps_holds_up_no_message_and_no_filter(line: Line, is_async: bool) -> None:
    async def louder_later(text: str, sender: ebus.Participant) -> str:
        return text.upper()

    def louder(text: str, sender: ebus.Participant) -> str:
        return text.upper()

    client = line.client()
    clean = client.bus("clean", str, filter=louder_later if is_async else louder)
    stream = clean.stream()
    asleep, wake = threading.Event(), threading.Event()
    calls = client.bus("calls")
    calls.on(lambda _: (asleep.set(), wake.wait(20)))
    calls.write(1).result(5)
    assert asleep.wait(5)
    try:
        assert line.client("bob", "k2").bus("clean").write("tea").result(4) == 1
        assert stream.get(4) == "TEA"
    finally:
        wake.set()
