"""A room with everything in it, in all weathers: whatever happens to a page, a kernel, the network or the server, all who
are there end up with the same, and so does who comes late."""

from __future__ import annotations

import random
from typing import Any

from playwright.sync_api import Locator, expect

from .lab import Lab, Person, write_notebook
from .stage import say

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
    person = lab.person(user).open(write_notebook(lab.server, f"{room}-{user}.ipynb", ROOM.replace("ROOM", room)))
    person.run_all()
    all_live(person)
    return person


def all_live(person: Person, status: str = "live", timeout: float = 40_000) -> None:
    """Every widget says how things stand."""
    for name in WIDGETS:
        light = widget(person, name).locator(f".ebus-status[data-status={status}]").first
        light.wait_for(timeout=timeout)


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
    """Says a word, votes, draws, and drags the slider."""
    person.dismiss_dialogs()
    say(person, f"{person.user} {dice.randrange(1000)}")
    vote(person, dice.choice(["Yes", "No"]))
    draw(person, dice)
    if drags:
        slider = person.slider()
        slider.root.scroll_into_view_if_needed()
        slider.drag_to(dice.random(), steps=4)


def same_for_all(*people: Person, lines: int, votes: int, timeout: float = 30_000) -> dict[str, Any]:
    """Wait until all see the same, and it is all that was done; then the kernels have it too. Returns what they see."""
    seen: list[dict[str, Any]] = []
    for _ in range(int(timeout / 200)):
        seen = [person.page.evaluate(SEES) for person in people]
        voted = sum(int(text.split()[0]) for text in seen[0]["votes"] if text)
        if all(other == seen[0] for other in seen) and len(seen[0]["said"]) == lines and voted == votes:
            break
        people[0].page.wait_for_timeout(200)
    else:
        raise AssertionError(f"they see different things, or not {lines} lines and {votes} votes: {seen}")
    return seen[0]


def kernels_have(seen: dict[str, Any], *people: Person, strokes: int) -> None:
    for person in people:
        for _ in range(50):
            has = eval(person.eval(KERNEL_HAS))
            tally = sorted(str(list(has["votes"].values()).count(choice)) for choice in ("Yes", "No"))
            same = has["said"] == seen["said"] and has["speed"] == seen["speed"] and has["strokes"] == strokes
            if same and tally == sorted(text.split()[0] for text in seen["votes"]):
                break
            person.page.wait_for_timeout(100)
        else:
            raise AssertionError(f"{person.user}'s kernel has {has}; the pages: {seen}")


def test_late_ones_and_those_who_reload_have_what_all_have(lab: Lab) -> None:
    dice = random.Random("late")
    alice, bob = enter(lab, "alice", "late"), enter(lab, "bob", "late")
    does_something(alice, dice)
    does_something(bob, dice)
    carol = enter(lab, "carol", "late")
    seen = same_for_all(alice, bob, carol, lines=2, votes=2)
    kernels_have(seen, alice, bob, carol, strokes=2)
    alice.reload()
    all_live(alice)
    assert same_for_all(alice, bob, carol, lines=2, votes=2) == seen
    expect(widget(alice, "presence").locator(".ebus-person")).to_have_count(3)
    expect(widget(alice, "inspector").get_by_role("button", name="chat:late")).to_be_visible()


def test_a_restarted_kernel_has_what_all_have(lab: Lab) -> None:
    dice = random.Random("kernel")
    alice, bob = enter(lab, "alice", "kernel"), enter(lab, "bob", "kernel")
    does_something(alice, dice)
    alice.restart_kernel()
    does_something(bob, dice)
    alice.run_all()
    all_live(alice)
    seen = same_for_all(alice, bob, lines=2, votes=2)
    kernels_have(seen, alice, bob, strokes=2)
    does_something(alice, dice)
    seen = same_for_all(alice, bob, lines=3, votes=2)
    kernels_have(seen, alice, bob, strokes=3)


def test_what_is_done_without_a_network_is_there_when_it_is_back(lab: Lab) -> None:
    dice = random.Random("network")
    alice, bob = enter(lab, "alice", "network"), enter(lab, "bob", "network")
    with bob.offline():
        all_live(bob, "reconnecting")
        does_something(bob, dice, drags=False)
        does_something(alice, dice)
    all_live(bob)
    same_for_all(alice, bob, lines=2, votes=2)


def test_the_server_is_killed_and_comes_back(lab: Lab) -> None:
    dice = random.Random("server")
    alice, bob = enter(lab, "alice", "server"), enter(lab, "bob", "server")
    does_something(alice, dice)
    same_for_all(alice, bob, lines=1, votes=1)
    lab.server.kill9()
    for person in (alice, bob):
        all_live(person, "reconnecting")
    does_something(bob, dice)
    lab.server.start()
    for person in (alice, bob):
        all_live(person)
    does_something(alice, dice)
    seen = same_for_all(alice, bob, lines=3, votes=2)
    carol = enter(lab, "carol", "server")
    assert same_for_all(alice, bob, carol, lines=3, votes=2) == seen
    kernels_have(seen, carol, strokes=3)


def test_five_people_at_once(lab: Lab) -> None:
    dice = random.Random("five")
    people = [enter(lab, user, "five") for user in ("alice", "bob", "carol", "dave", "eve")]
    for n in range(10):
        does_something(people[n] if n < 5 else dice.choice(people), dice)
    seen = same_for_all(*people, lines=10, votes=5)
    kernels_have(seen, *people, strokes=10)
    for person in people:
        expect(widget(person, "presence").locator(".ebus-person")).to_have_count(5)
