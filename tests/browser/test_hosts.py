"""The shared slider in other hosts: Notebook 7, Voila, and a notebook that is itself shared by jupyter-collaboration."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.server.harness import Server

from .lab import READY_MS, Lab, Person, write_notebook
from .stage import send_chat

SHARED = (
    "import ipywidgets as widgets\nimport ebus_jupyter as ebus\n"
    'speed = ebus.share(widgets.FloatSlider(description="Speed", max=100), "{name}")\nspeed'
)


def expect_drags_followed(one: Person, other: Person) -> None:
    """Each drags the slider, and the other's follows."""
    for person in (one, other):
        person.slider().handle.wait_for(timeout=READY_MS)
    other.slider().expect_text(one.slider().drag_to(0.7))
    one.slider().expect_text(other.slider().drag_to(0.2))


@pytest.fixture
def people(make_server: Callable[..., Server], browser: Browser) -> Iterator[Callable[..., tuple[Person, Person]]]:
    """Alice and Bob on a server of their own."""
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
        person.goto(f"notebooks/{name}").wait_ready(name)
        person.run_all()
        person.slider().handle.wait_for()
        person.wait_bound("speed")
    expect_drags_followed(alice, bob)
    assert alice.bus_sockets == 1
    alice.reload()
    alice.slider().expect_text(bob.slider().text())


def test_voila_in_a_jupyter_server(people: Callable[..., tuple[Person, Person]]) -> None:
    alice, bob = people(app="jupyter_server", extensions=["voila.server_extension"])
    name = write_notebook(alice.server, "dashboard.ipynb", SHARED.format(name="dashboard"))
    for person in (alice, bob):
        person.goto(f"voila/render/{name}")
    expect_drags_followed(alice, bob)
    value = alice.slider().text()
    bob.page.reload()  # a new kernel, which joins late
    bob.slider().handle.wait_for(timeout=READY_MS)
    bob.slider().expect_text(value)


COLLABORATION = Path(sys.prefix) / "collaboration" / "bin" / "python"
"""An environment of its own, because jupyter-collaboration changes JupyterLab for everyone who uses it."""


def test_collaborative_notebook_with_one_kernel(people: Callable[..., tuple[Person, Person]]) -> None:
    assert COLLABORATION.exists(), "jupyter-collaboration is missing; `make test-browser` installs it"
    alice, bob = people(python=COLLABORATION)
    widgets = SHARED.format(name="together") + '\nchat = ebus.widgets.Chat("together")\nwidgets.VBox([speed, chat])'
    name = write_notebook(alice.server, "together.ipynb", widgets)
    alice.open(name).run_all()
    alice.slider().handle.wait_for()
    alice.wait_bound("speed")
    bob.open(name)
    assert alice.kernel_id() == bob.kernel_id()
    expect_drags_followed(alice, bob)
    assert alice.slider().text() == bob.slider().text()
    alice.wait_eval("f'{speed.value:.2f}'", repr(alice.slider().text()))
    assert alice.bus_sockets == bob.bus_sockets == 1

    # They are two users, though they have one kernel.
    for person in (alice, bob):
        send_chat(person, f"I am {person.user}")
    for person in (alice, bob):
        said = person.page.locator(".ebus-chat [role=log]")
        expect(said).to_contain_text("I am alice")
        expect(said).to_contain_text("I am bob")

    bob.reload()
    bob.slider().expect_text(alice.slider().text())
    expect_drags_followed(bob, alice)
