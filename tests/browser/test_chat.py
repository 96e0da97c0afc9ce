"""A chat between people who each have a notebook and a kernel of their own."""

from __future__ import annotations

from playwright.sync_api import expect

from .lab import Lab, Person
from .stage import face, live, pictures, say, show


def enter(lab: Lab, user: str, room: str) -> Person:
    return show(lab, user, f"room = ebus.widgets.Chat('{room}', title='Lobby')\nroom", room)


def hears(person: Person, *texts: str, timeout: float = 10_000) -> None:
    expect(face(person).locator(".ebus-said")).to_have_text(list(texts), timeout=timeout)


def test_two_people_talk_and_a_late_one_reads_what_was_said(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "lobby"), enter(lab, "bob", "lobby")
    say(alice, "Shall we begin?")
    hears(bob, "Shall we begin?")
    expect(face(bob).locator(".ebus-name")).to_have_text(["Alice"])
    say(bob, "Yes.")
    hears(alice, "Shall we begin?", "Yes.")

    carol = enter(lab, "carol", "lobby")
    hears(carol, "Shall we begin?", "Yes.")
    expect(face(carol).locator(".ebus-name")).to_have_text(["Alice", "Bob"])

    # Programs take part: as their kernel, under the name of who started it.
    assert carol.eval("[m.sender.name for m in room.history()]") == "['Alice', 'Bob']"
    carol.eval("1", before="room.say('From my program.').result(5)")
    hears(alice, "Shall we begin?", "Yes.", "From my program.")
    expect(face(alice).locator(".ebus-kind")).to_have_text(["kernel"])


def test_one_sees_that_the_other_is_typing(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "typing"), enter(lab, "bob", "typing")
    face(alice).get_by_label("Your message").press_sequentially("Well")
    expect(face(bob).locator(".ebus-typing")).to_have_text("Alice is typing…")
    expect(face(alice).locator(".ebus-typing")).to_have_text("")
    face(alice).get_by_label("Your message").press("Enter")
    expect(face(bob).locator(".ebus-typing")).to_have_text("")


def test_the_pages_talk_while_both_kernels_are_busy(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "busy"), enter(lab, "bob", "busy")
    for person in (alice, bob):
        person.keep_busy(30)
    say(alice, "Mine computes.")
    hears(bob, "Mine computes.", timeout=5_000)
    say(bob, "Mine too.")
    hears(alice, "Mine computes.", "Mine too.", timeout=5_000)


def test_markup_and_scripts_in_a_message_are_text(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "hostile"), enter(lab, "bob", "hostile")
    hostile = '<img src=x onerror="window.pwned = 1"><script>window.pwned = 1</script>&lt;b&gt;'
    say(alice, hostile)
    for person in (alice, bob):
        hears(person, hostile)
        assert face(person).locator("img, script").count() == 0
        assert person.page.evaluate("window.pwned") is None


def test_what_is_said_without_a_network_arrives_when_it_is_back(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "tunnel"), enter(lab, "bob", "tunnel")
    with alice.offline():
        # The line is cut, and the page has not noticed; what is said now must not get lost.
        say(alice, "In the tunnel.")
        expect(face(alice).locator(".ebus-waiting")).to_have_text("In the tunnel.")
        say(bob, "Where are you?")
    hears(bob, "Where are you?", "In the tunnel.", timeout=40_000)
    hears(alice, "Where are you?", "In the tunnel.", timeout=40_000)
    expect(face(alice).locator(".ebus-waiting li")).to_have_count(0)


def test_a_reload_loses_neither_what_was_said_nor_what_was_about_to_be(lab: Lab) -> None:
    alice = enter(lab, "alice", "reload")
    say(alice, "Before.")
    hears(alice, "Before.")
    face(alice).get_by_label("Your message").fill("Half a sent")
    alice.reload()
    live(alice)
    hears(alice, "Before.")
    expect(face(alice).get_by_label("Your message")).to_have_value("Half a sent")


def test_who_reads_above_is_told_of_what_is_new(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "unread"), enter(lab, "bob", "unread")
    bob.eval("1", before="for n in range(40): room.say(f'Line {n}')\nroom.say('Last.').result(5)")
    expect(face(alice).locator(".ebus-said").last).to_have_text("Last.")
    lines = face(alice).get_by_role("log")
    lines.evaluate("(el) => { el.scrollTop = 0 }")
    say(bob, "News!")
    news = face(alice).get_by_role("button", name="1 new")
    news.click()
    expect(news).to_be_hidden()
    expect(face(alice).get_by_text("News!")).to_be_in_viewport()


def test_the_server_goes_and_comes_back_and_so_does_the_talk(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "crash"), enter(lab, "bob", "crash")
    say(alice, "One.")
    hears(bob, "One.")
    lab.server.kill9()
    for person in (alice, bob):
        live(person, "reconnecting")
    say(bob, "Two, to nobody yet.")
    lab.server.start()
    for person in (alice, bob):
        live(person, timeout=40_000)
        hears(person, "One.", "Two, to nobody yet.", timeout=20_000)


def test_five_people_in_one_room(lab: Lab) -> None:
    people = [enter(lab, user, "five") for user in ("alice", "bob", "carol", "dave", "eve")]
    for person in people:
        say(person, f"{person.user} is here")
    said = [f"{person.user} is here" for person in people]
    for person in people:
        expect(face(person).locator(".ebus-said")).to_have_count(5)
    order = face(people[0]).locator(".ebus-said").all_inner_texts()
    assert sorted(order) == sorted(said)
    for person in people:
        hears(person, *order)
    say(people[1], "Has everybody got the data? It is in `measurements.csv`, 12 MB.")
    say(people[2], "Got it, thanks!")
    people[3].eval("1", before="room.say('Training has begun: 20 epochs.').result(5)")
    face(people[4]).get_by_label("Your message").press_sequentially("Wh")
    expect(face(people[0]).locator(".ebus-typing")).to_have_text("Eve is typing…")
    pictures(people[0], "chat")
