"""Presence: each person once, kernels with their activity, and people who have just lost their connection."""

from __future__ import annotations

from playwright.sync_api import Locator, expect

from .lab import Lab, Person
from .stage import screenshots, show_widget, view, wait_status


def enter(lab: Lab, user: str, name: str, notebook: str = "") -> Person:
    return show_widget(
        lab, user, f"here = ebus.widgets.Presence('{name}', title='In this room')\nhere", notebook or name
    )


def people(person: Person) -> Locator:
    return view(person).locator(".ebus-person")


def kernel(person: Person, of: str) -> Locator:
    return view(person).locator(".ebus-kernel", has_text=of)


def test_people_and_kernels_join_and_leave(lab: Lab) -> None:
    alice = enter(lab, "alice", "room")
    expect(people(alice)).to_have_count(1)
    expect(people(alice).first).to_contain_text("you")
    bob = enter(lab, "bob", "room")
    for person in (alice, bob):
        expect(people(person)).to_have_count(2)
        expect(kernel(person, "Bob")).to_have_attribute("data-activity", "idle")
    alice.wait_eval("here.people", "['Alice', 'Bob']")

    with bob.busy_kernel():
        expect(kernel(alice, "Bob")).to_have_attribute("data-activity", "busy")
    expect(kernel(alice, "Bob")).to_have_attribute("data-activity", "idle")

    bob.close()
    expect(people(alice).filter(has_text="Bob")).to_have_attribute("data-status", "away")
    expect(people(alice)).to_have_count(1)
    expect(view(alice).locator(".ebus-hidden[role=status]")).to_have_text("Bob left.")


def test_restarting_kernel_is_shown_to_others(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "restart"), enter(lab, "bob", "restart")
    expect(kernel(alice, "Bob")).to_have_attribute("data-activity", "idle")
    bob.restart_kernel()
    expect(kernel(alice, "Bob")).to_have_count(0)
    bob.run_all()
    expect(kernel(alice, "Bob")).to_have_attribute("data-activity", "idle")


def test_people_return_after_a_killed_server(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "offline"), enter(lab, "bob", "offline")
    lost = people(alice).filter(has_text="Bob")
    expect(lost).to_have_attribute("data-status", "here")
    lab.server.kill9()
    wait_status(alice, "reconnecting")
    lab.server.start()
    for person in (alice, bob):
        wait_status(person)
        expect(people(person)).to_have_count(2)


def test_two_pages_are_one_person_and_a_reload_is_no_leave(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "twice"), enter(lab, "bob", "twice")
    again = enter(lab, "bob", "twice", notebook="twice-again")
    expect(people(alice)).to_have_count(2)
    expect(people(alice).filter(has_text="Bob")).to_contain_text("2 pages")
    again.close()
    expect(people(alice).filter(has_text="Bob")).not_to_contain_text("pages")
    bob.reload()
    wait_status(bob)
    expect(people(bob)).to_have_count(2)
    expect(view(alice).locator(".ebus-hidden[role=status]")).not_to_have_text("Bob left.")


def test_five_people_are_present(lab: Lab) -> None:
    all_ = [enter(lab, user, "five") for user in ("alice", "bob", "carol", "dave", "eve")]
    for person in all_:
        expect(people(person)).to_have_count(5)
        expect(view(person).locator(".ebus-kernel")).to_have_count(5)
    with all_[1].busy_kernel():
        expect(kernel(all_[0], "Bob")).to_have_attribute("data-activity", "busy")
        all_[4].close()
        expect(people(all_[0]).filter(has_text="Eve")).to_have_attribute("data-status", "away")
        screenshots(all_[0], "presence")
