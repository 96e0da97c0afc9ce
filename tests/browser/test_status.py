"""How things stand, in honest words: live, reconnecting, lagged, closed; and what the kernel does."""

from __future__ import annotations

from playwright.sync_api import expect

from .lab import Lab, Person
from .stage import face, live, picture, pictures, show


def state(person: Person, status: str, timeout: float = 40_000) -> None:
    expect(face(person).locator(".ebus-state")).to_have_attribute("data-status", status, timeout=timeout)


def test_it_tells_of_the_kernel_and_goes_on_without_it(lab: Lab) -> None:
    alice = show(lab, "alice", "ebus.widgets.Status()", "kernel")
    state(alice, "live")
    kernel = face(alice).locator("dd").last
    expect(kernel).to_have_text("idle")
    alice.keep_busy(5)
    expect(kernel).to_contain_text("busy")
    expect(kernel).to_have_text("idle", timeout=20_000)
    alice.kill_kernel()
    expect(kernel).not_to_have_text("idle", timeout=20_000)
    state(alice, "live")


def test_two_people_see_the_server_go_and_come_back(lab: Lab) -> None:
    alice, bob = (show(lab, user, "ebus.widgets.Status(scope='user')", "server") for user in ("alice", "bob"))
    for person in (alice, bob):
        state(person, "live")
    lab.server.kill9()
    for person in (alice, bob):
        state(person, "reconnecting")
        expect(face(person).locator(".ebus-state")).to_contain_text("what you do is kept")
    picture(alice, "status-reconnecting")
    lab.server.start()
    for person in (alice, bob):
        state(person, "live")
        expect(face(person).locator(".ebus-record")).to_contain_text("live again after")
    pictures(alice, "status")


def test_without_a_network_it_says_so(lab: Lab) -> None:
    alice = show(lab, "alice", "ebus.widgets.Status()", "network")
    with alice.offline():
        state(alice, "reconnecting", timeout=60_000)
    state(alice, "live")


def test_who_was_away_too_long_is_told_what_was_missed(lab: Lab) -> None:
    alice = show(lab, "alice", "bus = ebus.bus('short', int, size=3)\nebus.widgets.Status(bus)", "lag")
    bob = show(lab, "bob", "bus = ebus.bus('short')\nebus.widgets.Status(bus)", "lag")
    bob.eval("1", before="bus.write(0).result(5)")
    with alice.offline():
        state(alice, "reconnecting", timeout=60_000)
        bob.eval("1", before="[bus.write(n) for n in range(1, 10)][-1].result(5)")
    state(alice, "lagged")
    expect(face(alice).locator(".ebus-state")).to_contain_text("missed 6 messages")
    state(bob, "live")


def test_a_deleted_bus_is_closed_and_says_why(lab: Lab) -> None:
    alice = show(lab, "alice", "bus = ebus.bus('doomed', int)\nebus.widgets.Status(bus)", "doomed")
    bob = show(lab, "bob", "bus = ebus.bus('doomed')\nebus.widgets.Status(bus)", "doomed")
    bob.eval("1", before="bus.delete()")
    for person in (alice, bob):
        state(person, "closed")
        live(person, "closed")
        expect(face(person).locator(".ebus-means")).to_contain_text("deleted")
