"""Participants, filters and other extensions in a real server; and `Participants` by itself."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ebus_jupyter as ebus
from ebus_jupyter.client.client import Client
from ebus_jupyter.server import participants
from ebus_jupyter.server.participants import Participants, ServerClient, load_functions

from .harness import Server
from .room import Room, next_of

GAME = '''
"""A package for the server: a participant, filters, and a server extension."""

import asyncio
import ebus_jupyter as ebus

async def referee(bus):
    """Reads the moves and writes where each one leads. Fails on a move that it can't read."""
    moves, truth = bus.bus("moves"), bus.bus("truth")
    async for move in moves.messages():
        await truth.write({"player": move.sender.user, "at": move.value["to"] % 10})

def shout(value, sender):
    if value == "":
        raise ebus.Reject("say something")
    return value.upper()

async def stamp(value, sender, context):
    await asyncio.sleep(0)
    return {"text": value, "by": sender.user, "ip": context.ip, "kernel": context.kernel, "bus": context.bus}

def broken(value, sender):
    return 1 / 0

def _load_jupyter_server_extension(serverapp):
    greetings = serverapp.web_app.settings["ebus"].bus("greetings")
    greetings.write("hello from the server")         # before its loop runs
    @greetings.on
    def answer(value):
        if value == "who are you?":
            greetings.write("the server")
'''

CONFIG = """
import sys; sys.path.insert(0, {folder!r})
c.ServerApp.jpserver_extensions.update({{"game": True}})
c.EBus.participants = {{"referee": "game:referee", "missing": "game:nothing"}}
c.EBus.filters = {{"shout": "game:shout", "stamp": "game:stamp", "broken": "game:broken"}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("game")
    (folder / "game.py").write_text(GAME)
    with Server(tmp_path_factory.mktemp("server"), config=CONFIG.format(folder=str(folder))) as running:
        yield running


def test_participant_reads_and_writes_as_a_sender_of_kind_server(client_of: Callable[[str], Client]) -> None:
    alice, bob = client_of("alice"), client_of("bob")
    truth = bob.bus("truth").messages()
    alice.bus("moves").write({"to": 13}).result(10)
    move = truth.get(10)
    assert move.value == {"player": "alice", "at": 3}
    assert (move.sender.kind, move.sender.name) == ("server", "referee")


def test_failed_participant_is_logged_and_restarted(server: Server, client_of: Callable[[str], Client]) -> None:
    alice = client_of("alice")
    truth, moves = alice.bus("truth").stream(), alice.bus("moves")
    changed = threading.Event()
    moves.presence.on_change(changed.set)

    def referees() -> set[str]:
        return {who.id for who in moves.participants if who.kind == "server"}

    failed = referees()
    moves.write("I win").result(10)
    while not referees() - failed:  # until a new one has replaced it
        assert changed.wait(10)
        changed.clear()
    moves.write({"to": 4}).result(10)
    assert truth.get(10) == {"player": "alice", "at": 4}
    assert "participant 'referee' failed" in server.output()


def test_failed_import_is_logged_and_the_others_run(server: Server) -> None:
    assert "missing of the group ebus_jupyter.participants can't be imported" in server.output()


def test_extension_participates_before_the_servers_loop_runs(client_of: Callable[[str], Client]) -> None:
    greetings = client_of("alice").bus("greetings").messages(since="start")
    first = greetings.get(10)
    assert (first.value, first.sender.kind, first.sender.user) == ("hello from the server", "server", "")
    client_of("bob").bus("greetings").write("who are you?")
    assert [message.value for message in greetings.take(2, 10)] == ["who are you?", "the server"]


def test_server_filter_changes_and_rejects_values(client_of: Callable[[str], Client]) -> None:
    loud = client_of("alice").bus("loud", filter="shout")
    received = loud.stream()
    loud.write("tea")
    assert received.get(10) == "TEA"
    with pytest.raises(ebus.Filtered, match="say something"):
        loud.write("").result(10)


def test_server_filter_receives_the_context_of_a_write(server: Server, client_of: Callable[[str], Client]) -> None:
    stamped = client_of("alice").bus("stamped", str, emits=dict, filter="stamp")
    received = stamped.stream()
    stamped.write("by socket").result(10)
    server.request("POST", "ebus/api/buses/server/stamped/messages", "bob", body={"value": "by http"}).good()
    kernel = server.start_kernel("bob")
    kernel.run("import ebus_jupyter as ebus; ebus.bus('stamped').write('by kernel').result(10)")
    by = {"ip": "127.0.0.1", "bus": "ebus:server/stamped"}
    assert received.take(3, 10) == [
        {"text": "by socket", "by": "alice", "kernel": "", **by},
        {"text": "by http", "by": "bob", "kernel": "", **by},
        {"text": "by kernel", "by": "bob", "kernel": kernel.id, **by},
    ]


def test_failed_server_filter_accepts_nothing(client_of: Callable[[str], Client]) -> None:
    bus = client_of("alice").bus("unlucky", filter="broken")
    with pytest.raises(ebus.FilterUnavailable, match="ZeroDivisionError"):
        bus.write(1).result(10)
    assert bus.history() == []


def test_unknown_server_filter_is_refused_with_the_known_ones(client_of: Callable[[str], Client]) -> None:
    with pytest.raises(ebus.SpecConflict, match="it has: broken, shout, stamp"):
        client_of("alice").bus("hopeful", filter="launder")


# --- without a server ----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_stop_cancels_participants_and_closes_their_clients(room: Room) -> None:
    ended = []

    async def guest(client: Client) -> None:
        try:
            async for _ in client.bus("door").stream():
                pass
        finally:
            ended.append("guest")

    async def doorman(client: Client) -> None:
        client.bus("door").on(lambda knock: client.bus("answers").write(f"{knock}? come in"))

    def impostor(client: Client) -> None: ...

    log = logging.getLogger("test_participants")
    runner = Participants({"guest": guest, "doorman": doorman, "impostor": impostor}, room.server, log)
    alice = room.client("alice")
    answers = alice.bus("answers").stream()
    door = alice.bus("door")
    await door.opened()
    runner.start()
    changed = asyncio.Event()
    door.presence.on_change(changed.set)
    while len(door.presence.seats() if door.channel.presence_known else []) < 3:
        await asyncio.wait_for(changed.wait(), 10)
        changed.clear()
    door.write("alice")
    assert await next_of(answers) == "alice? come in"  # the callback of a participant that has returned
    await runner.stop()
    assert ended == ["guest"]
    assert all(client.status == "closed" for client in room.clients if isinstance(client, ServerClient))


@pytest.mark.asyncio
async def test_pause_grows_while_a_participant_keeps_failing(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(participants, "RESTART_SECONDS", (0.001, 0.004))
    times = 0
    enough = asyncio.Event()

    async def hopeless(client: Client) -> None:
        nonlocal times
        times += 1
        if times == 5:
            enough.set()
        raise OSError("no disk")

    log = logging.getLogger("hopeless")
    runner = Participants({"hopeless": hopeless}, room.server, log, clock=lambda: 0.0)  # no run is long
    runner.start()
    await asyncio.wait_for(enough.wait(), 10)
    await runner.stop()
    pauses = [record.args[1] for record in caplog.records if record.name == "hopeless" and record.args]  # type: ignore[index]
    assert pauses[:4] == [0.001, 0.002, 0.004, 0.004]


def test_configured_functions_override_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package.py").write_text("def clean(value, sender): return value\ndef cleaner(value, sender): ...\n")
    info = tmp_path / "package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ebus_jupyter.filters]\nclean = package:clean\nother = package:clean\n")
    monkeypatch.syspath_prepend(tmp_path)
    functions = load_functions("ebus_jupyter.filters", {"clean": "package:cleaner"}, logging.getLogger())
    assert {name: function.__name__ for name, function in functions.items()} == {"clean": "cleaner", "other": "clean"}
