"""The inspector: the buses that a user can open, and the messages of one of them."""

from __future__ import annotations

from playwright.sync_api import Locator, expect

from .lab import Lab, Person
from .stage import screenshots, show_widget, taking_screenshots, view, wait_status


def enter(lab: Lab, user: str, name: str, more: str = "") -> Person:
    return show_widget(lab, user, f"{more}ebus.widgets.Inspector()", name)


def row(person: Person, name: str) -> Locator:
    return view(person).locator("tr").filter(has=person.page.get_by_role("button", name=name, exact=True))


def test_inspector_lists_only_the_buses_a_user_can_open(lab: Lab) -> None:
    alice = enter(
        lab, "alice", "list", "v = ebus.bus('votes', int); s = ebus.bus('secret', int, scope='user'); v.write(1)\n"
    )
    bob = enter(lab, "bob", "list", "v = ebus.bus('votes')\n")
    expect(row(alice, "votes").locator("td")).to_contain_text(["votes", "2", "1"])
    expect(row(alice, "secret")).to_have_count(1)
    expect(row(bob, "votes")).to_have_count(1)
    expect(row(bob, "secret")).to_have_count(0)


def test_inspector_shows_messages_of_the_chosen_bus(lab: Lab) -> None:
    writes = "v = ebus.bus('tail', str)\n[v.write(f'before {n}') for n in range(3)]\n"
    alice, bob = enter(lab, "alice", "tail", writes), enter(lab, "bob", "tail")
    row(bob, "tail").get_by_role("button").click()
    log = view(bob).get_by_role("log")
    expect(log.locator("code")).to_have_text(['"before 0"', '"before 1"', '"before 2"'])
    expect(view(bob).locator(".ebus-about")).to_contain_text("Alice (kernel)")
    alice.eval("1", before="v.write('<img src=x onerror=window.pwned=1>').result(30)")
    expect(log.locator("code").last).to_have_text('"<img src=x onerror=window.pwned=1>"')
    assert view(bob).locator("img").count() == 0

    bob.reload()
    wait_status(bob)
    row(bob, "tail").get_by_role("button").click()
    expect(log.locator("code")).to_have_count(4)


def test_inspector_plots_rates_and_survives_a_killed_server(lab: Lab) -> None:
    alice = enter(
        lab,
        "alice",
        "rates",
        "from ebus_jupyter.widgets import Chat\nc = Chat('lobby'); p = ebus.bus('sensor', float)\n",
    )
    bob = enter(lab, "bob", "rates")
    row(alice, "sensor").get_by_role("button").click()
    feed = (
        "import threading, time, math\n"
        "def measure():\n"
        "    for n in range(300): p.write(round(20 + math.sin(n / 9), 3)); time.sleep(.03 + .02 * math.sin(n / 20))\n"
        "threading.Thread(target=measure, daemon=True).start()"
    )
    alice.eval("1", before=feed)
    expect(row(alice, "sensor").locator("td").last).not_to_have_text("0.0")
    expect(view(alice).locator(".u-over")).to_be_visible()
    if taking_screenshots():
        alice.page.wait_for_timeout(8_000)  # for a longer curve
    screenshots(alice, "inspector")

    lab.server.kill9()
    wait_status(bob, "reconnecting")
    lab.server.start()
    wait_status(bob)
    expect(row(bob, "sensor")).to_have_count(1)
