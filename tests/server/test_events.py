"""A bus as a stream of server-sent events, as a dashboard reads it."""

from __future__ import annotations

import threading
import urllib.error
from collections.abc import Callable

import pytest

from ebus_jupyter.client.client import Client

from .harness import Server
from .http_api import EventSource, write


def test_events_arrive_as_messages_are_written(server: Server, name: str) -> None:
    write(server, name, value="before")
    with EventSource(server, name) as events:
        write(server, name, value="now")
        assert events.take(1) == ["now"]


def test_events_since_the_start_continue_live_without_a_gap(server: Server, name: str) -> None:
    for n in range(3):
        write(server, name, value=n)
    writer = threading.Thread(target=lambda: [write(server, name, value=n) for n in range(3, 20)])
    writer.start()
    with EventSource(server, name, "?since=start") as events:
        assert events.take(20) == list(range(20))
    writer.join()


def test_reconnecting_over_a_server_restart_misses_nothing(server: Server, name: str) -> None:
    write(server, name, value=0)
    with EventSource(server, name, "?since=start") as events:
        assert events.take(1) == [0]
        write(server, name, value=1)
        server.restart()
        assert events.take(1) == [1]
        with pytest.raises(EOFError):  # without an event "closed", so that an EventSource reconnects
            events.next()
    write(server, name, value=2)
    with EventSource(server, name, last=events.last) as again:
        assert again.take(1) == [2]


def test_reconnecting_too_late_gets_a_lagged_event(
    server: Server, name: str, client_of: Callable[[str], Client]
) -> None:
    client_of("alice").bus(name, size=2)
    write(server, name, value="a")
    with EventSource(server, name, "?since=start") as events:
        events.take(1)
    for value in "bcde":
        write(server, name, value=value)
    with EventSource(server, name, last=events.last) as again:
        kind, lag = again.next()
        assert (kind, lag["details"]) == ("lagged", {"skipped": 2, "resume_after": 3})
        assert again.take(2) == ["d", "e"]


def test_unknown_last_event_id_gets_lagged_and_the_whole_log(server: Server, name: str) -> None:
    write(server, name, value="here")
    with EventSource(server, name, last="some other server's") as events:
        kind, lag = events.next()
        assert (kind, lag["details"]["skipped"]) == ("lagged", None)
        assert events.take(1) == ["here"]


def test_deleted_bus_sends_a_closed_event(server: Server, name: str, client_of: Callable[[str], Client]) -> None:
    bus = client_of("alice").bus(name)
    with EventSource(server, name) as events:
        bus.delete()
        kind, closed = events.next()
        assert (kind, closed["code"]) == ("closed", "closed")
        assert "alice has deleted" in closed["text"]
        with pytest.raises(EOFError):
            events.next()
    with pytest.raises(urllib.error.HTTPError, match="404"):  # at which an EventSource does not reconnect
        EventSource(server, name)


def test_disconnected_reader_leaves_the_bus(server: Server, name: str, client_of: Callable[[str], Client]) -> None:
    bus = client_of("alice").bus(name)
    changed = threading.Event()
    bus.presence.on_change(changed.set)
    with EventSource(server, name, user="bob"):
        while {who.user for who in bus.participants} != {"alice", "bob"}:
            assert changed.wait(10)
            changed.clear()
    while any(who.user == "bob" for who in bus.participants):
        assert changed.wait(10)
        changed.clear()
