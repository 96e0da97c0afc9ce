"""The harness itself: two people, a plain widget, no bus."""

from __future__ import annotations

from .lab import Lab, write_notebook


def test_a_person_drags_a_plain_slider_and_the_kernel_has_the_value(lab: Lab) -> None:
    plain = write_notebook(lab.server, "plain.ipynb", "import ipywidgets\nslider = ipywidgets.IntSlider()\nslider")
    alice = lab.person("alice").open(plain)
    alice.run_all()
    shown = alice.slider().drag_to(0.5)
    assert int(shown) > 30
    assert alice.eval("slider.value") == shown


def test_two_people_are_two_users(lab: Lab) -> None:
    for name in ("alice", "bob"):
        person = lab.person(name)
        person.page.goto(f"{lab.server.url}api/me?token={lab.server.token(name)}")
        assert f'"username": "{name}"' in person.page.inner_text("body")
