"""A ready-made widget on the pages of several people, and screenshots of it for the README."""

from __future__ import annotations

import os
from pathlib import Path

from playwright.sync_api import Locator

from .lab import WAIT_SECONDS, Lab, Person, write_notebook

SCREENSHOTS = Path(__file__).parents[2] / "docs" / "screenshots"

NARROW = 320
"""The width of a narrow widget, in pixels."""


def show_widget(lab: Lab, user: str, code: str, name: str) -> Person:
    """``user`` opens a notebook whose one cell shows a widget, and waits until its connection is live."""
    notebook = write_notebook(lab.server, f"{name}-{user}.ipynb", f"import ebus_jupyter as ebus\n{code}")
    person = lab.person(user).open(notebook)
    person.run_all()
    wait_status(person)
    return person


def view(person: Person) -> Locator:
    """The widget."""
    return person.page.locator(".ebus").first


def wait_status(person: Person, status: str = "live") -> None:
    """Wait until the widget shows this status of its connection."""
    view(person).locator(f".ebus-status[data-status={status}]").first.wait_for(timeout=WAIT_SECONDS * 1000)


def send_chat(person: Person, text: str) -> None:
    """Send a message in the chat that is on the page."""
    line = person.page.locator(".ebus-chat").get_by_label("Your message")
    line.fill(text)
    line.press("Enter")


def screenshot(person: Person, name: str, *, theme: str = "Light", width: int | None = None) -> None:
    """Take a screenshot of the widget for the README, if EBUS_SCREENSHOTS=1 asks for it."""
    if not taking_screenshots():
        return
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    person.theme(f"JupyterLab {theme}")
    root = view(person)
    root.evaluate("(el, width) => { el.style.width = width ? width + 'px' : '' }", width)
    person.page.wait_for_timeout(400)  # fonts, and the colours of the theme, load without an event to wait for
    root.screenshot(path=SCREENSHOTS / f"{name}.png")
    root.evaluate("(el) => { el.style.width = '' }")


def screenshots(person: Person, name: str) -> None:
    """Take a light, a dark and a narrow screenshot."""
    screenshot(person, f"{name}-dark", theme="Dark")
    screenshot(person, f"{name}-narrow", width=NARROW)
    screenshot(person, name)


def taking_screenshots() -> bool:
    return os.environ.get("EBUS_SCREENSHOTS") == "1"
