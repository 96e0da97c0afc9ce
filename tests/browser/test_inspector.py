"""A look into the buses within reach."""

from __future__ import annotations

from playwright.sync_api import Locator, expect

from .lab import Lab, Person
from .stage import face, live, pictures, show


def enter(lab: Lab, user: str, name: str, more: str = "") -> Person:
    return show(lab, user, f"{more}ebus.widgets.Inspector()", name)


def row(person: Person, name: str) -> Locator:
    return face(person).locator("tr").filter(has=person.page.get_by_role("button", name=name, exact=True))


def test_two_people_see_the_buses_they_can_enter_and_no_others(lab: Lab) -> None:
    alice = enter(
        lab, "alice", "list", "v = ebus.bus('votes', int); s = ebus.bus('secret', int, scope='user'); v.write(1)\n"
    )
    bob = enter(lab, "bob", "list", "v = ebus.bus('votes')\n")
    expect(row(alice, "votes").locator("td")).to_contain_text(["votes", "2", "1"])
    expect(row(alice, "secret")).to_have_count(1)
    expect(row(bob, "votes")).to_have_count(1)
    expect(row(bob, "secret")).to_have_count(0)


def test_it_listens_to_the_one_that_is_chosen(lab: Lab) -> None:
    writes = "v = ebus.bus('tail', str)\n[v.write(f'before {n}') for n in range(3)]\n"
    alice, bob = enter(lab, "alice", "tail", writes), enter(lab, "bob", "tail")
    row(bob, "tail").get_by_role("button").click()
    log = face(bob).get_by_role("log")
    expect(log.locator("code")).to_have_text(['"before 0"', '"before 1"', '"before 2"'])
    expect(face(bob).locator(".ebus-about")).to_contain_text("Alice (kernel)")
    alice.eval("1", before="v.write('<img src=x onerror=window.pwned=1>').result(5)")
    expect(log.locator("code").last).to_have_text('"<img src=x onerror=window.pwned=1>"')
    assert face(bob).locator("img").count() == 0

    bob.reload()
    live(bob)
    row(bob, "tail").get_by_role("button").click()
    expect(log.locator("code")).to_have_count(4)


def test_rates_are_plotted_and_the_server_may_go_and_come_back(lab: Lab) -> None:
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
    expect(row(alice, "sensor").locator("td").last).not_to_have_text("0.0", timeout=15_000)
    expect(face(alice).locator(".u-over")).to_be_visible()
    alice.page.wait_for_timeout(8_000)  # a curve takes its time
    pictures(alice, "inspector")

    lab.server.kill9()
    live(bob, "reconnecting")
    lab.server.start()
    live(bob, timeout=40_000)
    expect(row(bob, "sensor")).to_have_count(1, timeout=20_000)
