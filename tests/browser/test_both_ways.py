"""Pages reach a bus over the server's socket or, where no server hosts it, by way of their kernel: the same widgets, and
the same promises. What is said here holds on both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.server.harness import Server

from .conftest import keep_evidence
from .lab import Lab, Person, write_notebook
from .stage import live, say
from .test_bus_in_a_widget import poll
from .test_whiteboard import BLACK, draw, ink, until

WITHOUT = "c.ServerApp.jpserver_extensions = {'ebus_jupyter': False}\n"

WIDGETS = (
    "%load_ext ebus_jupyter\nimport ipywidgets as widgets",
    'speed = ebus.share(widgets.FloatSlider(max=100), "speed")\nspeed',
    'board = ebus.widgets.Whiteboard("board")\nboard',
    'chat = ebus.widgets.Chat("talk")\nchat',
)


@pytest.fixture(scope="module", params=["by the server", "by the kernel"])
def way(request: pytest.FixtureRequest) -> str:
    """ "by the kernel": JupyterLab without the extension, as in VS Code, in Colab, or where nobody may install it."""
    return str(request.param)


@pytest.fixture(scope="module")
def server(way: str, make_server: Callable[..., Server]) -> Server:
    server = make_server("alice", "bob", config=WITHOUT if way == "by the kernel" else "")
    # JupyterLab 4.6 may delete the subshell of a restarted kernel's new comms together with that of the old ones; then
    # the kernel hears none of its widgets any more. Without subshells it does.
    server.set_lab("kernels-settings", commsOverSubshells="disabled")
    return server


@pytest.fixture
def both(server: Server, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Lab]:
    lab = Lab(server, browser)
    yield lab
    keep_evidence(lab, request.node)
    lab.close()


def test_the_way_is_the_one_that_is_meant(server: Server, way: str) -> None:
    assert server.request("GET", "ebus/client.js", "alice").status == {"by the server": 200, "by the kernel": 404}[way]


def test_a_page_takes_part_in_a_bus_that_a_widget_was_given(both: Lab, way: str) -> None:
    alice = both.person("alice").open(write_notebook(both.server, "given.ipynb", *poll("server")))
    alice.run_all()
    alice.page.locator(".vote").click()
    expect(alice.page.locator(".heard")).to_have_text("tea ", timeout=15_000)
    expect(alice.page.locator(".vote")).to_have_attribute("title", "offset 1")
    assert alice.eval("ears.get(5)") == "{'choice': 'tea'}"
    alice.eval("votes.write({'choice': 'milk'}).result(5)")
    expect(alice.page.locator(".heard")).to_have_text("tea milk ")
    assert alice.eval("[m.sender.kind for m in votes.messages(since='start').take(2, 5)]") == "['page', 'kernel']"
    assert alice.bus_sockets == (1 if way == "by the server" else 0)


def enter(lab: Lab) -> tuple[Person, Person]:
    """Two pages on one notebook: the second one comes late."""
    notebook = write_notebook(lab.server, "widgets.ipynb", *WIDGETS)
    alice = lab.person("alice").open(notebook)
    alice.run_all()
    alice.slider().handle.wait_for()
    live(alice)
    alice.slider().drag_to(0.3)
    say(alice, "before Bob came")
    draw(alice, (0.1, 0.1), (0.5, 0.3), (0.2, 0.6))
    alice.command("docmanager:save")
    bob = lab.person("bob").open(notebook)
    bob.slider().handle.wait_for()
    live(bob)
    return alice, bob


def hears(person: Person, text: str) -> None:
    expect(person.page.locator(".ebus-chat [role=log]")).to_contain_text(text, timeout=10_000)


def test_two_pages_of_one_kernel_share_all_that_there_is(both: Lab) -> None:
    alice, bob = enter(both)

    # The late one has what there was.
    bob.slider().shows_soon(alice.slider().shows())
    hears(bob, "before Bob came")
    until(bob, {BLACK})

    # Each has what the other does, and so has the kernel.
    bob.slider().shows_soon(alice.slider().drag_to(0.6))
    shown = bob.slider().drag_to(0.2)
    alice.slider().shows_soon(shown)
    assert round(float(alice.eval("speed.value")), 2) == float(shown)
    say(bob, "I see")
    hears(alice, "I see")
    assert alice.eval("[line.value.text for line in chat.history()]") == "['before Bob came', 'I see']"
    draw(bob, (0.6, 0.2), (0.9, 0.8), colour="Red")
    until(alice, ink(bob) | {"#d32f2f"})
    assert alice.eval("len(board.strokes())") == "2"

    # A program is one of them.
    alice.eval("1", before="speed.value = 77; chat.say('from the program')")
    for person in (alice, bob):
        person.slider().shows_soon("77.00")
        hears(person, "from the program")

    # A reload loses nothing.
    bob.reload()
    live(bob)
    bob.slider().shows_soon("77.00")
    hears(bob, "before Bob came")
    until(bob, {BLACK, "#d32f2f"})


def test_a_restarted_kernel_s_widgets_take_part_again(both: Lab) -> None:
    alice, _ = enter(both)
    alice.restart_kernel()
    alice.run_all()
    alice.slider().handle.wait_for()
    live(alice)
    say(alice, "after the restart")
    hears(alice, "after the restart")
    shown = alice.slider().drag_to(0.8)
    assert round(float(alice.eval("speed.value")), 2) == float(shown)
