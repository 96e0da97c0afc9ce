"""A poll: one vote a person, live bars, and only who has asked may end it."""

from __future__ import annotations

from playwright.sync_api import Locator, expect

from .lab import Lab, Person
from .stage import face, live, pictures, show

OPTIONS = ["Thai", "Pizza", "Salad bar"]


def enter(lab: Lab, user: str, name: str, *, asks: bool = False) -> Person:
    ask = f", question='Where do we go for lunch?', options={OPTIONS}" if asks else ""
    return show(lab, user, f"poll = ebus.widgets.Poll('{name}', title='Lunch'{ask})\npoll", name)


def option(person: Person, choice: str) -> Locator:
    return face(person).locator(".ebus-option", has_text=choice)


def shows(person: Person, **votes: int) -> None:
    """The bars of these options have these votes."""
    all_ = sum(votes.values())
    for choice in OPTIONS:
        n = votes.get(choice.split()[0], 0)
        share = round(100 * n / all_) if all_ else 0
        expect(option(person, choice).locator(".ebus-votes")).to_have_text(f"{n} · {share} %")


def test_people_vote_change_their_mind_and_take_it_back(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "lunch", asks=True), enter(lab, "bob", "lunch")
    expect(face(bob).locator(".ebus-question")).to_have_text("Where do we go for lunch?")
    option(alice, "Thai").click()
    option(bob, "Thai").click()
    for person in (alice, bob):
        shows(person, Thai=2)
    option(bob, "Pizza").click()
    for person in (alice, bob):
        shows(person, Thai=1, Pizza=1)
    assert alice.eval("poll.results, poll.votes") == (
        "({'Thai': 1, 'Pizza': 1, 'Salad bar': 0}, {'alice': 'Thai', 'bob': 'Pizza'})"
    )
    option(bob, "Pizza").click()
    for person in (alice, bob):
        shows(person, Thai=1)

    carol = enter(lab, "carol", "lunch")
    shows(carol, Thai=1)
    alice.reload()
    live(alice)
    shows(alice, Thai=1)
    expect(option(alice, "Thai")).to_have_attribute("aria-pressed", "true")


def test_a_person_has_one_vote_from_page_and_program_and_nobody_votes_for_another(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "once", asks=True), enter(lab, "bob", "once")
    option(bob, "Thai").click()
    shows(alice, Thai=1)
    bob.eval("1", before="poll.vote('Pizza')")
    for person in (alice, bob):
        shows(person, Pizza=1)
    # Who speaks to the bus itself gains nothing by claiming to be someone else: there is no place to claim it.
    refused = bob.eval(
        "said",
        before=(
            "try: poll.bus.write({'type': 'vote', 'choice': 'Thai', 'user': 'alice'}).result(5); said = 'accepted'\n"
            "except ebus.EbusError as error: said = error.code"
        ),
    )
    assert refused == "'type_mismatch'"
    assert alice.eval("poll.votes") == "{'bob': 'Pizza'}"


def test_only_who_has_asked_can_close_it_and_votes_after_that_count_for_nobody(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "close", asks=True), enter(lab, "bob", "close")
    option(bob, "Thai").click()
    shows(alice, Thai=1)
    expect(face(bob).get_by_role("button", name="Close the poll")).to_be_hidden()
    bob.eval("1", before="poll.end()")
    assert alice.eval("poll.closed") == "False"
    face(alice).get_by_role("button", name="Close the poll").click()
    expect(option(bob, "Pizza")).to_be_disabled()
    expect(face(bob).get_by_role("status").last).to_contain_text("closed")
    bob.eval("1", before="poll.vote('Pizza')")
    for person in (alice, bob):
        shows(person, Thai=1)
        assert person.eval("poll.results['Thai'], poll.closed") == "(1, True)"
    face(alice).get_by_role("button", name="Reopen").click()
    option(bob, "Pizza").click()
    shows(alice, Pizza=1)


def test_a_vote_without_a_network_counts_when_it_is_back(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "offline", asks=True), enter(lab, "bob", "offline")
    with bob.offline():
        option(bob, "Thai").click()
        shows(bob, Thai=1)  # one sees one's own vote at once
        option(alice, "Pizza").click()
        shows(alice, Pizza=1)
    for person in (alice, bob):
        expect(option(person, "Thai").locator(".ebus-votes")).to_have_text("1 · 50 %", timeout=40_000)
        shows(person, Thai=1, Pizza=1)


def test_the_poll_survives_the_server(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "crash", asks=True), enter(lab, "bob", "crash")
    option(alice, "Thai").click()
    shows(bob, Thai=1)
    lab.server.kill9()
    live(bob, "reconnecting")
    option(bob, "Pizza").click()
    lab.server.start()
    for person in (alice, bob):
        live(person, timeout=40_000)
        shows(person, Thai=1, Pizza=1)


def test_five_people_vote(lab: Lab) -> None:
    people = [enter(lab, user, "five", asks=user == "alice") for user in ("alice", "bob", "carol", "dave", "eve")]
    for person, choice in zip(people, ["Thai", "Thai", "Pizza", "Salad bar", "Thai"], strict=True):
        option(person, choice).click()
    for person in people:
        shows(person, Thai=3, Pizza=1, Salad=1)
        assert person.eval("poll.results") == "{'Thai': 3, 'Pizza': 1, 'Salad bar': 1}"
    pictures(people[0], "poll")


def test_markup_in_a_question_is_text(lab: Lab) -> None:
    alice = enter(lab, "alice", "markup")
    alice.eval(
        "1", before="poll.ask('<img src=x onerror=window.pwned=1>', ['<b>a</b>', '<script>window.pwned=1</script>'])"
    )
    expect(face(alice).locator(".ebus-question")).to_have_text("<img src=x onerror=window.pwned=1>")
    expect(face(alice).locator(".ebus-label")).to_have_text(["<b>a</b>", "<script>window.pwned=1</script>"])
    assert face(alice).locator("img, script, b").count() == 0
