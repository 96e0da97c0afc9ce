"""A whiteboard: strokes appear on every page, and none is lost."""

from __future__ import annotations

import io
import math
import re

from PIL import Image
from playwright.sync_api import expect

from .lab import Lab, Person
from .stage import screenshots, show_widget, view, wait_status

Line = list[tuple[float, float]]


def enter(lab: Lab, user: str, name: str) -> Person:
    return show_widget(lab, user, f"board = ebus.widgets.Whiteboard('{name}', title='Sketch')\nboard", name)


def draw(person: Person, *line: tuple[float, float], colour: str | None = None) -> None:
    """Draw a stroke through these points, given as fractions of the board."""
    if colour is not None:
        view(person).get_by_role("button", name=colour, exact=True).click()
    canvas = view(person).locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    mouse = person.page.mouse
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in line]
    mouse.move(*places[0])
    mouse.down()
    for place in places[1:]:
        mouse.move(*place, steps=4)
    mouse.up()


BLACK, RED, BLUE = "#1f1f1f", "#d32f2f", "#1976d2"
PALETTE = {BLACK, RED, BLUE, "#388e3c", "#7b1fa2"}


def pixels(person: Person) -> dict[str, int]:
    """The number of sampled pixels of each colour on the board."""
    counted: dict[str, int] = person.page.evaluate(
        """() => {
          const canvas = document.querySelector(".ebus canvas");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const found = {};
          for (let i = 0; i < data.length; i += 16) {
            const hex = "#" + [0, 1, 2].map((j) => data[i + j].toString(16).padStart(2, "0")).join("");
            found[hex] = (found[hex] ?? 0) + 1;
          }
          return found;
        }"""
    )
    return counted


def ink(person: Person) -> set[str]:
    """The pens' colours on the board, without the blended pixels at the edges of lines."""
    return {colour for colour, count in pixels(person).items() if count > 50 and colour in PALETTE}


def expect_ink(person: Person, colours: set[str]) -> None:
    """Wait until the person sees these colours and no others."""
    person.wait_until(lambda: ink(person) == colours)
    assert ink(person) == colours


def expect_same_picture(*people: Person) -> dict[str, int]:
    """Wait until all see the same picture. Returns its pixels."""
    seen: list[dict[str, int]] = []

    def same() -> bool:
        seen[:] = [pixels(person) for person in people]
        return all(picture == seen[0] for picture in seen)

    assert people[0].wait_until(same), (
        f"they see different pictures: {[sorted(picture.items())[:8] for picture in seen]}"
    )
    return seen[0]


def test_late_and_reloaded_pages_show_the_picture(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "sketch"), enter(lab, "bob", "sketch")
    draw(alice, (0.1, 0.1), (0.5, 0.3), (0.2, 0.6))
    expect_ink(bob, {BLACK})
    draw(bob, (0.6, 0.2), (0.9, 0.8), colour="Red")
    expect_ink(alice, {BLACK, RED})
    picture = expect_same_picture(alice, bob)

    carol = enter(lab, "carol", "sketch")
    expect_ink(carol, {BLACK, RED})
    assert expect_same_picture(alice, bob, carol) == picture
    alice.reload()
    wait_status(alice)
    expect_ink(alice, {BLACK, RED})
    assert expect_same_picture(alice, carol) == picture

    # A program reads the picture as an image.
    carol.wait_eval("len(board.strokes())", "2")
    image = Image.open(io.BytesIO(bytes.fromhex(carol.eval("board.png(500).hex()").strip("'"))))
    assert image.size == (500, 300)
    assert {(0x1F, 0x1F, 0x1F), (0xD3, 0x2F, 0x2F)} <= {colour for _, colour in image.getcolors(100_000) or []}
    assert carol.eval("board.svg().count('<polyline')") == carol.eval("len(board.pieces)")


def test_undo_removes_own_strokes_and_clear_asks_twice(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "undo"), enter(lab, "bob", "undo")
    draw(alice, (0.1, 0.1), (0.5, 0.1))
    draw(bob, (0.1, 0.5), (0.5, 0.5), colour="Red")
    draw(alice, (0.1, 0.8), (0.5, 0.8), colour="Blue")
    for person in (alice, bob):
        expect_ink(person, {BLACK, RED, BLUE})
    undo = view(alice).get_by_role("button", name="Undo")
    undo.click()
    for person in (alice, bob):
        expect_ink(person, {BLACK, RED})
    alice.reload()
    wait_status(alice)
    expect_ink(alice, {BLACK, RED})
    view(alice).get_by_role("button", name="Undo").click()
    expect_ink(bob, {RED})
    expect(view(alice).get_by_role("button", name="Undo")).to_be_disabled()
    clear = view(alice).get_by_role("button", name=re.compile(r"^(Clear all|Sure\?)$"))
    assert clear.evaluate("(button) => { button.click(); return button.textContent; }") == "Sure?"
    expect_ink(bob, {RED})
    expect(clear).to_have_text("Clear all")  # the button takes its question back after three seconds
    clear.dblclick()
    for person in (alice, bob):
        expect_ink(person, set())


def test_cursor_of_another_person_is_shown(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "point"), enter(lab, "bob", "point")
    canvas = view(alice).locator("canvas")
    canvas.hover()
    cursor = view(bob).locator(".ebus-cursor")
    expect(cursor).to_have_text("Alice")
    view(alice).locator(".ebus-title").hover()
    expect(cursor).to_have_count(0)


def test_drawing_with_the_keyboard(lab: Lab) -> None:
    alice = enter(lab, "alice", "keys")
    canvas = view(alice).locator("canvas")
    canvas.focus()
    for key in ["Space", *["ArrowRight"] * 5, "Shift+ArrowDown", "Space"]:
        canvas.press(key)
    expect_ink(alice, {BLACK})
    canvas.press("Control+z")
    expect_ink(alice, set())


def test_strokes_drawn_without_a_server_arrive_later(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "gone"), enter(lab, "bob", "gone")
    draw(alice, (0.1, 0.1), (0.5, 0.3))
    expect_ink(bob, {BLACK})
    lab.server.kill9()
    for person in (alice, bob):
        wait_status(person, "reconnecting")
    draw(alice, (0.1, 0.5), (0.5, 0.7), colour="Blue")
    expect_ink(alice, {BLACK, BLUE})
    assert ink(bob) == {BLACK}
    lab.server.start()
    wait_status(bob)
    expect_ink(bob, {BLACK, BLUE})
    expect_same_picture(alice, bob)


def test_five_people_draw_the_same_picture(lab: Lab) -> None:
    people = [enter(lab, user, "five") for user in ("alice", "bob", "carol", "dave", "eve")]
    colours = ["Black", "Red", "Green", "Blue", "Violet"]
    for n, (person, colour) in enumerate(zip(people, colours, strict=True)):
        middle, radius = (0.18 + 0.16 * n, 0.4 + 0.2 * (n % 2)), 0.2
        angles = [k / 8 * math.tau for k in range(9)]
        circle = [(middle[0] + 0.6 * radius * math.cos(a), middle[1] + radius * math.sin(a)) for a in angles]
        draw(person, *circle, colour=colour)
    expect_same_picture(*people)
    assert ink(people[0]) == PALETTE
    for person in people:
        expect(view(person).get_by_text("5 strokes")).to_be_visible()
        person.wait_eval("sorted(len(s) > 0 for s in board.strokes())", str([True] * 5))
    for n, person in enumerate(people[1:]):
        box = view(person).locator("canvas").bounding_box()
        assert box is not None
        person.page.mouse.move(box["x"] + (0.3 + 0.15 * n) * box["width"], box["y"] + (0.25 + 0.14 * n) * box["height"])
    expect(view(people[0]).locator(".ebus-cursor")).to_have_count(4)
    screenshots(people[0], "whiteboard")
