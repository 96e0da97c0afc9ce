"""Which traits of a widget are shared, and how their values travel."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import anywidget
import ipywidgets as widgets
import pytest
import traitlets

import ebus_jupyter as ebus

from .notebook import panel, settled, share_of, share_twice, until

CONTROLS: list[tuple[Callable[[], widgets.Widget], str, Any]] = [
    (widgets.IntSlider, "value", 7),
    (lambda: widgets.FloatSlider(max=100), "value", 0.1 + 0.2),
    (lambda: widgets.FloatLogSlider(), "value", 100.0),
    (lambda: widgets.IntRangeSlider(), "value", (3, 9)),
    (lambda: widgets.FloatRangeSlider(), "value", (3.5, 9.0)),
    (widgets.BoundedIntText, "value", 12),
    (widgets.FloatText, "value", -2.5),
    (widgets.Text, "value", "größer"),
    (widgets.Textarea, "value", "two\nlines"),
    (widgets.Password, "value", "xyz"),
    (lambda: widgets.Combobox(options=["a", "b"]), "value", "b"),
    (widgets.Checkbox, "value", True),
    (widgets.ToggleButton, "value", True),
    (widgets.Valid, "value", True),
    (widgets.IntProgress, "value", 40),
    (widgets.DatePicker, "value", datetime.date(2024, 2, 29)),
    (widgets.TimePicker, "value", datetime.time(12, 30, 1)),
    (widgets.NaiveDatetimePicker, "value", datetime.datetime(2024, 2, 29, 12, 30)),
    (widgets.DatetimePicker, "value", datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)),
    (widgets.ColorPicker, "value", "#123456"),
    (widgets.Play, "value", 17),
    (lambda: widgets.Dropdown(options=["a", "b", "c"]), "value", "c"),
    (lambda: widgets.RadioButtons(options={"one": 1, "two": 2}), "value", 2),
    (lambda: widgets.Select(options=["a", "b", "c"]), "index", 2),
    (lambda: widgets.ToggleButtons(options=["a", "b", "c"]), "value", "b"),
    (lambda: widgets.SelectionSlider(options=["a", "b", "c"]), "value", "b"),
    (lambda: widgets.SelectionRangeSlider(options=["a", "b", "c"]), "value", ("b", "c")),
    (lambda: widgets.SelectMultiple(options=["a", "b", "c"]), "value", ("a", "c")),
    (lambda: widgets.TagsInput(allowed_tags=["x", "y"]), "value", ["y"]),
    (lambda: widgets.Tab([widgets.VBox(), widgets.VBox()]), "selected_index", 1),
    (lambda: widgets.Accordion([widgets.VBox(), widgets.VBox()]), "selected_index", 1),
    (lambda: widgets.Stack([widgets.VBox(), widgets.VBox()]), "selected_index", 1),
    (lambda: widgets.Image(value=b"png"), "value", b"\x00\xff binary"),
]


@pytest.mark.parametrize(
    ("make", "trait", "value"), CONTROLS, ids=[f"{type(make()).__name__}" for make, _, _ in CONTROLS]
)
@pytest.mark.asyncio
async def test_each_control_shares_its_value(make: Callable[[], widgets.Widget], trait: str, value: Any) -> None:
    one, other = share_twice(make)
    assert getattr(one, trait) != value
    setattr(one, trait, value)
    await until(lambda: getattr(other, trait) == value)
    late = ebus.share(make(), "it")
    assert getattr(late, trait) == value, "a late joiner has the value at once"
    await settled(one, other, late)
    assert getattr(one, trait) == getattr(other, trait) == value


@pytest.mark.asyncio
async def test_look_is_not_shared() -> None:
    one, other = (
        ebus.share(widgets.IntSlider(description=who, layout={"width": width}, max=100), "speed")
        for who, width in [("mine", "10px"), ("theirs", "90%")]
    )
    one.value = 5
    await until(lambda: other.value == 5)
    assert [one.description, other.description] == ["mine", "theirs"]
    assert [one.layout.width, other.layout.width] == ["10px", "90%"]


@pytest.mark.asyncio
async def test_container_shares_the_widgets_inside_it() -> None:
    one, other = share_twice(panel)
    assert share_of(one).traits == [
        "children/0/value",
        "children/1/children/0/value",
        "children/1/children/1/index",
        "selected_index",
    ]
    one.children[0].value = 9
    one.children[1].children[0].value = "hello"
    other.children[1].children[1].value = "b"
    other.selected_index = 1
    await until(lambda: other.children[0].value == 9 and other.children[1].children[0].value == "hello")
    await until(lambda: one.children[1].children[1].value == "b" and one.selected_index == 1)


@pytest.mark.asyncio
async def test_traits_and_exclude_select_what_is_shared() -> None:
    one, other = share_twice(panel, traits=["children/0", "children/1/children/*"], exclude=["children/1/children/1"])
    assert share_of(one).traits == ["children/0/value", "children/1/children/0/value"]
    one.selected_index = 1
    one.children[0].value = 6
    await until(lambda: other.children[0].value == 6)
    assert other.selected_index == 0

    slider = ebus.share(widgets.IntSlider(), "ranged", traits=["value", "max"])
    wider = ebus.share(widgets.IntSlider(), "ranged", traits=["value", "max"])
    slider.max, slider.value = 500, 400
    await until(lambda: (wider.max, wider.value) == (500, 400))


def test_missing_trait_is_refused_with_the_existing_ones() -> None:
    with pytest.raises(ValueError, match=r"Dropdown has no trait 'value' to share.*index"):
        ebus.share(widgets.Dropdown(options=["a"]), "it", traits=["value"])
    with pytest.raises(ValueError, match=r"Button has nothing that is shared by default.*description"):
        ebus.share(widgets.Button(), "it")
    with pytest.raises(ValueError, match="IntSlider has no trait 'layout' to share"):
        ebus.share(widgets.IntSlider(), "it", traits=["layout"])


@pytest.mark.asyncio
async def test_anywidget_shares_all_public_synced_traits() -> None:
    class Inner(anywidget.AnyWidget):
        _esm = "export default {}"
        level = traitlets.Int(0).tag(sync=True)

    class Drawing(anywidget.AnyWidget):
        _esm = "export default {}"
        strokes = traitlets.List().tag(sync=True)
        pixels = traitlets.Bytes(b"").tag(sync=True)
        options = traitlets.Dict().tag(sync=True)
        brush = anywidget.WidgetTrait().tag(sync=True)
        _secret = traitlets.Int(0).tag(sync=True)
        here = traitlets.Int(0)

    one, other = share_twice(lambda: Drawing(brush=Inner()))
    assert share_of(one).traits == ["brush/level", "options", "pixels", "strokes"]
    one.strokes = [{"points": [[0, 1.5], [float("nan"), 2]], "color": None}]
    one.pixels, one.options, one.brush.level = bytes(range(256)), {"a": {"b": (1, True)}}, 4
    await until(lambda: other.strokes and other.pixels == bytes(range(256)) and other.brush.level == 4)
    await until(lambda: other.options == {"a": {"b": [1, True]}})
    last = share_of(one).state.bus.last
    await settled(one, other)
    assert share_of(one).state.bus.last == last, "NaN equals NaN and a tuple equals a list: nothing is written twice"
