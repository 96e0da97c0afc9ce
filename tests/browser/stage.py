"""A ready-made widget on the page of each of several people, and pictures of it for the README."""

from __future__ import annotations

import os
from pathlib import Path

from playwright.sync_api import Locator

from .lab import Lab, Person, write_notebook

PICTURES = Path(__file__).parents[2] / "docs" / "screenshots"

NARROW = 320


def show(lab: Lab, user: str, code: str, name: str) -> Person:
    """``user`` opens a notebook of their own whose one cell shows a widget; it stands, and its connection is live."""
    notebook = write_notebook(lab.server, f"{name}-{user}.ipynb", f"import ebus_jupyter as ebus\n{code}")
    person = lab.person(user).open(notebook)
    person.run_all()
    live(person)
    return person


def face(person: Person) -> Locator:
    """The widget."""
    return person.page.locator(".ebus").first


def live(person: Person, status: str = "live", timeout: float = 20_000) -> None:
    """Wait until the widget says how things stand."""
    face(person).locator(f".ebus-status[data-status={status}]").first.wait_for(timeout=timeout)


def say(person: Person, text: str) -> None:
    """In the chat that is on the page."""
    line = person.page.locator(".ebus-chat").get_by_label("Your message")
    line.fill(text)
    line.press("Enter")


def picture(person: Person, name: str, *, theme: str = "Light", width: int | None = None) -> None:
    """A picture of the widget, for the README: only where EBUS_SCREENSHOTS=1 asks for it."""
    if os.environ.get("EBUS_SCREENSHOTS") != "1":
        return
    PICTURES.mkdir(parents=True, exist_ok=True)
    person.theme(f"JupyterLab {theme}")
    root = face(person)
    person.dismiss_dialogs()
    root.evaluate("(el, width) => { el.style.width = width ? width + 'px' : '' }", width)
    person.page.wait_for_timeout(400)  # fonts, and the theme's colours, are there when they are there
    root.screenshot(path=PICTURES / f"{name}.png")
    root.evaluate("(el) => { el.style.width = '' }")


def pictures(person: Person, name: str) -> None:
    """Light, dark, and narrow."""
    picture(person, f"{name}-dark", theme="Dark")
    picture(person, f"{name}-narrow", width=NARROW)
    picture(person, name)
