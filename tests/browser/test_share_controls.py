"""Controls of every kind, containers, and text that two people type, shared in a real JupyterLab."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from playwright.sync_api import expect

from .lab import Lab, Person, write_notebook

SETUP = "%load_ext ebus_jupyter\nimport ipywidgets as widgets"

PANEL = """
panel = widgets.Tab([
    widgets.VBox([widgets.Text(), widgets.Textarea(), widgets.Checkbox(description="agreed")]),
    widgets.VBox([
        widgets.Dropdown(options=["tea", "coffee", "cocoa"]), widgets.RadioButtons(options=["one", "two", "three"]),
        widgets.IntSlider(max=1000), widgets.IntRangeSlider(), widgets.ColorPicker(), widgets.DatePicker(),
    ]),
], titles=["words", "choices"])
ebus.share(panel, "NAME")
panel
"""

EVERYTHING = "[panel.selected_index, *(w.value for box in panel.children for w in box.children)]"


def with_cell(lab: Lab, user: str, name: str, cell: str) -> Person:
    notebook = write_notebook(lab.server, f"{name}-{user}.ipynb", SETUP, cell.strip().replace("NAME", name))
    person = lab.person(user).open(notebook)
    person.run_all()
    return person


def with_panel(lab: Lab, user: str, name: str) -> Person:
    person = with_cell(lab, user, name, PANEL)
    person.output(1).locator(".widget-tab").wait_for()
    person.wait_bound("panel")
    return person


def expect_kernels_agree(*people: Person) -> None:
    """Wait until all kernels have the same values, twice in a row."""
    found: list[str] = []

    def agree() -> bool:
        found[:] = [person.eval(EVERYTHING) for person in people]
        people[0].page.wait_for_timeout(50)
        return len(set(found)) == 1 and people[0].eval(EVERYTHING) == found[0]

    assert people[0].wait_until(agree), f"the kernels have {found}"


def values_on_page(person: Person) -> dict[str, Any]:
    """The values of all inputs on this person's page, by position."""
    text: str = person.page.evaluate(
        """async () => {
          const found = {};
          for (const node of document.querySelectorAll(".jp-CodeCell input, .jp-CodeCell textarea, .jp-CodeCell select")) {
            found[Object.keys(found).length] = node.type === "checkbox" || node.type === "radio" ? node.checked : node.value;
          }
          for (const node of document.querySelectorAll(".widget-readout")) found[Object.keys(found).length] = node.innerText;
          return JSON.stringify(found);
        }"""
    )
    found: dict[str, Any] = json.loads(text)
    return found


def test_tab_is_shared_with_the_controls_inside_it(lab: Lab) -> None:
    alice, bob = with_panel(lab, "alice", "panel"), with_panel(lab, "bob", "panel")
    words = [person.output(1).locator(".widget-text input") for person in (alice, bob)]
    words[0].fill("hello")
    expect(words[1]).to_have_value("hello")
    bob.output(1).locator(".widget-textarea textarea").fill("two\nlines")
    expect(alice.output(1).locator(".widget-textarea textarea")).to_have_value("two\nlines")
    alice.output(1).locator(".widget-checkbox input").check()
    expect(bob.output(1).locator(".widget-checkbox input")).to_be_checked()

    bob.page.get_by_role("tab", name="choices").click()
    choice = alice.output(1).locator(".widget-dropdown select")
    choice.wait_for()  # the tab follows Bob's choice
    choice.select_option("cocoa")
    expect(bob.output(1).locator(".widget-dropdown select")).to_have_value("cocoa")
    bob.output(1).get_by_label("two").check()
    expect(alice.output(1).get_by_label("two")).to_be_checked()
    shown = alice.slider().drag_to(0.7)
    bob.slider().expect_text(shown)
    bob.output(1).locator("input[type=date]").fill("2024-02-29")
    expect(alice.output(1).locator("input[type=date]")).to_have_value("2024-02-29")
    alice.output(1).locator(".widget-colorpicker input[type=text]").fill("#ff8800")
    alice.page.keyboard.press("Tab")
    expect(bob.output(1).locator(".widget-colorpicker input[type=text]")).to_have_value("#ff8800")

    wanted = (
        f"[1, 'hello', 'two\\nlines', True, 'cocoa', 'two', {shown}, (25, 75), '#ff8800', datetime.date(2024, 2, 29)]"
    )
    for person in (alice, bob):
        person.wait_eval(EVERYTHING, wanted)
    carol = with_panel(lab, "carol", "panel")
    expect(carol.output(1).locator(".widget-dropdown select")).to_have_value("cocoa")
    carol.wait_eval(EVERYTHING, wanted)


def test_fast_typing_loses_no_letter(lab: Lab) -> None:
    alice, bob = with_panel(lab, "alice", "typing"), with_panel(lab, "bob", "typing")
    fields = [person.output(1).locator(".widget-text input") for person in (alice, bob)]
    text = "The quick brown fox jumps over the lazy dog. " * 3
    fields[0].click()
    alice.page.keyboard.type(text)
    expect(fields[0]).to_have_value(text)
    expect(fields[1]).to_have_value(text)
    # The other person types in the middle of it, and their caret stays where it is.
    fields[1].click()
    bob.page.keyboard.press("Home")
    bob.page.keyboard.type("Look: ", delay=15)
    expect(fields[0]).to_have_value("Look: " + text)
    assert fields[1].evaluate("field => field.selectionStart") == len("Look: ")


def test_concurrent_typing_converges(lab: Lab) -> None:
    alice, bob = with_panel(lab, "alice", "both"), with_panel(lab, "bob", "both")
    fields = [person.output(1).locator(".widget-text input") for person in (alice, bob)]
    for field in fields:
        field.click()
    for letter in "abcdefghijklmnopqrstuvwxyz":
        alice.page.keyboard.type(letter)
        bob.page.keyboard.type(letter.upper())
    alice.wait_until(lambda: fields[0].input_value() == fields[1].input_value())
    expect_kernels_agree(alice, bob)
    assert alice.wait_until(lambda: fields[0].input_value() == fields[1].input_value() != "")


def test_restarted_kernel_takes_the_shared_values(lab: Lab) -> None:
    alice, bob = with_panel(lab, "alice", "restart"), with_panel(lab, "bob", "restart")
    alice.output(1).locator(".widget-text input").fill("before")
    expect(bob.output(1).locator(".widget-text input")).to_have_value("before")
    bob.restart_kernel()
    alice.output(1).locator(".widget-text input").fill("meanwhile")
    bob.run_all()
    field = bob.output(1).locator(".widget-text input")
    expect(field).to_have_value("meanwhile")
    bob.wait_eval("panel.children[0].children[0].value", "'meanwhile'")
    field.fill("after")
    expect(alice.output(1).locator(".widget-text input")).to_have_value("after")
    alice.wait_eval("panel.children[0].children[0].value", "'after'")


def test_read_only_slider_reverts(lab: Lab) -> None:
    alice = with_cell(lab, "alice", "follow", 'w = ebus.share(widgets.FloatSlider(max=100), "NAME")\nw')
    bob = with_cell(lab, "bob", "follow", 'w = ebus.share(widgets.FloatSlider(max=100), "NAME", read_only=True)\nw')
    for person in (alice, bob):
        person.slider().handle.wait_for()
        person.wait_bound("w")
    shown = alice.slider().drag_to(0.6)
    bob.slider().expect_text(shown)
    bob.slider().drag_to(0.1)
    bob.slider().expect_text(shown)
    assert alice.slider().text() == shown
    bob.wait_eval("round(w.value, 2)", str(float(shown)))


def test_smaller_range_clips_without_a_write(lab: Lab) -> None:
    alice = with_cell(lab, "alice", "range", 'w = ebus.share(widgets.IntSlider(max=1000), "NAME")\nw')
    bob = with_cell(lab, "bob", "range", 'w = ebus.share(widgets.IntSlider(max=50), "NAME")\nw')
    for person in (alice, bob):
        person.slider().handle.wait_for()
        person.wait_bound("w")
    shown = alice.slider().drag_to(0.9)
    bob.slider().expect_text("50")
    alice.page.wait_for_timeout(1500)  # the two widgets start no loop of writes
    assert (alice.slider().text(), bob.slider().text()) == (shown, "50")
    back = bob.slider().drag_to(0.5)
    alice.slider().expect_text(back)


def test_play_drives_the_other_notebook(lab: Lab) -> None:
    cell = 'w = ebus.share(widgets.Play(max=20, interval=50), "NAME")\nwidgets.VBox([w, widgets.Label()])'
    alice, bob = with_cell(lab, "alice", "play", cell), with_cell(lab, "bob", "play", cell)
    for person in (alice, bob):
        person.wait_bound("w")
    alice.output(1).locator(".widget-play button").first.click()
    bob.wait_eval("w.value", "20")
    alice.wait_eval("w.value", "20")


@pytest.mark.parametrize("users", [("alice", "bob"), ("alice", "bob", "carol", "dave", "eve")], ids=["two", "five"])
def test_pages_and_kernels_converge_after_random_edits(lab: Lab, users: tuple[str, ...]) -> None:
    dice = random.Random(len(users))
    name = f"random{len(users)}"
    people = [with_panel(lab, user, name) for user in users]
    for person in people:
        person.page.get_by_role("tab", name=dice.choice(["words", "choices"])).click()
    for _ in range(12 * len(people)):
        person = dice.choice(people)
        out = person.output(1)
        tab = dice.choice(["words", "choices"])
        if dice.random() < 0.3:
            person.page.get_by_role("tab", name=tab).click()
        if out.locator(".widget-text input").is_visible():
            what = dice.choice(["text", "textarea", "check"])
        else:
            what = dice.choice(["dropdown", "radio", "slider"])
        try:
            match what:
                case "text":
                    out.locator(".widget-text input").press_sequentially(dice.choice("abcxyz"), timeout=500)
                case "textarea":
                    out.locator(".widget-textarea textarea").fill(str(dice.random()), timeout=500)
                case "check":
                    out.locator(".widget-checkbox input").set_checked(dice.random() < 0.5, timeout=500)
                case "dropdown":
                    out.locator(".widget-dropdown select").select_option(
                        dice.choice(["tea", "coffee", "cocoa"]), timeout=500
                    )
                case "radio":
                    out.get_by_label(dice.choice(["one", "two", "three"])).click(timeout=500)
                case "slider":
                    person.slider().drag_to(dice.random(), steps=4)
        except Exception as error:  # another person has just chosen the other tab
            if "Timeout" not in str(error) and not isinstance(error, AssertionError):
                raise
        if dice.random() < 0.2:
            dice.choice(people).eval("None", before=f"panel.children[1].children[2].value = {dice.randrange(1000)}")
    expect_kernels_agree(*people)
    shown: list[dict[str, Any]] = []

    def same() -> bool:
        shown[:] = [values_on_page(person) for person in people]
        return all(other == shown[0] for other in shown)

    assert people[0].wait_until(same), shown
