"""What others share cannot run code in a page."""

from __future__ import annotations

import msgspec
from playwright.sync_api import expect

from ebus_jupyter.core.protocol import frames
from tests.server.wire import Wire

from .lab import Lab, write_notebook

ATTACK = '<img src=x onerror="window.pwned = 1"><b>pwned</b>'


def test_shared_markup_of_others_runs_no_code(lab: Lab) -> None:
    notebook = write_notebook(
        lab.server,
        "markup-alice.ipynb",
        "%load_ext ebus_jupyter\nimport ipywidgets as widgets",
        'box = ebus.share(widgets.VBox([widgets.HTML("mine"), widgets.Label("mine"), widgets.IntText(0)]), "markup")\nbox',
    )
    alice = lab.person("alice").open(notebook)
    alice.run_all()
    alice.wait_bound("box")
    with Wire(lab.server, auth=f"token {lab.server.token('bob')}") as bob:
        bob.hello()
        state = bob.open("markup")
        for n, key in enumerate(("children/0/value", "children/1/value"), 1):
            bob.send(frames.Publish(state.bus, n, msgspec.Raw(msgspec.msgpack.encode(ATTACK)), key))
        bob.send(frames.Publish(state.bus, 3, msgspec.Raw(msgspec.msgpack.encode(7)), "children/2/value"))
        bob.expect(frames.Ok)
    expect(alice.page.get_by_role("spinbutton")).to_have_value("7")
    expect(alice.page.locator(".widget-label", has_text="pwned")).to_have_text(ATTACK)
    expect(alice.page.locator(".widget-html-content")).to_have_text("mine")
    assert alice.page.evaluate("window.pwned") is None
