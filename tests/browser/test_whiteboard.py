"""A whiteboard: one draws, the others see it grow; nothing of the picture is lost."""

from __future__ import annotations

import io
import math

from PIL import Image
from playwright.sync_api import expect

from .lab import Lab, Person
from .stage import face, live, pictures, show

Line = list[tuple[float, float]]


def enter(lab: Lab, user: str, name: str) -> Person:
    return show(lab, user, f"board = ebus.widgets.Whiteboard('{name}', title='Sketch')\nboard", name)


def draw(person: Person, *line: tuple[float, float], colour: str | None = None) -> None:
    """Draw through these places; they are fractions of the board."""
    if colour is not None:
        face(person).get_by_role("button", name=colour, exact=True).click()
    canvas = face(person).locator("canvas")
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
    """How many pixels of each colour are on the board, thinned out."""
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
    """The colours that were drawn with; without the soft edges of lines."""
    return {colour for colour, count in pixels(person).items() if count > 50 and colour in PALETTE}


def until(person: Person, colours: set[str], timeout: float = 15_000) -> None:
    """Wait until the person sees just these colours."""
    for _ in range(int(timeout / 100)):
        if ink(person) == colours:
            return
        person.page.wait_for_timeout(100)
    assert ink(person) == colours


def agree(*people: Person, timeout: float = 15_000) -> dict[str, int]:
    """Wait until all see the same picture; its pixels."""
    for _ in range(int(timeout / 200)):
        seen = [pixels(person) for person in people]
        if all(picture == seen[0] for picture in seen):
            return seen[0]
        people[0].page.wait_for_timeout(200)
    raise AssertionError(f"they see different pictures: {[sorted(picture.items())[:8] for picture in seen]}")


def test_two_people_draw_and_a_late_one_and_a_reload_see_the_picture(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "sketch"), enter(lab, "bob", "sketch")
    draw(alice, (0.1, 0.1), (0.5, 0.3), (0.2, 0.6))
    until(bob, {BLACK})
    draw(bob, (0.6, 0.2), (0.9, 0.8), colour="Red")
    until(alice, {BLACK, RED})
    picture = agree(alice, bob)

    carol = enter(lab, "carol", "sketch")
    until(carol, {BLACK, RED})
    assert agree(alice, bob, carol) == picture
    alice.reload()
    live(alice)
    until(alice, {BLACK, RED})
    assert agree(alice, carol) == picture

    # Programs have it too, as an image.
    assert carol.eval("len(board.strokes())") == "2"
    image = Image.open(io.BytesIO(bytes.fromhex(carol.eval("board.png(500).hex()").strip("'"))))
    assert image.size == (500, 300)
    assert {(0x1F, 0x1F, 0x1F), (0xD3, 0x2F, 0x2F)} <= {colour for _, colour in image.getcolors(100_000) or []}
    assert carol.eval("board.svg().count('<polyline')") == carol.eval("len(board.pieces)")


def test_undo_takes_back_one_s_own_strokes_only_and_clear_all_takes_a_second_word(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "undo"), enter(lab, "bob", "undo")
    draw(alice, (0.1, 0.1), (0.5, 0.1))
    draw(bob, (0.1, 0.5), (0.5, 0.5), colour="Red")
    draw(alice, (0.1, 0.8), (0.5, 0.8), colour="Blue")
    for person in (alice, bob):
        until(person, {BLACK, RED, BLUE})
    undo = face(alice).get_by_role("button", name="Undo")
    undo.click()
    for person in (alice, bob):
        until(person, {BLACK, RED})
    alice.reload()
    live(alice)
    until(alice, {BLACK, RED})
    face(alice).get_by_role("button", name="Undo").click()
    until(bob, {RED})
    expect(face(alice).get_by_role("button", name="Undo")).to_be_disabled()
    face(alice).get_by_role("button", name="Clear all").click()
    until(bob, {RED})
    face(alice).get_by_role("button", name="Sure?").click()
    for person in (alice, bob):
        until(person, set())


def test_one_sees_where_the_other_points(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "point"), enter(lab, "bob", "point")
    canvas = face(alice).locator("canvas")
    canvas.hover()
    cursor = face(bob).locator(".ebus-cursor")
    expect(cursor).to_have_text("Alice")
    face(alice).locator(".ebus-title").hover()
    expect(cursor).to_have_count(0)


def test_it_can_be_drawn_on_with_the_keyboard(lab: Lab) -> None:
    alice = enter(lab, "alice", "keys")
    canvas = face(alice).locator("canvas")
    canvas.focus()
    for key in ["Space", *["ArrowRight"] * 5, "Shift+ArrowDown", "Space"]:
        canvas.press(key)
    until(alice, {BLACK})
    canvas.press("Control+z")
    until(alice, set())


def test_what_is_drawn_while_the_server_is_gone_is_there_when_it_is_back(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "gone"), enter(lab, "bob", "gone")
    draw(alice, (0.1, 0.1), (0.5, 0.3))
    until(bob, {BLACK})
    lab.server.kill9()
    for person in (alice, bob):
        live(person, "reconnecting")
    draw(alice, (0.1, 0.5), (0.5, 0.7), colour="Blue")
    until(alice, {BLACK, BLUE})
    assert ink(bob) == {BLACK}
    lab.server.start()
    live(bob, timeout=40_000)
    until(bob, {BLACK, BLUE}, timeout=30_000)
    agree(alice, bob)


def test_five_people_draw_at_once_and_all_see_the_same(lab: Lab) -> None:
    people = [enter(lab, user, "five") for user in ("alice", "bob", "carol", "dave", "eve")]
    colours = ["Black", "Red", "Green", "Blue", "Violet"]
    for n, (person, colour) in enumerate(zip(people, colours, strict=True)):
        middle, radius = (0.18 + 0.16 * n, 0.4 + 0.2 * (n % 2)), 0.2
        angles = [k / 8 * math.tau for k in range(9)]
        circle = [(middle[0] + 0.6 * radius * math.cos(a), middle[1] + radius * math.sin(a)) for a in angles]
        draw(person, *circle, colour=colour)
    agree(*people)
    assert ink(people[0]) == PALETTE
    for person in people:
        expect(face(person).get_by_text("5 strokes")).to_be_visible()
        assert person.eval("sorted(len(s) > 0 for s in board.strokes())") == str([True] * 5)
    for n, person in enumerate(people[1:]):
        box = face(person).locator("canvas").bounding_box()
        assert box is not None
        person.page.mouse.move(box["x"] + (0.3 + 0.15 * n) * box["width"], box["y"] + (0.25 + 0.14 * n) * box["height"])
    expect(face(people[0]).locator(".ebus-cursor")).to_have_count(4)
    pictures(people[0], "whiteboard")
