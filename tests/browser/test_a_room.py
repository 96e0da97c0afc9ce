"""A room with every widget. Whatever happens to a page, a kernel, the network or the server, all people end up with the same
room, and so do late joiners."""

from __future__ import annotations

import ast
import random
from functools import partial
from typing import Any

from playwright.sync_api import Locator, expect

from .lab import WAIT_SECONDS, Lab, Person, write_notebook
from .stage import send_chat

ROOM = """
import ipywidgets as widgets, ebus_jupyter as ebus
speed = ebus.share(widgets.FloatSlider(max=100), "ROOM-speed")
poll = ebus.widgets.Poll("ROOM", question="Shall we?", options=["Yes", "No"])
chat = ebus.widgets.Chat("ROOM")
here = ebus.widgets.Presence("ROOM")
status = ebus.widgets.Status()
board = ebus.widgets.Whiteboard("ROOM")
inspector = ebus.widgets.Inspector()
widgets.VBox([speed, poll, chat, here, status, board, inspector])
"""

WIDGETS = ("poll", "chat", "presence", "status", "whiteboard", "inspector")

SEES = """() => {
  const all = (widget, what) =>
    [...document.querySelectorAll(`section.ebus-${widget} ${what}`)].map((el) => el.innerText.trim());
  const canvas = document.querySelector("section.ebus-whiteboard canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let ink = 0;
  for (let i = 0; i < data.length; i += 4) ink = (ink * 31 + data[i] + 7 * data[i + 1] + 13 * data[i + 2]) % 1000000007;
  return {
    speed: document.querySelector(".widget-hslider .widget-readout").innerText,
    said: all("chat", ".ebus-said"),
    votes: all("poll", ".ebus-votes"),
    ink,
  };
}"""

KERNEL_HAS = (
    "{'said': [m.value.text for m in chat.history(100)], 'votes': poll.votes, 'speed': f'{speed.value:.2f}', "
    "'strokes': len(board.strokes())}"
)


def widget(person: Person, name: str) -> Locator:
    return person.page.locator(f"section.ebus-{name}")


def enter(lab: Lab, user: str, room: str) -> Person:
    notebook = write_notebook(lab.server, f"{room}-room-{user}.ipynb", ROOM.replace("ROOM", f"{room}-room"))
    person = lab.person(user).open(notebook)
    run(person)
    return person


def run(person: Person) -> None:
    """Run all cells, and wait until all widgets are live, and the question has arrived."""
    person.run_all()
    wait_all(person)
    widget(person, "poll").locator(".ebus-option").first.wait_for()
    person.wait_bound("speed")


def wait_all(person: Person, status: str = "live") -> None:
    """Wait until all widgets show this status of their connection."""
    for name in WIDGETS:
        light = widget(person, name).locator(f".ebus-status[data-status={status}]").first
        light.wait_for(timeout=WAIT_SECONDS * 1000)


def vote(person: Person, choice: str) -> None:
    option = widget(person, "poll").locator(".ebus-option", has_text=choice)
    if option.get_attribute("aria-pressed") != "true":
        option.click()


def draw(person: Person, dice: random.Random) -> None:
    canvas = widget(person, "whiteboard").locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    mouse = person.page.mouse
    for n in range(3):
        mouse.move(box["x"] + dice.random() * box["width"], box["y"] + dice.random() * box["height"], steps=3)
        if n == 0:
            mouse.down()
    mouse.up()


def does_something(person: Person, dice: random.Random, *, drags: bool = True) -> None:
    """``person`` writes a message, votes, draws, and drags the slider."""
    send_chat(person, f"{person.user} {dice.randrange(1000)}")
    vote(person, dice.choice(["Yes", "No"]))
    draw(person, dice)
    if drags:
        person.slider().drag_to(dice.random(), steps=4)


def expect_same_room(*people: Person, lines: int, votes: int) -> dict[str, Any]:
    """Wait until all people see the same room, with this many messages and votes. Returns what they see."""
    seen: list[dict[str, Any]] = []

    def same() -> bool:
        seen[:] = [person.page.evaluate(SEES) for person in people]
        voted = sum(int(text.split()[0]) for text in seen[0]["votes"] if text)
        return all(other == seen[0] for other in seen) and len(seen[0]["said"]) == lines and voted == votes

    assert people[0].wait_until(same), f"they see different rooms, or not {lines} lines and {votes} votes: {seen}"
    return seen[0]


def expect_kernels_have(seen: dict[str, Any], *people: Person, strokes: int) -> None:
    """Wait until all kernels have the room that the pages show."""
    kernel: dict[str, Any] = {}

    def same(person: Person) -> bool:
        kernel.update(ast.literal_eval(person.eval(KERNEL_HAS)))
        tally = sorted(str(list(kernel["votes"].values()).count(choice)) for choice in ("Yes", "No"))
        return (
            kernel["said"] == seen["said"]
            and kernel["speed"] == seen["speed"]
            and kernel["strokes"] == strokes
            and tally == sorted(text.split()[0] for text in seen["votes"])
        )

    for person in people:
        assert person.wait_until(partial(same, person)), f"{person.user}'s kernel has {kernel}; the pages: {seen}"


def test_late_and_reloaded_pages_show_the_same_room(lab: Lab) -> None:
    dice = random.Random("late")
    alice, bob = enter(lab, "alice", "late"), enter(lab, "bob", "late")
    does_something(alice, dice)
    does_something(bob, dice)
    carol = enter(lab, "carol", "late")
    seen = expect_same_room(alice, bob, carol, lines=2, votes=2)
    expect_kernels_have(seen, alice, bob, carol, strokes=2)
    alice.reload()
    wait_all(alice)
    assert expect_same_room(alice, bob, carol, lines=2, votes=2) == seen
    expect(widget(alice, "presence").locator(".ebus-person")).to_have_count(3)
    expect(widget(alice, "inspector").get_by_role("button", name="chat:late-room")).to_be_visible()


def test_restarted_kernel_has_the_same_room(lab: Lab) -> None:
    dice = random.Random("kernel")
    alice, bob = enter(lab, "alice", "kernel"), enter(lab, "bob", "kernel")
    does_something(alice, dice)
    alice.restart_kernel()
    does_something(bob, dice)
    run(alice)
    seen = expect_same_room(alice, bob, lines=2, votes=2)
    expect_kernels_have(seen, alice, bob, strokes=2)
    does_something(alice, dice)
    seen = expect_same_room(alice, bob, lines=3, votes=2)
    expect_kernels_have(seen, alice, bob, strokes=3)


def test_offline_changes_arrive_when_the_network_is_back(lab: Lab) -> None:
    dice = random.Random("network")
    alice, bob = enter(lab, "alice", "network"), enter(lab, "bob", "network")
    with bob.offline():
        wait_all(bob, "reconnecting")
        does_something(bob, dice, drags=False)
        does_something(alice, dice)
    wait_all(bob)
    expect_same_room(alice, bob, lines=2, votes=2)


def test_room_survives_a_killed_server(lab: Lab) -> None:
    dice = random.Random("server")
    alice, bob = enter(lab, "alice", "server"), enter(lab, "bob", "server")
    does_something(alice, dice)
    expect_same_room(alice, bob, lines=1, votes=1)
    lab.server.kill9()
    for person in (alice, bob):
        wait_all(person, "reconnecting")
    does_something(bob, dice)
    lab.server.start()
    for person in (alice, bob):
        wait_all(person)
    does_something(alice, dice)
    seen = expect_same_room(alice, bob, lines=3, votes=2)
    carol = enter(lab, "carol", "server")
    assert expect_same_room(alice, bob, carol, lines=3, votes=2) == seen
    expect_kernels_have(seen, carol, strokes=3)


def test_five_people_see_the_same_room(lab: Lab) -> None:
    dice = random.Random("five")
    people = [enter(lab, user, "five") for user in ("alice", "bob", "carol", "dave", "eve")]
    for n in range(10):
        does_something(people[n] if n < 5 else dice.choice(people), dice)
    seen = expect_same_room(*people, lines=10, votes=5)
    expect_kernels_have(seen, *people, strokes=10)
    for person in people:
        expect(widget(person, "presence").locator(".ebus-person")).to_have_count(5)
