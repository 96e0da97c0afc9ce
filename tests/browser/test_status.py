"""The state of a page's connection (live, reconnecting, lagged, closed), and its kernel's activity."""

from __future__ import annotations

from playwright.sync_api import expect

from .lab import Lab, Person
from .stage import screenshot, screenshots, show_widget, view, wait_status


def expect_state(person: Person, status: str) -> None:
    expect(view(person).locator(".ebus-state")).to_have_attribute("data-status", status)


def test_status_shows_the_kernel_and_survives_it(lab: Lab) -> None:
    alice = show_widget(lab, "alice", "ebus.widgets.Status()", "kernel")
    expect_state(alice, "live")
    kernel = view(alice).locator("dd").last
    expect(kernel).to_have_text("idle")
    with alice.busy_kernel():
        expect(kernel).to_contain_text("busy")
    expect(kernel).to_have_text("idle")
    alice.kill_kernel()
    expect(kernel).not_to_have_text("idle")
    expect_state(alice, "live")


def test_status_shows_a_killed_server_and_its_return(lab: Lab) -> None:
    alice, bob = (show_widget(lab, user, "ebus.widgets.Status(scope='user')", "server") for user in ("alice", "bob"))
    for person in (alice, bob):
        expect_state(person, "live")
    lab.server.kill9()
    for person in (alice, bob):
        expect_state(person, "reconnecting")
        expect(view(person).locator(".ebus-state")).to_contain_text("your changes are kept")
    screenshot(alice, "status-reconnecting")
    lab.server.start()
    for person in (alice, bob):
        expect_state(person, "live")
        expect(view(person).locator(".ebus-record")).to_contain_text("live again after")
    screenshots(alice, "status")


def test_status_shows_a_lost_network(lab: Lab) -> None:
    alice = show_widget(lab, "alice", "ebus.widgets.Status()", "network")
    with alice.offline():
        expect_state(alice, "reconnecting")
    expect_state(alice, "live")


def test_status_shows_the_number_of_missed_messages(lab: Lab) -> None:
    alice = show_widget(lab, "alice", "bus = ebus.bus('short', int, size=3)\nebus.widgets.Status(bus)", "lag")
    bob = show_widget(lab, "bob", "bus = ebus.bus('short')\nebus.widgets.Status(bus)", "lag")
    bob.eval("1", before="bus.write(0).result(30)")
    # Alice's page has that message before this answer: a connection delivers in order.
    history = 'async (base) => (await import(base + "ebus/client.js")).connect().bus("short").history(1)'
    assert alice.page.evaluate(history, lab.server.base_url) == [0]
    with alice.offline():
        expect_state(alice, "reconnecting")
        bob.eval("1", before="[bus.write(n) for n in range(1, 10)][-1].result(30)")
    expect_state(alice, "lagged")
    expect(view(alice).locator(".ebus-state")).to_contain_text("missed 6 messages")
    expect_state(bob, "live")


def test_status_shows_why_a_bus_was_closed(lab: Lab) -> None:
    alice = show_widget(lab, "alice", "bus = ebus.bus('doomed', int)\nebus.widgets.Status(bus)", "doomed")
    bob = show_widget(lab, "bob", "bus = ebus.bus('doomed')\nebus.widgets.Status(bus)", "doomed")
    bob.eval("1", before="bus.delete()")
    for person in (alice, bob):
        expect_state(person, "closed")
        wait_status(person, "closed")
        expect(view(person).locator(".ebus-means")).to_contain_text("deleted")
