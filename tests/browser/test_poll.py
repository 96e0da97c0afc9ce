"""A poll: one vote for each person, live bars, and an owner who closes it."""

from __future__ import annotations

from playwright.sync_api import Locator, expect

from .lab import Lab, Person
from .stage import screenshots, show_widget, view, wait_status

OPTIONS = ["Thai", "Pizza", "Salad bar"]


def enter(lab: Lab, user: str, name: str, *, asks: bool = False) -> Person:
    ask = f", question='Where do we go for lunch?', options={OPTIONS}" if asks else ""
    person = show_widget(lab, user, f"poll = ebus.widgets.Poll('{name}', title='Lunch'{ask})\npoll", name)
    option(person, OPTIONS[0]).wait_for()  # the question has arrived
    return person


def option(person: Person, choice: str) -> Locator:
    return view(person).locator(".ebus-option", has_text=choice)


def shows(person: Person, **votes: int) -> None:
    """Wait until the bars show these votes."""
    all_ = sum(votes.values())
    for choice in OPTIONS:
        n = votes.get(choice.split()[0], 0)
        share = round(100 * n / all_) if all_ else 0
        expect(option(person, choice).locator(".ebus-votes")).to_have_text(f"{n} · {share} %")


def test_vote_is_changed_and_withdrawn(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "lunch", asks=True), enter(lab, "bob", "lunch")
    expect(view(bob).locator(".ebus-question")).to_have_text("Where do we go for lunch?")
    option(alice, "Thai").click()
    option(bob, "Thai").click()
    for person in (alice, bob):
        shows(person, Thai=2)
    option(bob, "Pizza").click()
    for person in (alice, bob):
        shows(person, Thai=1, Pizza=1)
    alice.wait_eval(
        "poll.results, poll.votes",
        "({'Thai': 1, 'Pizza': 1, 'Salad bar': 0}, {'alice': 'Thai', 'bob': 'Pizza'})",
    )
    option(bob, "Pizza").click()
    for person in (alice, bob):
        shows(person, Thai=1)

    carol = enter(lab, "carol", "lunch")
    shows(carol, Thai=1)
    alice.reload()
    wait_status(alice)
    shows(alice, Thai=1)
    expect(option(alice, "Thai")).to_have_attribute("aria-pressed", "true")


def test_page_and_program_of_a_user_have_one_vote(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "once", asks=True), enter(lab, "bob", "once")
    option(bob, "Thai").click()
    shows(alice, Thai=1)
    bob.eval("1", before="poll.vote('Pizza')")
    for person in (alice, bob):
        shows(person, Pizza=1)
    # A write to the bus itself has no field in which to claim another user.
    refused = bob.eval(
        "said",
        before=(
            "try: poll.bus.write({'type': 'vote', 'choice': 'Thai', 'user': 'alice'}).result(30); said = 'accepted'\n"
            "except ebus.EbusError as error: said = error.code"
        ),
    )
    assert refused == "'type_mismatch'"
    alice.wait_eval("poll.votes", "{'bob': 'Pizza'}")


def test_only_the_owner_closes_a_poll_and_late_votes_are_void(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "close", asks=True), enter(lab, "bob", "close")
    option(bob, "Thai").click()
    shows(alice, Thai=1)
    expect(view(bob).get_by_role("button", name="Close the poll")).to_be_hidden()
    bob.eval("1", before="poll.end()")
    assert alice.eval("poll.closed") == "False"
    view(alice).get_by_role("button", name="Close the poll").click()
    expect(option(bob, "Pizza")).to_be_disabled()
    expect(view(bob).get_by_role("status").last).to_contain_text("closed")
    bob.eval("1", before="poll.vote('Pizza')")
    for person in (alice, bob):
        shows(person, Thai=1)
        person.wait_eval("poll.results['Thai'], poll.closed", "(1, True)")
    view(alice).get_by_role("button", name="Reopen").click()
    option(bob, "Pizza").click()
    shows(alice, Pizza=1)


def test_offline_vote_counts_when_the_network_is_back(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "offline", asks=True), enter(lab, "bob", "offline")
    option(bob, "Thai").wait_for()  # a live page may not have received the question yet
    with bob.offline():
        option(bob, "Thai").click()
        shows(bob, Thai=1)  # a person's own vote shows at once
        option(alice, "Pizza").click()
        shows(alice, Pizza=1)
    for person in (alice, bob):
        expect(option(person, "Thai").locator(".ebus-votes")).to_have_text("1 · 50 %")
        shows(person, Thai=1, Pizza=1)


def test_poll_survives_a_killed_server(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "crash", asks=True), enter(lab, "bob", "crash")
    option(alice, "Thai").click()
    shows(bob, Thai=1)
    lab.server.kill9()
    wait_status(bob, "reconnecting")
    option(bob, "Pizza").click()
    lab.server.start()
    for person in (alice, bob):
        wait_status(person)
        shows(person, Thai=1, Pizza=1)


def test_five_people_vote(lab: Lab) -> None:
    people = [enter(lab, user, "five", asks=user == "alice") for user in ("alice", "bob", "carol", "dave", "eve")]
    for person, choice in zip(people, ["Thai", "Thai", "Pizza", "Salad bar", "Thai"], strict=True):
        option(person, choice).click()
    for person in people:
        shows(person, Thai=3, Pizza=1, Salad=1)
        person.wait_eval("poll.results", "{'Thai': 3, 'Pizza': 1, 'Salad bar': 1}")
    screenshots(people[0], "poll")


def test_markup_in_a_question_is_shown_as_text(lab: Lab) -> None:
    alice = enter(lab, "alice", "markup", asks=True)
    alice.eval(
        "1", before="poll.ask('<img src=x onerror=window.pwned=1>', ['<b>a</b>', '<script>window.pwned=1</script>'])"
    )
    expect(view(alice).locator(".ebus-question")).to_have_text("<img src=x onerror=window.pwned=1>")
    expect(view(alice).locator(".ebus-label")).to_have_text(["<b>a</b>", "<script>window.pwned=1</script>"])
    assert view(alice).locator("img, script, b").count() == 0
