"""The server itself takes part: other extensions, installed participants and filters, and a picture of a whiteboard."""

from __future__ import annotations

import asyncio
import importlib
import io
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import ebus_jupyter as ebus
from ebus_jupyter.broker.host import Broker
from ebus_jupyter.client.client import Client
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.server import participants
from ebus_jupyter.server.participants import Participants, ServerClient, installed
from ebus_jupyter.server.whiteboard import Stroke, fold, position_of
from ebus_jupyter.transports.local import LocalTransport

from .harness import Server

GAME = '''
"""Somebody's package for the server: a referee, filters, and an extension of their own."""

import asyncio
import ebus_jupyter as ebus

async def referee(bus):
    """Checks each player's moves, and tells everyone the truth. A move that it can't read is the end of it."""
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
    def answer(said):
        if said == "who are you?":
            greetings.write("the server")
'''

CONFIG = """
import sys; sys.path.insert(0, {folder!r})
c.ServerApp.jpserver_extensions = {{"game": True, "ebus_jupyter": True}}
c.EBus.participants = {{"referee": "game:referee", "missing": "game:nothing"}}
c.EBus.filters = {{"shout": "game:shout", "stamp": "game:stamp", "broken": "game:broken"}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("game")
    (folder / "game.py").write_text(GAME)
    with Server(tmp_path_factory.mktemp("server"), config=CONFIG.format(folder=str(folder))) as running:
        yield running


@pytest.fixture
def client_of(server: Server) -> Iterator[Callable[[str], Client]]:
    made: list[Client] = []

    def make(user: str) -> Client:
        made.append(ebus.connect(server.url, server.token(user)))
        return made[-1]

    yield make
    for client in made:
        client.close()


# --- in a real server -------------------------------------------------------------------------------------------------


def test_a_referee_in_the_server_hears_the_players_and_tells_everyone(client_of: Callable[[str], Client]) -> None:
    alice, bob = client_of("alice"), client_of("bob")
    truth = bob.bus("truth").messages()
    alice.bus("moves").write({"to": 13}).result(10)
    told = truth.get(10)
    assert told.value == {"player": "alice", "at": 3}
    assert (told.sender.kind, told.sender.name) == ("server", "referee")


def test_a_referee_that_fails_is_logged_and_started_again(server: Server, client_of: Callable[[str], Client]) -> None:
    alice = client_of("alice")
    truth, moves = alice.bus("truth").stream(), alice.bus("moves")
    back = threading.Event()
    moves.presence.on_change(back.set)

    def referees() -> set[str]:
        return {who.id for who in moves.participants if who.kind == "server"}

    failed = referees()
    moves.write("I win").result(10)
    while not referees() - failed:  # a new one, with nothing left of the one that failed
        assert back.wait(10)
        back.clear()
    moves.write({"to": 4}).result(10)
    assert truth.get(10) == {"player": "alice", "at": 4}
    assert "participant 'referee' failed" in server.output()


def test_what_can_t_be_imported_is_logged_and_the_rest_runs(server: Server) -> None:
    assert "missing of the group ebus_jupyter.participants can't be imported" in server.output()


def test_another_extension_takes_part_from_before_the_server_s_loop_runs(client_of: Callable[[str], Client]) -> None:
    greetings = client_of("alice").bus("greetings").messages(since="start")
    first = greetings.get(10)
    assert (first.value, first.sender.kind, first.sender.user) == ("hello from the server", "server", "")
    client_of("bob").bus("greetings").write("who are you?")
    assert [message.value for message in greetings.take(2, 10)] == ["who are you?", "the server"]


def test_a_filter_of_the_server_changes_and_refuses(client_of: Callable[[str], Client]) -> None:
    loud = client_of("alice").bus("loud", filter="shout")
    heard = loud.stream()
    loud.write("tea")
    assert heard.get(10) == "TEA"
    with pytest.raises(ebus.Filtered, match="say something"):
        loud.write("").result(10)


def test_a_filter_knows_where_a_write_comes_from(server: Server, client_of: Callable[[str], Client]) -> None:
    stamped = client_of("alice").bus("stamped", str, emits=dict, filter="stamp")
    heard = stamped.stream()
    stamped.write("by socket").result(10)
    server.request("POST", "ebus/api/buses/server/stamped/messages", "bob", body={"value": "by http"}).good()
    kernel = server.start_kernel("bob")
    kernel.run("import ebus_jupyter as ebus; ebus.bus('stamped').write('by kernel').result(10)")
    by = {"ip": "127.0.0.1", "bus": "ebus:server/stamped"}
    assert heard.take(3, 10) == [
        {"text": "by socket", "by": "alice", "kernel": "", **by},
        {"text": "by http", "by": "bob", "kernel": "", **by},
        {"text": "by kernel", "by": "bob", "kernel": kernel.id, **by},
    ]


def test_a_filter_that_fails_lets_nothing_through(client_of: Callable[[str], Client]) -> None:
    bus = client_of("alice").bus("unlucky", filter="broken")
    with pytest.raises(ebus.FilterUnavailable, match="ZeroDivisionError"):
        bus.write(1).result(10)
    assert bus.history() == []


def test_a_filter_that_is_not_installed_can_t_be_asked_for(client_of: Callable[[str], Client]) -> None:
    with pytest.raises(ebus.SpecConflict, match="it has: broken, shout, stamp"):
        client_of("alice").bus("hopeful", filter="launder")


# --- by itself --------------------------------------------------------------------------------------------------------


class Room:
    """A broker and those in it, on the test's own loop."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.clients: list[Client] = []

    def server(self, name: str = "server") -> ServerClient:
        async def ready() -> None:
            pass

        client = ServerClient(self.broker, ready, asyncio.get_running_loop(), name)
        self.clients.append(client)
        return client

    def client(self, user: str) -> Client:
        """A client on the same loop, which may not be blocked either."""

        async def connect() -> LocalTransport:
            return LocalTransport(lambda outlet: self.broker.attach(Participant("", "client", user), outlet))

        client = Client(connect, where="the room", loop=asyncio.get_running_loop())
        self.clients.append(client)
        return client


@pytest_asyncio.fixture
async def room() -> AsyncIterator[Room]:
    broker = Broker()
    await broker.start()
    room = Room(broker)
    yield room
    for client in room.clients:
        client.close()
    await broker.aclose()


async def next_of(stream: Any) -> Any:
    return await asyncio.wait_for(anext(stream), 10)


@pytest.mark.asyncio
async def test_the_server_never_waits_but_awaits(room: Room) -> None:
    server = room.server()
    votes = server.bus("votes", str)  # back at once
    heard = votes.stream()
    assert await votes.write("tea") == 1
    assert await next_of(heard) == "tea"
    for blocks in (
        votes.history,
        heard.get,
        lambda: votes.write("x").result(1),
        votes.delete,
        server.buses,
    ):
        with pytest.raises(RuntimeError, match="would block the loop"):
            blocks()
    assert await asyncio.to_thread(votes.history) == ["tea", "x"]


@pytest.mark.asyncio
async def test_what_the_broker_has_against_a_bus_comes_when_one_asks(room: Room) -> None:
    server = room.server()
    await server.bus("votes", str).opened()
    other = room.server("other").bus("votes", int)
    with pytest.raises(ebus.SpecConflict):
        await other.opened()


@pytest.mark.asyncio
async def test_a_state_in_the_server_is_loaded_and_followed(room: Room) -> None:
    theirs = room.client("alice").state("dash")
    theirs["speed"] = 1
    await theirs.bus.write(1, key="tea")
    ours = await room.server().state("dash").loaded()
    assert dict(ours) == {"speed": 1, "tea": 1}


@pytest.mark.asyncio
async def test_the_server_enters_anyone_s_scope_but_says_whose(room: Room) -> None:
    server, alice = room.server(), room.client("alice")
    with pytest.raises(ebus.Forbidden, match="owner="):
        server.bus("inbox", scope="user")
    inbox = await alice.bus("inbox", scope="user").stream().begun()
    bobs = await room.client("bob").bus("inbox", scope="user").messages().begun()
    await server.bus("inbox", scope="user", owner="alice").write("for you")
    assert await next_of(inbox) == "for you"
    await server.bus("inbox", scope="user", owner="bob").write("and you")
    assert (await next_of(bobs)).value == "and you"


@pytest.mark.asyncio
async def test_participants_end_with_the_server(room: Room) -> None:
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
    running = Participants({"guest": guest, "doorman": doorman, "impostor": impostor}, room.server, log)
    alice = room.client("alice")
    answers = alice.bus("answers").stream()
    door = alice.bus("door")
    await door.opened()
    running.start()
    seen = asyncio.Event()
    door.presence.on_change(seen.set)
    while len(door.presence.seats() if door.channel.presence_known else []) < 3:
        await asyncio.wait_for(seen.wait(), 10)
        seen.clear()
    door.write("alice")
    assert await next_of(answers) == "alice? come in"  # a participant that has returned still answers
    await running.stop()
    assert ended == ["guest"]
    assert all(client.status == "closed" for client in room.clients if isinstance(client, ServerClient))


@pytest.mark.asyncio
async def test_a_participant_that_goes_on_failing_is_given_ever_longer_pauses(
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

    running = Participants({"hopeless": hopeless}, room.server, logging.getLogger("hopeless"))
    running.start()
    await asyncio.wait_for(enough.wait(), 10)
    await running.stop()
    pauses = [record.args[1] for record in caplog.records if record.name == "hopeless" and record.args]  # type: ignore[index]
    assert pauses[:4] == [0.001, 0.002, 0.004, 0.004]


def test_functions_are_found_in_installed_packages_and_the_configuration_has_the_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "somebodys.py").write_text("def clean(value, sender): return value\ndef cleaner(value, sender): ...\n")
    info = tmp_path / "somebodys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ebus_jupyter.filters]\nclean = somebodys:clean\nother = somebodys:clean\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = installed("ebus_jupyter.filters", {"clean": "somebodys:cleaner"}, logging.getLogger())
    assert {name: function.__name__ for name, function in found.items()} == {"clean": "cleaner", "other": "clean"}


# --- the whiteboard ---------------------------------------------------------------------------------------------------


def colors(png: bytes) -> set[tuple[int, ...]]:
    image = importlib.import_module("PIL.Image").open(io.BytesIO(png)).convert("RGB")
    return {color for _, color in image.getcolors(1 << 16)}


async def fold_in(room: Room, name: str = "whiteboard") -> asyncio.Task[None]:
    """Begin to fold, and return when the buses are there, made by the server."""
    client = room.server(name)
    folding = asyncio.ensure_future(fold(client, size=(60, 40), every=0.001))
    await client.bus("whiteboard", Stroke).opened()
    await client.bus("whiteboard.png", bytes, retain="latest").opened()
    return folding


RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


@pytest.mark.asyncio
async def test_who_comes_late_gets_the_picture_and_what_was_drawn_since(room: Room) -> None:
    importlib.import_module("PIL")
    folding = await fold_in(room)
    alice = room.client("alice")
    pictures = alice.bus("whiteboard.png").stream()
    board = alice.bus("whiteboard")
    red = {"points": [[5, 5], [50, 30]], "color": "#ff0000", "width": 4}
    offset = await board.write(red)
    png = await next_of(pictures)
    assert {RED, WHITE} <= colors(png)
    assert position_of(png) == (board.channel.epoch, offset)

    late = room.client("bob")
    kept = await next_of(late.bus("whiteboard.png").stream(since="start"))
    assert kept == png
    since = late.bus("whiteboard", Stroke).stream(since=position_of(kept)[1])
    await board.write({"points": [[20, 5]], "color": "#00ff00", "width": 9})
    assert (await next_of(since)).color == "#00ff00"
    folding.cancel()


@pytest.mark.asyncio
async def test_a_server_that_was_restarted_goes_on_with_the_picture(room: Room) -> None:
    importlib.import_module("PIL")
    folding = await fold_in(room, "first")
    alice = room.client("alice")
    pictures = alice.bus("whiteboard.png").stream()
    board = alice.bus("whiteboard")
    await board.write({"points": [[5, 5], [50, 5]], "color": "#ff0000", "width": 4})
    await next_of(pictures)
    folding.cancel()
    await board.write({"points": [[5, 30], [50, 30]], "color": "#00ff00", "width": 4})
    folding = await fold_in(room, "second")
    assert {RED, GREEN, WHITE} <= colors(await next_of(pictures))
    folding.cancel()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "scribble",
    [
        {"points": []},
        {"points": [[1, 2, 3]]},
        {"points": [[0, 0]], "color": "red"},
        {"points": [[0, 0]], "width": 0},
        "a line",
    ],
)
async def test_what_is_no_stroke_is_refused_whoever_writes_it(room: Room, scribble: Any) -> None:
    board = await room.server().bus("whiteboard", Stroke).opened()
    with pytest.raises(ebus.TypeMismatch):
        await room.client("mallory").bus("whiteboard").write(scribble)
    assert board.last == 0


@pytest.mark.asyncio
async def test_a_stroke_beyond_all_bounds_does_no_harm(room: Room) -> None:
    importlib.import_module("PIL")
    folding = await fold_in(room)
    board = room.client("mallory").bus("whiteboard")
    pictures = room.client("alice").bus("whiteboard.png").stream()
    await board.write({"points": [[-1e300, 20], [1e300, 20]], "color": "#ff0000", "width": 3})
    assert RED in colors(await next_of(pictures))
    assert not folding.done()
    folding.cancel()
