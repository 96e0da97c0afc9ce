"""Where no server hosts the buses, pages take part by way of their kernel: the same widgets, the same frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.server.harness import Server

from .lab import Lab, write_notebook
from .test_bus_in_a_widget import poll

WITHOUT = "c.ServerApp.jpserver_extensions = {'ebus_jupyter': False}\n"


@pytest.fixture(scope="module")
def plain_server(make_server: Callable[..., Server]) -> Server:
    """A JupyterLab without the extension: as in VS Code, in Colab, or on a server where nobody may install it."""
    return make_server("alice", "bob", config=WITHOUT)


@pytest.fixture
def plain_lab(plain_server: Server, browser: Browser) -> Iterator[Lab]:
    lab = Lab(plain_server, browser)
    yield lab
    lab.close()


def test_the_server_has_no_buses(plain_server: Server) -> None:
    assert plain_server.request("GET", "ebus/client.js", "alice").status == 404


def test_a_page_takes_part_by_way_of_its_kernel(plain_lab: Lab) -> None:
    alice = plain_lab.person("alice").open(write_notebook(plain_lab.server, "via.ipynb", *poll("server")))
    alice.run_all()
    alice.page.locator(".vote").click()
    expect(alice.page.locator(".heard")).to_have_text("tea ", timeout=15_000)
    assert alice.eval("ears.get(5)") == "{'choice': 'tea'}"
    assert "nothing leaves it" in alice.eval("ebus.status()")
    alice.eval("votes.write({'choice': 'milk'}).result(5)")
    expect(alice.page.locator(".heard")).to_have_text("tea milk ")
    assert alice.eval("[m.sender.kind for m in votes.messages(since='start').take(2, 5)]") == "['page', 'kernel']"
    assert alice.bus_sockets == 0


def test_two_pages_of_one_kernel_share_a_slider(plain_lab: Lab) -> None:
    notebook = write_notebook(
        plain_lab.server,
        "both.ipynb",
        "%load_ext ebus_jupyter\nimport ipywidgets as widgets",
        'speed = ebus.share(widgets.FloatSlider(max=100), "speed")\nspeed',
    )
    alice = plain_lab.person("alice").open(notebook)
    alice.run_all()
    alice.slider().handle.wait_for()
    alice.command("docmanager:save")
    bob = plain_lab.person("bob").open(notebook)
    bob.slider().handle.wait_for()
    shown = alice.slider().drag_to(0.6)
    bob.slider().shows_soon(shown)
    back = bob.slider().drag_to(0.2)
    alice.slider().shows_soon(back)
    assert round(float(alice.eval("speed.value")), 2) == float(back)
