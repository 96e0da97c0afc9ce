"""A bus is a value: assigned to a `WidgetTrait` of anyone's anywidget, it is a bus in the page."""

from __future__ import annotations

from playwright.sync_api import expect

from .lab import Lab, write_notebook

# Somebody's own widget. It knows only that the bus it is given can be written and read.
POLL = '''
import anywidget

class Poll(anywidget.AnyWidget):
    _esm = """
    export default {
      async render({ model, el, host, signal }) {
        const { exports: bus } = await host.getWidget(model.get("bus"));
        const votes = await bus.stream({ signal }).begun();  // the page with a button receives every vote
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


def test_page_vote_reaches_all_pages_and_kernels(lab: Lab) -> None:
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
        assert person.eval("ears.get(30)") == "{'choice': 'tea'}"
    expect(alice.page.locator(".vote")).to_have_attribute("title", "offset 1")

    bob.eval("votes.write({'choice': 'milk'}).result(30)")
    expect(alice.page.locator(".heard")).to_have_text("tea milk ")


def test_kernel_bus_is_open_to_the_page_of_its_widget_only(lab: Lab) -> None:
    alice = lab.person("alice").open(write_notebook(lab.server, "own.ipynb", *poll("kernel")))
    alice.run_all()
    alice.page.locator(".vote").click()
    expect(alice.page.locator(".heard")).to_have_text("tea ")
    assert alice.eval("ears.get(30)") == "{'choice': 'tea'}"

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


def test_page_opens_an_unnamed_bus(lab: Lab) -> None:
    alice = lab.person("alice").open(write_notebook(lab.server, "unnamed.ipynb", *poll("server", "None")))
    alice.run_all()
    alice.page.locator(".vote").click()
    expect(alice.page.locator(".heard")).to_have_text("tea ")
    assert alice.eval("votes.uri").startswith("'ebus:server/~")
