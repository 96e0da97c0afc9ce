"""Idle connections: pings on WebSockets, comments on event streams."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from .harness import Server
from .http_api import EventSource, write
from .wire import Wire


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("keep-alive"), args=["--EBus.ping_interval=0.3"]) as running:
        yield running


def test_peer_that_answers_no_ping_is_shown_as_away(server: Server) -> None:
    with (
        Wire(server, auth=f"token {server.token('bob')}") as silent,
        Wire(server, auth=f"token {server.token('alice')}") as alice,
    ):
        alice.hello(), silent.hello()
        alice.watch(alice.open("room"))
        silent.open("room")  # from here on it reads nothing, so that it answers no ping
        who, status, _ = alice.next_presence()
        while status != "away":
            who, status, _ = alice.next_presence()
        assert who.user == "bob"


def test_comments_keep_an_idle_event_stream_open(server: Server, name: str) -> None:
    write(server, name, value=0)
    with EventSource(server, name) as events:
        done = threading.Timer(1.0, lambda: write(server, name, value="at last"))
        done.start()
        assert events.take(1) == ["at last"]
        assert events.comments >= 2
