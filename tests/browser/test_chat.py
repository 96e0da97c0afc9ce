"""A chat between people with a notebook and a kernel each."""

from __future__ import annotations

from playwright.sync_api import expect

from .lab import Lab, Person
from .stage import screenshots, send_chat, show_widget, view, wait_status


def enter(lab: Lab, user: str, room: str) -> Person:
    return show_widget(lab, user, f"room = ebus.widgets.Chat('{room}', title='Lobby')\nroom", room)


def expect_chat(person: Person, *texts: str) -> None:
    expect(view(person).locator(".ebus-said")).to_have_text(list(texts))


def test_late_joiner_reads_the_conversation(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "lobby"), enter(lab, "bob", "lobby")
    send_chat(alice, "Shall we begin?")
    expect_chat(bob, "Shall we begin?")
    expect(view(bob).locator(".ebus-name")).to_have_text(["Alice"])
    send_chat(bob, "Yes.")
    expect_chat(alice, "Shall we begin?", "Yes.")

    carol = enter(lab, "carol", "lobby")
    expect_chat(carol, "Shall we begin?", "Yes.")
    expect(view(carol).locator(".ebus-name")).to_have_text(["Alice", "Bob"])

    # A program writes as its kernel, under the name of the user who started it.
    carol.wait_eval("[m.sender.name for m in room.history()]", "['Alice', 'Bob']")
    carol.eval("1", before="room.say('From my program.').result(30)")
    expect_chat(alice, "Shall we begin?", "Yes.", "From my program.")
    expect(view(alice).locator(".ebus-kind")).to_have_text(["kernel"])


def type_until_shown(writer: Person, reader: Person) -> None:
    """``writer`` types until ``reader`` sees it, which is shown for four seconds after each letter."""
    line, shown = view(writer).get_by_label("Your message"), view(reader).locator(".ebus-typing")

    def types() -> bool:
        line.press_sequentially("w")
        return shown.inner_text() == f"{writer.user.title()} is typing…"

    assert reader.wait_until(types)


def test_typing_is_shown_to_others(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "typing"), enter(lab, "bob", "typing")
    type_until_shown(alice, bob)
    expect(view(alice).locator(".ebus-typing")).to_have_text("")
    view(alice).get_by_label("Your message").press("Enter")
    expect(view(bob).locator(".ebus-typing")).to_have_text("")


def test_pages_chat_while_both_kernels_are_busy(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "busy"), enter(lab, "bob", "busy")
    with alice.busy_kernel(), bob.busy_kernel():
        send_chat(alice, "Mine computes.")
        expect_chat(bob, "Mine computes.")
        send_chat(bob, "Mine too.")
        expect_chat(alice, "Mine computes.", "Mine too.")
        assert alice.kernel_status() == bob.kernel_status() == "busy", "no kernel was needed"


def test_markup_in_a_message_is_shown_as_text(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "hostile"), enter(lab, "bob", "hostile")
    hostile = '<img src=x onerror="window.pwned = 1"><script>window.pwned = 1</script>&lt;b&gt;'
    send_chat(alice, hostile)
    for person in (alice, bob):
        expect_chat(person, hostile)
        assert view(person).locator("img, script").count() == 0
        assert person.page.evaluate("window.pwned") is None


def test_offline_message_arrives_when_the_network_is_back(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "tunnel"), enter(lab, "bob", "tunnel")
    with alice.offline():
        # The page has not noticed yet that the network is gone.
        send_chat(alice, "In the tunnel.")
        expect(view(alice).locator(".ebus-waiting")).to_have_text("In the tunnel.")
        send_chat(bob, "Where are you?")
    expect_chat(bob, "Where are you?", "In the tunnel.")
    expect_chat(alice, "Where are you?", "In the tunnel.")
    expect(view(alice).locator(".ebus-waiting li")).to_have_count(0)


def test_reload_keeps_unsent_messages(lab: Lab) -> None:
    alice = enter(lab, "alice", "reload")
    send_chat(alice, "Before.")
    expect_chat(alice, "Before.")
    view(alice).get_by_label("Your message").fill("Half a sent")
    alice.reload()
    wait_status(alice)
    expect_chat(alice, "Before.")
    expect(view(alice).get_by_label("Your message")).to_have_value("Half a sent")


def test_scrolled_up_reader_is_told_of_new_messages(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "unread"), enter(lab, "bob", "unread")
    bob.eval("1", before="for n in range(40): room.say(f'Line {n}')\nroom.say('Last.').result(30)")
    expect(view(alice).locator(".ebus-said").last).to_have_text("Last.")
    lines = view(alice).get_by_role("log")
    lines.evaluate("(el) => { el.scrollTop = 0 }")
    send_chat(bob, "News!")
    news = view(alice).get_by_role("button", name="1 new")
    news.click()
    expect(news).to_be_hidden()
    expect(view(alice).get_by_text("News!")).to_be_in_viewport()


def test_conversation_survives_a_killed_server(lab: Lab) -> None:
    alice, bob = enter(lab, "alice", "crash"), enter(lab, "bob", "crash")
    send_chat(alice, "One.")
    expect_chat(bob, "One.")
    lab.server.kill9()
    for person in (alice, bob):
        wait_status(person, "reconnecting")
    send_chat(bob, "Two, to nobody yet.")
    lab.server.start()
    for person in (alice, bob):
        wait_status(person)
        expect_chat(person, "One.", "Two, to nobody yet.")


def test_five_people_see_one_order_of_messages(lab: Lab) -> None:
    people = [enter(lab, user, "five") for user in ("alice", "bob", "carol", "dave", "eve")]
    for person in people:
        send_chat(person, f"{person.user} is here")
    said = [f"{person.user} is here" for person in people]
    for person in people:
        expect(view(person).locator(".ebus-said")).to_have_count(5)
    order = view(people[0]).locator(".ebus-said").all_inner_texts()
    assert sorted(order) == sorted(said)
    for person in people:
        expect_chat(person, *order)
    send_chat(people[1], "Has everybody got the data? It is in `measurements.csv`, 12 MB.")
    send_chat(people[2], "Got it, thanks!")
    people[3].eval("1", before="room.say('Training has begun: 20 epochs.').result(30)")
    type_until_shown(people[4], people[0])
    screenshots(people[0], "chat")
