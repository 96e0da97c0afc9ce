"""The harness itself, without a bus."""

from __future__ import annotations

from .lab import Lab, write_notebook


def test_dragging_a_plain_slider_reaches_the_kernel(lab: Lab) -> None:
    plain = write_notebook(lab.server, "plain.ipynb", "import ipywidgets\nslider = ipywidgets.IntSlider()\nslider")
    alice = lab.person("alice").open(plain)
    alice.run_all()
    shown = alice.slider().drag_to(0.5)
    assert int(shown) > 30
    alice.wait_eval("slider.value", shown)


def test_running_one_cell_shows_its_output(lab: Lab) -> None:
    alice = lab.person("alice").open(write_notebook(lab.server, "cells.ipynb", "print('first')", "print('second')"))
    alice.run_cell(1)
    assert alice.output(1).inner_text().strip() == "second"
    assert alice.output(0).count() == 0


def test_reload_keeps_the_notebook_kernel_and_theme(lab: Lab) -> None:
    alice = lab.person("alice").open(write_notebook(lab.server, "again.ipynb", "mood = 'bright'"))
    alice.run_all()
    alice.theme("JupyterLab Dark")
    alice.reload()
    assert alice.page.locator("body").get_attribute("data-jp-theme-light") == "false"
    assert alice.eval("mood") == "'bright'", "the kernel was not restarted"
    alice.theme("JupyterLab Light")


def test_two_people_are_two_users(lab: Lab) -> None:
    for name in ("alice", "bob"):
        person = lab.person(name).goto("api/me")
        assert f'"username": "{name}"' in person.page.inner_text("body")
