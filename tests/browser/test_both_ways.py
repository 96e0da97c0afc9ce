"""A page reaches a bus over the server's WebSocket or, where no server hosts it, through its kernel; each test runs both."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.server.harness import Server

from .conftest import use
from .lab import Lab, Person, write_notebook
from .stage import send_chat, wait_status
from .test_bus_in_a_widget import poll
from .test_whiteboard import BLACK, draw, expect_ink, ink

WITHOUT = "c.ServerApp.jpserver_extensions.update({'ebus_jupyter': False})\n"

WIDGETS = (
    "%load_ext ebus_jupyter\nimport ipywidgets as widgets",
    'speed = ebus.share(widgets.FloatSlider(max=100), "speed")\nspeed',
    'board = ebus.widgets.Whiteboard("board")\nboard',
    'chat = ebus.widgets.Chat("talk")\nchat',
)


@pytest.fixture(scope="module", params=["by the server", "by the kernel"])
def way(request: pytest.FixtureRequest) -> str:
    """ "by the kernel" is JupyterLab without the server extension: as in VS Code, in Colab, or where it cannot be installed."""
    return str(request.param)


@pytest.fixture(scope="module")
def server(way: str, make_server: Callable[..., Server]) -> Server:
    server = make_server("alice", "bob", config=WITHOUT if way == "by the kernel" else "")
    # JupyterLab 4.6 may delete the subshell of a restarted kernel's comms together with that of the old kernel's; the kernel
    # then receives no comm message any more. It does without subshells.
    server.set_lab("kernels-settings", commsOverSubshells="disabled")
    return server


@pytest.fixture(scope="module")
def way_lab(server: Server, browser: Browser) -> Iterator[Lab]:
    lab = Lab(server, browser)
    yield lab
    lab.close()


@pytest.fixture
def both(way_lab: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from use(way_lab, request.node)


def test_server_hosts_the_client_or_not(server: Server, way: str) -> None:
    assert server.request("GET", "ebus/client.js", "alice").status == {"by the server": 200, "by the kernel": 404}[way]


def test_page_writes_and_reads_the_bus_of_a_widget(both: Lab, way: str) -> None:
    alice = both.person("alice").open(write_notebook(both.server, "given.ipynb", *poll("server")))
    alice.run_all()
    alice.page.locator(".vote").click()
    expect(alice.page.locator(".heard")).to_have_text("tea ")
    expect(alice.page.locator(".vote")).to_have_attribute("title", "offset 1")
    assert alice.eval("ears.get(30)") == "{'choice': 'tea'}"
    alice.eval("votes.write({'choice': 'milk'}).result(5)")
    expect(alice.page.locator(".heard")).to_have_text("tea milk ")
    assert alice.eval("[m.sender.kind for m in votes.messages(since='start').take(2, 30)]") == "['page', 'kernel']"
    assert alice.bus_sockets == (1 if way == "by the server" else 0)


def enter(lab: Lab) -> tuple[Person, Person]:
    """Two pages of one notebook. The second one is opened late."""
    notebook = write_notebook(lab.server, "widgets.ipynb", *WIDGETS)
    alice = lab.person("alice").open(notebook)
    alice.run_all()
    wait_ready(alice)
    alice.slider().drag_to(0.3)
    send_chat(alice, "before Bob came")
    draw(alice, (0.1, 0.1), (0.5, 0.3), (0.2, 0.6))
    alice.command("docmanager:save")
    bob = lab.person("bob").open(notebook)
    bob.slider().handle.wait_for()
    wait_status(bob)
    return alice, bob


def wait_ready(person: Person) -> None:
    """Wait until the widgets of the page are live."""
    person.slider().handle.wait_for()
    wait_status(person)
    person.wait_bound("speed")


def expect_chat(person: Person, text: str) -> None:
    expect(person.page.locator(".ebus-chat [role=log]")).to_contain_text(text)


def test_two_pages_of_one_kernel_share_all_widgets(both: Lab) -> None:
    alice, bob = enter(both)

    # The late page shows the current state.
    bob.slider().expect_text(alice.slider().text())
    expect_chat(bob, "before Bob came")
    expect_ink(bob, {BLACK})

    # Changes in either page reach the other page and the kernel.
    bob.slider().expect_text(alice.slider().drag_to(0.6))
    shown = bob.slider().drag_to(0.2)
    alice.slider().expect_text(shown)
    alice.wait_eval("float(round(speed.value, 2))", str(float(shown)))
    send_chat(bob, "I see")
    expect_chat(alice, "I see")
    alice.wait_eval("[line.value.text for line in chat.history()]", "['before Bob came', 'I see']")
    draw(bob, (0.6, 0.2), (0.9, 0.8), colour="Red")
    expect_ink(alice, ink(bob) | {"#d32f2f"})
    alice.wait_eval("len(board.strokes())", "2")

    # A program takes part too.
    alice.eval("1", before="speed.value = 77; chat.say('from the program')")
    for person in (alice, bob):
        person.slider().expect_text("77.00")
        expect_chat(person, "from the program")

    # A reloaded page shows the current state.
    bob.reload()
    wait_status(bob)
    bob.slider().expect_text("77.00")
    expect_chat(bob, "before Bob came")
    expect_ink(bob, {BLACK, "#d32f2f"})


def test_widgets_of_a_restarted_kernel_reconnect(both: Lab) -> None:
    alice, _ = enter(both)
    alice.restart_kernel()
    alice.run_all()
    wait_ready(alice)
    send_chat(alice, "after the restart")
    expect_chat(alice, "after the restart")
    shown = alice.slider().drag_to(0.8)
    alice.wait_eval("float(round(speed.value, 2))", str(float(shown)))
