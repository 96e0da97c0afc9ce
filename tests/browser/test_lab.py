"""The harness itself: two people, a plain widget, no bus."""

from __future__ import annotations

from .lab import Lab, write_notebook


def test_a_person_drags_a_plain_slider_and_the_kernel_has_the_value(lab: Lab) -> None:
    plain = write_notebook(lab.server, "plain.ipynb", "import ipywidgets\nslider = ipywidgets.IntSlider()\nslider")
    alice = lab.person("alice").open(plain)
    alice.run_all()
    shown = alice.slider().drag_to(0.5)
    assert int(shown) > 30
    alice.eval_soon("slider.value", shown)


def test_a_person_runs_one_cell_and_reads_what_it_shows(lab: Lab) -> None:
    alice = lab.person("alice").open(write_notebook(lab.server, "cells.ipynb", "print('first')", "print('second')"))
    alice.run_cell(1)
    assert alice.output(1).inner_text().strip() == "second"
    assert alice.output(0).count() == 0


def test_a_notebook_is_there_again_after_a_reload_and_in_the_dark(lab: Lab) -> None:
    alice = lab.person("alice").open(write_notebook(lab.server, "again.ipynb", "mood = 'bright'"))
    alice.run_all()
    alice.theme("JupyterLab Dark")
    alice.reload()
    assert alice.page.locator("body").get_attribute("data-jp-theme-light") == "false"
    assert alice.eval("mood") == "'bright'", "the kernel went on"
    alice.theme("JupyterLab Light")


def test_two_people_are_two_users(lab: Lab) -> None:
    for name in ("alice", "bob"):
        person = lab.person(name)
        person.page.goto(f"{lab.server.url}api/me?token={lab.server.token(name)}")
        assert f'"username": "{name}"' in person.page.inner_text("body")
