"""The same slider in the other places where people open notebooks: Notebook 7, Voila, and a notebook that is itself shared."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.server.harness import Server

from .lab import Lab, Person, write_notebook
from .stage import say

SHARED = (
    "import ipywidgets as widgets\nimport ebus_jupyter as ebus\n"
    'speed = ebus.share(widgets.FloatSlider(description="Speed", max=100), "{name}")\nspeed'
)


def drags_and_the_other_sees(one: Person, other: Person) -> None:
    for person in (one, other):
        person.slider().handle.wait_for(timeout=60_000)
    other.slider().shows_soon(one.slider().drag_to(0.7))
    one.slider().shows_soon(other.slider().drag_to(0.2))


@pytest.fixture
def people(make_server: Callable[..., Server], browser: Browser) -> Iterator[Callable[..., tuple[Person, Person]]]:
    """Alice and Bob, in a host of their own."""
    labs: list[Lab] = []

    def enter(**server: object) -> tuple[Person, Person]:
        labs.append(Lab(make_server("alice", "bob", **server), browser))
        return labs[-1].person("alice"), labs[-1].person("bob")

    yield enter
    for lab in labs:
        lab.close()


def test_notebook_7(people: Callable[..., tuple[Person, Person]]) -> None:
    alice, bob = people(app="notebook", args=["--JupyterNotebookApp.expose_app_in_browser=True"])
    for person in (alice, bob):
        name = write_notebook(person.server, f"speed-{person.user}.ipynb", SHARED.format(name="speed"))
        person.visit(f"notebooks/{name}").wait_ready()
        person.run_all()
    drags_and_the_other_sees(alice, bob)
    assert alice.bus_sockets == 1
    alice.reload()
    alice.slider().shows_soon(bob.slider().shows())


def test_voila_in_the_jupyter_server(people: Callable[..., tuple[Person, Person]]) -> None:
    alice, bob = people(app="jupyter_server", extensions=["voila.server_extension"])
    name = write_notebook(alice.server, "dashboard.ipynb", SHARED.format(name="dashboard"))
    for person in (alice, bob):
        person.visit(f"voila/render/{name}")
    drags_and_the_other_sees(alice, bob)
    value = alice.slider().shows()
    bob.page.reload()  # a dashboard begins with a new kernel: it comes late, as anyone
    bob.slider().handle.wait_for(timeout=60_000)
    bob.slider().shows_soon(value)


COLLABORATION = Path(sys.prefix) / "collaboration" / "bin" / "python"
"""An environment of its own: with jupyter-collaboration installed, JupyterLab is another one for all who use it."""


def test_two_people_in_one_notebook_and_one_kernel(people: Callable[..., tuple[Person, Person]]) -> None:
    assert COLLABORATION.exists(), "`make test-browser` installs jupyter-collaboration there; it is missing"
    alice, bob = people(python=COLLABORATION)
    widgets = SHARED.format(name="together") + '\nchat = ebus.widgets.Chat("together")\nwidgets.VBox([speed, chat])'
    name = write_notebook(alice.server, "together.ipynb", widgets)
    alice.open(name).run_all()
    alice.slider().handle.wait_for()
    bob.open(name)
    assert alice.kernel_id() == bob.kernel_id()
    drags_and_the_other_sees(alice, bob)
    kernel = float(alice.eval("speed.value"))
    assert f"{kernel:.2f}" == alice.slider().shows() == bob.slider().shows()
    assert alice.bus_sockets == bob.bus_sockets == 1

    # Each of them is somebody, though they have one kernel.
    for person in (alice, bob):
        say(person, f"I am {person.user}")
    for person in (alice, bob):
        said = person.page.locator(".ebus-chat [role=log]")
        expect(said).to_contain_text("I am alice")
        expect(said).to_contain_text("I am bob")

    # A late one, and one who comes back.
    bob.reload()
    bob.slider().shows_soon(alice.slider().shows(), timeout=20_000)
    drags_and_the_other_sees(bob, alice)
