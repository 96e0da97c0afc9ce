"""One slider for two people with a notebook and a kernel each."""

from __future__ import annotations

from tests.server.harness import Server

from .lab import Lab, Person, write_notebook


def shared_slider(server: Server, who: str, name: str) -> str:
    return write_notebook(
        server,
        f"{name}-{who}.ipynb",
        "%load_ext ebus_jupyter\nimport ipywidgets as widgets",
        f'speed = ebus.share(widgets.FloatSlider(description="Speed", max=100), "{name}")\nspeed',
    )


def with_slider(lab: Lab, user: str, name: str, *, late: bool = False) -> Person:
    """``user`` with a shared slider; ``late``: as it is first shown, before the page has the bus."""
    person = lab.person(user).open(shared_slider(lab.server, user, name))
    person.run_all()
    person.slider().handle.wait_for()
    if not late:
        person.wait_bound("speed")
    return person


def kernel_has(person: Person, value: str, expression: str = "speed.value") -> None:
    person.wait_eval(f"float(round({expression}, 2))", str(float(value)))


def test_drag_reaches_the_other_page_and_both_kernels(lab: Lab) -> None:
    alice, bob = with_slider(lab, "alice", "speed"), with_slider(lab, "bob", "speed")
    shown = alice.slider().drag_to(0.6)
    assert float(shown) > 40
    bob.slider().expect_text(shown)
    kernel_has(bob, shown)
    kernel_has(alice, shown)

    back = bob.slider().drag_to(0.2)
    alice.slider().expect_text(back)
    kernel_has(alice, back)


def test_late_joiner_and_reload_show_the_current_value(lab: Lab) -> None:
    alice = with_slider(lab, "alice", "late")
    shown = alice.slider().drag_to(0.7)
    carol = with_slider(lab, "carol", "late", late=True)
    assert carol.slider().text() == shown, "the first value shown is the shared one"
    kernel_has(carol, shown)

    carol.reload()
    carol.slider().expect_text(shown)
    moved = alice.slider().drag_to(0.3)
    carol.slider().expect_text(moved)


def test_pages_follow_each_other_while_kernels_are_busy(lab: Lab) -> None:
    alice, bob = with_slider(lab, "alice", "busy"), with_slider(lab, "bob", "busy")
    first = alice.slider().drag_to(0.4)
    bob.slider().expect_text(first)
    with alice.busy_kernel(), bob.busy_kernel():
        shown = alice.slider().drag_to(0.8)
        bob.slider().expect_text(shown)
        back = bob.slider().drag_to(0.1)
        alice.slider().expect_text(back)
        assert alice.kernel_status() == bob.kernel_status() == "busy", "no kernel was needed"

    # The late comm messages, which the kernels handle after their cells, change nothing.
    kernel_has(alice, back)
    kernel_has(bob, back)
    assert alice.slider().text() == bob.slider().text() == back


def test_value_set_by_a_program_reaches_everyone(lab: Lab) -> None:
    alice, bob = with_slider(lab, "alice", "program"), with_slider(lab, "bob", "program")
    alice.eval("speed.value", before="speed.value = 12.5")
    for person in (alice, bob):
        person.slider().expect_text("12.50")
    kernel_has(bob, "12.5")


def test_page_holds_one_socket_for_all_widgets(lab: Lab) -> None:
    five = write_notebook(
        lab.server,
        "five.ipynb",
        "%load_ext ebus_jupyter\nimport ipywidgets as widgets",
        'sliders = [ebus.share(widgets.FloatSlider(max=100), f"five-{n}") for n in range(5)]\nwidgets.VBox(sliders)',
    )
    alice, bob = lab.person("alice").open(five), lab.person("bob").open(shared_slider(lab.server, "bob", "five-3"))
    for person in (alice, bob):
        person.run_all()
    bob.slider().handle.wait_for()
    bob.wait_bound("speed")
    alice.wait_bound("sliders[3]")
    shown = alice.slider(3).drag_to(0.5)
    bob.slider().expect_text(shown)
    assert alice.bus_sockets == 1


def test_value_survives_a_killed_server(lab: Lab) -> None:
    alice, bob = with_slider(lab, "alice", "kept"), with_slider(lab, "bob", "kept")
    shown = alice.slider().drag_to(0.6)
    bob.slider().expect_text(shown)
    lab.server.kill9()
    lab.server.start()
    for person in (alice, bob):
        person.slider().expect_text(shown)
    # The kernels ended with the server. The pages still follow each other, also by the keyboard.
    alice.slider().handle.press("ArrowRight")
    moved = alice.slider().text()
    assert moved != shown
    bob.slider().expect_text(moved)

    late = with_slider(lab, "carol", "kept", late=True)
    assert late.slider().text() == moved, "a new kernel takes the shared value"
