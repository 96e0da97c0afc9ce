"""Two people, one slider: each has a notebook and a kernel of their own, and both have the same value."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Browser

from tests.server.harness import Server

from .lab import Lab, Person, write_notebook


def shared_slider(server: Server, who: str, name: str) -> str:
    return write_notebook(
        server,
        f"{name}-{who}.ipynb",
        "%load_ext ebus_jupyter\nimport ipywidgets as widgets",
        f'speed = ebus.share(widgets.FloatSlider(description="Speed", max=100), "{name}")\nspeed',
    )


def with_slider(lab: Lab, user: str, name: str) -> Person:
    person = lab.person(user).open(shared_slider(lab.server, user, name))
    person.run_all()
    person.slider().handle.wait_for()
    return person


def kernel_has(person: Person, value: str, expression: str = "speed.value") -> None:
    """The kernel takes the value between two cells; so it has it when the next one runs, or the one after."""
    for _ in range(20):
        if round(float(person.eval(expression)), 2) == float(value):
            return
        person.page.wait_for_timeout(50)
    raise AssertionError(f"{person.user}'s kernel has {person.eval(expression)}, not {value}")


def test_one_drags_and_the_other_s_slider_page_and_kernel_have_the_value(lab: Lab) -> None:
    alice, bob = with_slider(lab, "alice", "speed"), with_slider(lab, "bob", "speed")
    shown = alice.slider().drag_to(0.6)
    assert float(shown) > 40
    bob.slider().shows_soon(shown)
    kernel_has(bob, shown)
    kernel_has(alice, shown)

    back = bob.slider().drag_to(0.2)
    alice.slider().shows_soon(back)
    kernel_has(alice, back)


def test_who_comes_late_sees_the_current_value_at_once_and_a_reload_keeps_it(lab: Lab) -> None:
    alice = with_slider(lab, "alice", "late")
    shown = alice.slider().drag_to(0.7)
    carol = with_slider(lab, "carol", "late")
    assert carol.slider().shows() == shown, "at once: what it shows first is what everybody has"
    kernel_has(carol, shown)

    carol.reload()
    carol.slider().shows_soon(shown, timeout=15_000)
    moved = alice.slider().drag_to(0.3)
    carol.slider().shows_soon(moved)


def test_pages_follow_each_other_while_both_kernels_are_busy(lab: Lab) -> None:
    alice, bob = with_slider(lab, "alice", "busy"), with_slider(lab, "bob", "busy")
    first = alice.slider().drag_to(0.4)
    bob.slider().shows_soon(first)
    for person in (alice, bob):
        person.keep_busy(8)
    for person in (alice, bob):
        person.page.wait_for_function(
            "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'busy'"
        )

    shown = alice.slider().drag_to(0.8)
    bob.slider().shows_soon(shown)
    back = bob.slider().drag_to(0.1)
    alice.slider().shows_soon(back)
    assert alice.kernel_status() == bob.kernel_status() == "busy", "all of that while the cells ran"

    # And what the comms bring late, when the kernels come to it, changes nothing.
    kernel_has(alice, back)
    kernel_has(bob, back)
    assert alice.slider().shows() == bob.slider().shows() == back


def test_what_the_program_sets_everyone_sees(lab: Lab) -> None:
    alice, bob = with_slider(lab, "alice", "program"), with_slider(lab, "bob", "program")
    alice.eval("speed.value", before="speed.value = 12.5")
    for person in (alice, bob):
        person.slider().shows_soon("12.50")
    kernel_has(bob, "12.5")


def test_a_page_holds_one_socket_however_many_widgets_it_shows(lab: Lab) -> None:
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
    shown = alice.slider(3).drag_to(0.5)
    bob.slider().shows_soon(shown)
    assert alice.bus_sockets == 1


def test_a_killed_server_comes_back_with_the_value_and_both_pages_go_on(
    make_server: Callable[..., Server], browser: Browser
) -> None:
    lab = Lab(make_server("alice", "bob"), browser)
    alice, bob = with_slider(lab, "alice", "kept"), with_slider(lab, "bob", "kept")
    shown = alice.slider().drag_to(0.6)
    bob.slider().shows_soon(shown)
    lab.server.kill9()
    lab.server.start()
    for person in (alice, bob):  # JupyterLab complains of what it has lost; the slider is still there behind that
        person.page.wait_for_function(f"document.querySelector('.widget-readout').textContent === '{shown}'")
    # The kernels went with the server. The pages have each other, by the keyboard as well.
    alice.dismiss_dialogs()
    alice.slider().handle.press("ArrowRight", timeout=15_000)
    moved = alice.slider().shows()
    assert moved != shown
    bob.slider().shows_soon(moved, timeout=20_000)

    late = with_slider(lab, "alice", "kept")
    assert late.slider().shows() == moved, "and a new kernel finds it"
    lab.close()
