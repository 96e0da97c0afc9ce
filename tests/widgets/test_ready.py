"""The Python side of the ready-made widgets, without a page."""

from __future__ import annotations

import io
import uuid
from typing import Any

import pytest
from PIL import Image

import ebus_jupyter as ebus
from ebus_jupyter import TypeMismatch
from ebus_jupyter import widgets as ready
from ebus_jupyter.core.protocol.message import Message, Participant
from ebus_jupyter.widgets import Piece
from ebus_jupyter.widgets.page import coordinates
from ebus_jupyter.widgets.ready.poll import Ask, Close, Tally, Vote


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


def test_chat_keeps_messages_with_their_senders(name: str) -> None:
    room, same = ready.Chat(name), ready.Chat(name)
    room.say("one").result(5)
    same.say("two").result(5)
    assert [message.value.text for message in room.history()] == ["one", "two"]
    assert [message.value.text for message in room.history(1)] == ["two"]
    assert {message.sender.id for message in room.history()} == {room.bus.client.you.id}


def test_chat_refuses_anything_but_a_short_text(name: str) -> None:
    with pytest.raises(TypeMismatch):
        ready.Chat(name).say("x" * 5000)
    with pytest.raises(TypeMismatch):
        ready.Chat(name).bus.write({"text": "hello", "name": "someone else"})


def count(*said: tuple[str, Any]) -> Tally:
    tally = Tally()
    for n, (user, entry) in enumerate(said, 1):
        sender = Participant(f"{user}-{n}", "page", user)
        tally.count(Message(offset=n, id=str(n), time=float(n), value=entry, sender=sender, key=None, deleted=False))
    return tally


QUESTION = Ask("Where to?", ["Thai", "Pizza"])


def test_last_vote_of_a_person_counts() -> None:
    said = [
        ("alice", QUESTION),
        ("bob", Vote("Thai")),
        ("bob", Vote("Pizza")),
        ("carol", Vote("Thai")),
        ("carol", Vote(None)),
    ]
    assert count(*said).votes == {"bob": "Pizza"}


def test_invalid_early_and_late_votes_do_not_count() -> None:
    said = [
        ("bob", Vote("Thai")),
        ("alice", QUESTION),
        ("bob", Vote("Sushi")),
        ("alice", Close(True)),
        ("bob", Vote("Thai")),
    ]
    assert count(*said).votes == {}


def test_only_the_owner_closes_or_replaces_a_poll() -> None:
    tally = count(
        ("alice", QUESTION), ("bob", Vote("Thai")), ("bob", Close(True)), ("bob", Ask("Mine?", ["yes", "no"]))
    )
    assert (tally.owner, tally.question, tally.closed, tally.votes) == ("alice", "Where to?", False, {"bob": "Thai"})


def test_asking_the_same_question_again_keeps_the_votes(name: str) -> None:
    poll = ready.Poll(name, question="Where to?", options=["Thai", "Pizza"])
    poll.vote("Thai")
    again = ready.Poll(name, question="Where to?", options=["Thai", "Pizza"])
    assert again.results == poll.results == {"Thai": 1, "Pizza": 0}
    other = ready.Poll(name, question="When?", options=["12", "13"])
    assert other.results == {"12": 0, "13": 0}
    assert (poll.question, poll.closed) == ("When?", False)
    poll.end()
    assert other.closed


def test_whiteboard_renders_as_svg_and_png(name: str) -> None:
    board = ready.Whiteboard(name)
    board.pieces["bob/0002/0000"] = Piece("#d32f2f", 32, [0, 0, 2000, 1200])
    board.pieces["alice/0001/0000"] = Piece("#1976d2", 12, [100, 100, 200, 200])
    board.pieces["alice/0001/0001"] = Piece("#1976d2", 12, [200, 200, 300, 100])
    assert [[piece.colour for piece in stroke] for stroke in board.strokes()] == [["#1976d2", "#1976d2"], ["#d32f2f"]]
    assert '<polyline points="0,0 2000,1200" stroke="#d32f2f" stroke-width="32"/>' in board.svg()
    image = Image.open(io.BytesIO(board.png(400)))
    assert (image.size, image.getpixel((200, 120))) == ((400, 240), (0xD3, 0x2F, 0x2F))
    board.clear()
    assert board.strokes() == []


def test_whiteboard_refuses_markup_in_a_colour(name: str) -> None:
    with pytest.raises(TypeMismatch):
        ready.Whiteboard(name).pieces["x/1/0"] = Piece('"/><script>', 1, [0, 0])


def test_presence_of_an_existing_bus_leaves_it_open_on_close(name: str) -> None:
    room = ready.Chat(name)
    here = ready.Presence(room.bus)
    assert [seat.who.kind for seat in here.seats] == [room.bus.client.you.kind]
    here.close()
    room.say("the room is still open").result(5)


@pytest.mark.parametrize(
    "make", [lambda n: ready.Chat(n), lambda n: ready.Poll(n), lambda n: ready.Status(), lambda n: ready.Inspector()]
)
def test_closing_a_widget_closes_its_bus(make: Any, name: str) -> None:
    widget = make(name)
    assert widget._repr_mimebundle_() is not None
    widget.close()
    assert widget.bus.status == "closed"


# --- a bus that somebody has prepared ---------------------------------------------------------------------------------

WIDGETS = [ready.Chat, ready.Poll, ready.Whiteboard, ready.Presence]


def prepared(value: Any, sender: Participant) -> Any:
    """A filter that puts words into others' mouths."""
    return value


@pytest.mark.parametrize("kind", WIDGETS)
@pytest.mark.parametrize(
    "given", [{"filter": prepared}, {"type": int}, {"retain": "other"}], ids=["filter", "type", "retain"]
)
def test_widget_refuses_a_bus_that_somebody_has_prepared(name: str, kind: Any, given: dict[str, Any]) -> None:
    honest = {ready.Chat: "log", ready.Poll: "log", ready.Whiteboard: "keys", ready.Presence: "latest"}[kind]
    given = {"retain": honest, "type": Any, **given}
    if given["retain"] == "other":
        given["retain"] = "latest" if honest == "log" else "log"
    if kind is ready.Presence and given["type"] is int:
        return  # it has no values
    ebus.bus(f"{kind.__name__.lower()}:{name}", **given)
    with pytest.raises(ebus.SpecConflict):
        kind(name)


@pytest.mark.parametrize("kind", WIDGETS)
def test_page_of_a_widget_is_told_what_to_insist_on(name: str, kind: Any) -> None:
    insist = kind(name)._bus["insist"]
    assert insist["filter"] is None
    assert {"retain"} <= insist.keys()
    assert ("schema" in insist) == (kind is not ready.Presence)


def test_page_of_a_plain_bus_insists_on_nothing(name: str) -> None:
    assert coordinates(ebus.bus(name))["insist"] == {}


def test_votes_count_once_for_a_user_however_many_clients_there_are() -> None:
    said = [("alice", QUESTION), *[("token-1", Vote("Thai")) for _ in range(9)], ("bob", Vote("Pizza"))]
    assert count(*said).votes == {"token-1": "Thai", "bob": "Pizza"}
