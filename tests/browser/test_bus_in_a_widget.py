"""A bus is a value: handed to anyone's anywidget by a `WidgetTrait`, it is there as a bus in the page."""

from __future__ import annotations

from playwright.sync_api import expect

from .lab import Lab, write_notebook

# Somebody's own widget, which knows nothing of us but that what it is handed can write, and be heard.
POLL = '''
import anywidget

class Poll(anywidget.AnyWidget):
    _esm = """
    export default {
      async render({ model, el, host, signal }) {
        const { exports: bus } = await host.getWidget(model.get("bus"));
        const votes = await bus.stream({ signal }).begun();  // who sees the button hears every vote
        const button = Object.assign(document.createElement("button"), { className: "vote", textContent: "tea" });
        const heard = Object.assign(document.createElement("p"), { className: "heard" });
        el.append(button, heard);
        button.onclick = async () => { button.title = `offset ${await bus.write({ choice: "tea" })}`; };
        (async () => { for await (const vote of votes) heard.textContent += `${vote.choice} `; })();
      }
    }"""
    bus = anywidget.WidgetTrait().tag(sync=True)
'''


def poll(scope: str, name: str = "'{scope}-votes'") -> tuple[str, ...]:
    return (
        "%load_ext ebus_jupyter",
        POLL,
        f"votes = ebus.bus({name.format(scope=scope)}, dict, scope={scope!r})\nears = votes.stream()\nPoll(bus=votes)",
    )


def test_a_page_votes_and_everyone_hears(lab: Lab) -> None:
    alice, bob = (
        lab.person(user).open(write_notebook(lab.server, f"poll-{user}.ipynb", *poll("server")))
        for user in ("alice", "bob")
    )
    for person in (alice, bob):
        person.run_all()
        person.page.locator(".vote").wait_for()
    alice.page.locator(".vote").click()
    for person in (alice, bob):
        expect(person.page.locator(".heard")).to_have_text("tea ")
        assert person.eval("ears.get(5)") == "{'choice': 'tea'}"
    expect(alice.page.locator(".vote")).to_have_attribute("title", "offset 1")

    bob.eval("votes.write({'choice': 'milk'}).result(5)")
    expect(alice.page.locator(".heard")).to_have_text("tea milk ")


def test_a_kernel_s_own_bus_is_entered_by_the_page_that_shows_its_widget_and_by_no_other(lab: Lab) -> None:
    alice = lab.person("alice").open(write_notebook(lab.server, "own.ipynb", *poll("kernel")))
    alice.run_all()
    alice.page.locator(".vote").click()
    expect(alice.page.locator(".heard")).to_have_text("tea ")
    assert alice.eval("ears.get(5)") == "{'choice': 'tea'}"

    kernel = alice.eval("votes.channel.owner").strip("'")
    bob = lab.person("bob").open(write_notebook(lab.server, "nosy.ipynb", "1"))
    refused = bob.page.evaluate(
        """async ([base, owner]) => {
          const { connect } = await import(base + "ebus/client.js");
          const tries = { "by name": {}, "by owner": { owner }, "by a guess": { owner, cap: "0".repeat(40) } };
          const errors = {};
          for (const [how, options] of Object.entries(tries))
            await connect().bus("kernel-votes", { scope: "kernel", ...options }).ready.catch((e) => { errors[how] = e.code; });
          return errors;
        }""",
        [lab.server.base_url, kernel],
    )
    assert refused == {"by name": "forbidden", "by owner": "no_such_bus", "by a guess": "no_such_bus"}


def test_an_unnamed_bus_reaches_the_page_too(lab: Lab) -> None:
    alice = lab.person("alice").open(write_notebook(lab.server, "unnamed.ipynb", *poll("server", "None")))
    alice.run_all()
    alice.page.locator(".vote").click()
    expect(alice.page.locator(".heard")).to_have_text("tea ")
    assert alice.eval("votes.uri").startswith("'ebus:server/~")
