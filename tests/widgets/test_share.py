"""Shared widgets, the kernel's side: notebooks as two sets of widgets in one process, and a page that is played."""

from __future__ import annotations

import asyncio
import datetime
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

import anywidget
import ipywidgets as widgets
import pytest
import traitlets

import ebus_jupyter as ebus
from ebus_jupyter.client.client import Client
from ebus_jupyter.widgets.sharing import share as sharing
from ebus_jupyter.widgets.sharing.share import Share
from tests.client.conftest import Line, line, make_line  # noqa: F401


@pytest.fixture(autouse=True)
def mine(line: Line, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:  # noqa: F811
    """This notebook's client; another notebook is whatever else shares the name."""
    client = line.client("alice", "k1")
    monkeypatch.setattr(sharing, "default_client", lambda: client)
    yield client
    widgets.Widget.close_all()
    assert sharing._shares == {}, "what was closed is shared no more"


def twice(make: Callable[[], Any], name: str = "it", **how: Any) -> tuple[Any, Any]:
    return ebus.share(make(), name, **how), ebus.share(make(), name, **how)


async def until(check: Callable[[], Any]) -> None:
    """The kernel takes what is shared on its loop; let that turn until ``check`` holds."""
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.001)


async def rest(*shared: Any) -> None:
    """Until everything that was written is everywhere, and nothing is left to do."""
    states = [share_of(widget).state for widget in shared]
    while True:
        for state in states:
            await asyncio.to_thread(state.flush)
        last = max(state.bus.last for state in states)
        await asyncio.to_thread(states[0].bus.client.buses)  # the broker has answered: what it sent before is here
        for _ in range(3):
            await asyncio.sleep(0)
        if all(not state._replica.busy and state.bus.last == last for state in states):
            return


def share_of(widget: widgets.Widget) -> Share:
    return sharing._shares[widget.model_id][0]


class Page:
    """What a page does with one widget: says that it hears the bus, and sends what a person does by the widget's comm."""

    def __init__(self, widget: widgets.Widget, root: widgets.Widget | None = None) -> None:
        self.widget = widget
        self.share = share_of(root or widget)
        self.told: list[dict[str, Any]] = []
        self.fits: list[dict[str, Any]] = []
        widget.comm.send = self._hears  # type: ignore[method-assign]
        assert self.share._handle is not None
        self.share._handle.comm.send = self._hears_of_handle

    def _hears(self, data: Any = None, **_: Any) -> None:
        if data and data.get("method") == "update":
            self.told.append(data["state"])

    def _hears_of_handle(self, data: Any = None, **_: Any) -> None:
        if data and data.get("method") == "custom":
            self.fits.append(data["content"])

    def goes_live(self) -> None:
        assert self.share._handle is not None
        self.share._handle._handle_custom_msg({"ebus": "live", "targets": [self.widget.model_id]}, [])

    def loses_the_bus(self) -> None:
        assert self.share._handle is not None
        self.share._handle._handle_custom_msg({"ebus": "status", "status": "closed"}, [])

    def sends(self, **state: Any) -> None:
        """By comm."""
        data = {"method": "update", "state": state, "buffer_paths": []}
        self.widget._handle_msg({"content": {"data": data}, "buffers": []})

    def writes(self, key: str, value: Any) -> None:
        """On the bus."""
        self.share.state.bus.write(value, key=key).result(5)


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
async def test_every_control_says_the_same_everywhere(
    make: Callable[[], widgets.Widget], trait: str, value: Any
) -> None:
    one, other = twice(make)
    assert getattr(one, trait) != value
    setattr(one, trait, value)
    await until(lambda: getattr(other, trait) == value)
    late = ebus.share(make(), "it")
    assert getattr(late, trait) == value, "at once"
    await rest(one, other, late)
    assert getattr(one, trait) == getattr(other, trait) == value


@pytest.mark.asyncio
async def test_widgets_keep_their_looks_to_themselves() -> None:
    one, other = (
        ebus.share(widgets.IntSlider(description=who, layout={"width": width}, max=100), "speed")
        for who, width in [("mine", "10px"), ("theirs", "90%")]
    )
    one.value = 5
    await until(lambda: other.value == 5)
    assert [one.description, other.description] == ["mine", "theirs"]
    assert [one.layout.width, other.layout.width] == ["10px", "90%"]


def panel() -> Any:
    return widgets.Tab(
        [widgets.IntSlider(), widgets.VBox([widgets.Text(), widgets.Dropdown(options=["a", "b"]), widgets.Button()])]
    )


@pytest.mark.asyncio
async def test_a_container_is_shared_with_all_that_is_in_it() -> None:
    one, other = twice(panel)
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
async def test_what_comes_into_a_container_is_shared_and_what_leaves_it_is_not() -> None:
    one, other = twice(lambda: widgets.HBox([widgets.IntText()]))
    gone = one.children[0]
    for box in (one, other):
        box.children = [widgets.Text(), widgets.IntSlider()]
    one.children[1].value = 8
    await until(lambda: other.children[1].value == 8)
    gone.value = 3
    await rest(one, other)
    assert other.children[0].value == ""
    assert "set_state" not in vars(gone), "it is as it was before"


@pytest.mark.asyncio
async def test_two_who_add_to_a_container_take_what_the_first_has() -> None:
    one, other = twice(widgets.HBox)
    one.children = [widgets.IntText(3)]
    other.children = [widgets.IntText(4)]
    await until(lambda: one.children[0].value == other.children[0].value)
    assert one.children[0].value == 3


@pytest.mark.asyncio
async def test_traits_names_just_what_is_shared_and_exclude_what_is_not() -> None:
    one, other = twice(panel, traits=["children/0", "children/1/children/*"], exclude=["children/1/children/1"])
    assert share_of(one).traits == ["children/0/value", "children/1/children/0/value"]
    one.selected_index = 1
    one.children[0].value = 6
    await until(lambda: other.children[0].value == 6)
    assert other.selected_index == 0

    slider = ebus.share(widgets.IntSlider(), "ranged", traits=["value", "max"])
    wider = ebus.share(widgets.IntSlider(), "ranged", traits=["value", "max"])
    slider.max, slider.value = 500, 400
    await until(lambda: (wider.max, wider.value) == (500, 400))


def test_what_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"Dropdown has no trait 'value' to share.*index"):
        ebus.share(widgets.Dropdown(options=["a"]), "it", traits=["value"])
    with pytest.raises(ValueError, match=r"Button has nothing that is shared by itself.*description"):
        ebus.share(widgets.Button(), "it")
    with pytest.raises(ValueError, match="IntSlider has no trait 'layout' to share"):
        ebus.share(widgets.IntSlider(), "it", traits=["layout"])


@pytest.mark.asyncio
async def test_an_anywidget_shares_all_that_it_says() -> None:
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

    one, other = twice(lambda: Drawing(brush=Inner()))
    assert share_of(one).traits == ["brush/level", "options", "pixels", "strokes"]
    one.strokes = [{"points": [[0, 1.5], [float("nan"), 2]], "color": None}]
    one.pixels, one.options, one.brush.level = bytes(range(256)), {"a": {"b": (1, True)}}, 4
    await until(lambda: other.strokes and other.pixels == bytes(range(256)) and other.brush.level == 4)
    await until(lambda: other.options == {"a": {"b": [1, True]}})
    settled = share_of(one).state.bus.last
    await rest(one, other)
    assert share_of(one).state.bus.last == settled, "NaN is NaN, and a tuple a list: nothing is written again"


# --- pages ----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_page_that_hears_the_bus_is_told_nothing_by_comm_and_believed_nothing() -> None:
    slider, other = twice(lambda: widgets.IntSlider(max=1000))
    page = Page(slider)
    slider.value = 1
    assert page.told == [{"value": 1}], "as ever, before it is live"
    page.goes_live()
    slider.value = 2
    slider.description = "not shared"
    await until(lambda: other.value == 2)
    assert page.told == [{"value": 1}, {"description": "not shared"}]

    page.writes("value", 60)
    page.sends(value=55, disabled=True)  # late
    await until(lambda: slider.value == other.value == 60)
    assert slider.disabled

    page.loses_the_bus()
    page.sends(value=70)
    await until(lambda: slider.value == other.value == 70)


@pytest.mark.asyncio
async def test_a_page_that_asks_for_everything_gets_everything() -> None:
    slider = ebus.share(widgets.IntSlider(3), "it")
    page = Page(slider)
    page.goes_live()
    slider._handle_msg({"content": {"data": {"method": "request_state"}}})
    assert page.told[0]["value"] == 3


@pytest.mark.asyncio
async def test_what_a_page_sent_before_it_was_live_does_not_undo_what_came_after() -> None:
    slider, other = twice(widgets.IntSlider)
    page = Page(slider)
    page.writes("value", 50)  # it is live, and says so; but this kernel was busy, and hears the old things first
    page.sends(value=20)
    page.goes_live()
    await rest(slider, other)
    assert slider.value == other.value == 50


@pytest.mark.asyncio
async def test_a_validator_holds_for_its_own_page() -> None:
    class Even(anywidget.AnyWidget):
        _esm = "export default {}"
        value = traitlets.Int(0).tag(sync=True)

        @traitlets.validate("value")
        def _even(self, proposal: Any) -> int:
            return int(proposal["value"]) // 2 * 2

    for order in ("comm first", "bus first"):
        one, other = twice(Even, order.replace(" ", "-"))
        page = Page(one)
        page.goes_live()
        if order == "comm first":
            page.sends(value=7)
        page.writes("value", 7)
        await rest(one)
        if order == "bus first":
            page.sends(value=7)
        await until(lambda: share_of(one).state["value"] == 6)  # noqa: B023
        await rest(one, other)
        assert one.value == other.value == 6


@pytest.mark.asyncio
async def test_widgets_that_disagree_on_what_fits_come_to_rest(caplog: pytest.LogCaptureFixture) -> None:
    wide = ebus.share(widgets.IntSlider(max=1000), "speed")
    low, high = ebus.share(widgets.IntSlider(max=50), "speed"), ebus.share(widgets.IntSlider(min=60, value=60), "speed")
    page = Page(low)
    page.goes_live()
    with caplog.at_level(logging.WARNING):
        for value in range(500, 520):
            wide.value = value
        await rest(wide, low, high)
    assert [wide.value, low.value, high.value] == [519, 50, 100]
    assert share_of(wide).state["value"] == 519
    assert len([r for r in caplog.records if "does not fit" in r.message]) == 2, (
        "said once by each that it does not fit"
    )
    assert page.fits[-1] == {"ebus": "fit", "target": low.model_id, "trait": "value", "of": 519, "value": 50}
    wide.value = 30
    await until(lambda: low.value == 30)


@pytest.mark.asyncio
async def test_options_that_another_has_not_are_said_once_and_all_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    many = ebus.share(widgets.Dropdown(options="abcdef"), "letter")
    few = ebus.share(widgets.Dropdown(options="ab", value="b"), "letter")
    many.value = "f"
    await until(lambda: "does not fit" in caplog.text)
    assert few.value == "a"
    many.value = "b"
    await until(lambda: few.value == "b")


@pytest.mark.asyncio
async def test_observers_that_answer_each_other_come_to_rest() -> None:
    def rounded() -> Any:
        slider = widgets.FloatSlider(max=100)
        slider.observe(lambda change: setattr(slider, "value", round(change["new"], 1)), "value")
        return slider

    one, other = twice(rounded)
    one.value = 12.3456
    await until(lambda: other.value == 12.3)
    await rest(one, other)
    assert one.value == other.value == share_of(one).state["value"] == 12.3


@pytest.mark.asyncio
async def test_who_only_reads_follows_and_snaps_back(caplog: pytest.LogCaptureFixture) -> None:
    early = ebus.share(widgets.IntSlider(5), "it", read_only=True)
    assert early.value == 5
    assert len(share_of(early).state) == 0, "it does not begin"
    one = ebus.share(widgets.IntSlider(1), "it")
    await until(lambda: early.value == 1)
    page = Page(early)
    page.sends(value=44)
    assert page.told == [{"value": 1}]
    page.goes_live()
    page.sends(value=45)
    early.value = 46
    assert early.value == 1
    assert "read_only" in caplog.text
    await rest(one, early)
    assert share_of(one).state["value"] == one.value == 1


# --- lives ----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_unshare_gives_the_widget_back() -> None:
    one, other = twice(panel)
    child = one.children[0]
    assert ebus.unshare(child) is child
    child.value = 3
    one.children[1].children[0].value = "still"
    await until(lambda: other.children[1].children[0].value == "still")
    assert other.children[0].value == 0
    assert ebus.unshare(ebus.unshare(one)) is one
    one.selected_index = 1
    await rest(other)
    assert other.selected_index == 0
    assert not {"set_state", "send_state"} & set(vars(one)) and not sharing.slots_of(one)


@pytest.mark.asyncio
async def test_shared_again_it_is_shared_under_the_new_name_only() -> None:
    one, other = twice(widgets.IntText, "first")
    ebus.share(one, "second")
    one.value = 3
    new = ebus.share(widgets.IntText(), "second")
    assert new.value == 3
    await rest(one)
    assert other.value == 0


@pytest.mark.asyncio
async def test_who_shares_a_widget_by_itself_means_it() -> None:
    slider = widgets.IntSlider()
    box = ebus.share(widgets.VBox([slider, widgets.Text()]), "box")
    ebus.share(slider, "slider")
    assert share_of(box).traits == ["children/1/value"]
    slider.value = 4
    assert ebus.share(widgets.IntSlider(), "slider").value == 4


@pytest.mark.asyncio
async def test_a_cell_run_again_and_again_leaves_nothing_behind(mine: Client) -> None:
    first = ebus.share(widgets.IntSlider(), "again")
    threads, alive = threading.active_count(), len(widgets.widget._instances)
    holders = share_of(first).state.bus.topic.holders
    for _ in range(20):
        slider = ebus.share(widgets.IntSlider(), "again")
        slider.layout.close()
        slider.style.close()
        slider.close()
    assert threading.active_count() == threads
    assert len(widgets.widget._instances) == alive
    assert share_of(first).state.bus.topic.holders == holders


@pytest.mark.asyncio
async def test_a_widget_that_is_gone_is_shared_no_more() -> None:
    slider = ebus.share(widgets.IntSlider(), "gone")
    state = share_of(slider).state
    widgets.widget._instances.pop(slider.model_id)
    gone, slider.comm._msg_callback = ref(slider), None
    slider.comm.on_msg(None)
    del slider
    gc.collect()
    assert gone() is None, "a share holds no widget"
    await until(lambda: state.bus.status == "closed")


@pytest.mark.asyncio
async def test_a_link_ties_one_trait_to_one_entry(mine: Client) -> None:
    dash = mine.state("dash")
    dash["speed"] = 30
    slider = widgets.IntSlider()
    assert ebus.link((slider, "value"), dash, "speed") is slider
    ebus.link((slider, "max"), dash, "limit")
    assert slider.value == 30
    assert dash["limit"] == 100
    slider.value = 40
    await until(lambda: dash["speed"] == 40)
    dash["limit"] = 60
    await until(lambda: slider.max == 60)
    ebus.unshare(slider)
    slider.value = 50
    dash["speed"] = 20
    await asyncio.to_thread(dash.flush)
    assert (slider.value, dash["speed"]) == (50, 20)
    with pytest.raises(ValueError, match="no trait 'speed'"):
        ebus.link((slider, "speed"), dash, "speed")
    with pytest.raises(ValueError, match="holds other widgets"):
        ebus.link((widgets.VBox(), "children"), dash, "speed")


@pytest.mark.asyncio
async def test_a_conflict_ends_the_same_everywhere() -> None:
    sliders = [ebus.share(widgets.IntSlider(max=1000), "conflict") for _ in range(5)]
    for n in range(30):
        for who, slider in enumerate(sliders):
            slider.value = n * 10 + who
    await rest(*sliders)
    assert len({slider.value for slider in sliders}) == 1
    assert sliders[0].value == share_of(sliders[0]).state["value"]


@pytest.mark.asyncio
async def test_a_kernel_that_was_busy_takes_the_newest_only(line: Line) -> None:  # noqa: F811
    slider = ebus.share(widgets.IntSlider(max=1000), "busy")
    heard: list[int] = []
    slider.observe(lambda change: heard.append(change["new"]), "value")
    theirs = line.client("bob", "k2").state("busy")
    for value in range(1, 200):  # the loop does not turn meanwhile: as in a long cell
        theirs["value"] = value
    theirs.flush()
    await until(lambda: slider.value == 199)
    assert len(heard) <= 3, "a backlog is not played back"


@pytest.mark.asyncio
async def test_a_lost_line_loses_nothing(line: Line) -> None:  # noqa: F811
    slider = ebus.share(widgets.IntSlider(max=1000), "line")
    theirs = line.client("bob", "k2").state("line")
    line.cut()
    slider.value = 77
    line.mend()
    await until(lambda: theirs.get("value") == 77)


@pytest.mark.asyncio
async def test_what_can_t_travel_is_said_and_stays_here(caplog: pytest.LogCaptureFixture) -> None:
    class Loose(anywidget.AnyWidget):
        _esm = "export default {}"
        anything = traitlets.Any(None, allow_none=True).tag(sync=True)

    one, other = twice(Loose)
    one.anything = 2**70
    assert "is not shared" in caplog.text
    one.anything = "fine"
    await until(lambda: other.anything == "fine")


# --- widgets of other libraries -------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_map_shares_where_it_looks_and_its_layers_but_not_its_size() -> None:
    leaflet = pytest.importorskip("ipyleaflet")
    one, other = twice(lambda: leaflet.Map(center=(50, 8), layers=[leaflet.Marker(location=(50, 8))]))
    assert not {"north", "bounds", "options", "right"} & set(share_of(one).traits)
    one.zoom, one.layers[0].location = 7, (51, 9)
    await until(lambda: other.zoom == 7 and other.layers[0].location == [51, 9])


@pytest.mark.asyncio
async def test_a_plot_shares_its_arrays_as_bytes() -> None:
    bqplot, np = pytest.importorskip("bqplot"), pytest.importorskip("numpy")

    def figure() -> Any:
        scales = {"x": bqplot.LinearScale(), "y": bqplot.LinearScale()}
        return bqplot.Figure(marks=[bqplot.Lines(x=np.arange(3.0), y=np.zeros(3), scales=scales)])

    one, other = twice(figure)
    one.marks[0].y = np.array([5.0, np.nan, 6.0])
    one.marks[0].scales["x"].max = 9.0
    await until(lambda: np.array_equal(other.marks[0].y, [5.0, np.nan, 6.0], equal_nan=True))
    await until(lambda: other.marks[0].scales["x"].max == 9.0)
    assert isinstance(share_of(one).state["marks/0/y"]["value"], bytes)
    settled = share_of(one).state.bus.last
    await rest(one, other)
    assert share_of(one).state.bus.last == settled


@pytest.mark.asyncio
async def test_a_grid_shares_its_cells_and_what_is_selected() -> None:
    grids, pandas = pytest.importorskip("ipydatagrid"), pytest.importorskip("pandas")
    one, other = twice(lambda: grids.DataGrid(pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]}), editable=True))
    edit = {"event_type": "cell-changed", "row": 1, "column_index": 0, "value": 9}
    one._handle_custom_msg(edit, [])  # by a person, in a page
    one.select(0, 0, 1, 1)  # changes a list in place
    await until(lambda: other.data["a"].tolist() == [1, 9] and other.selections)


@pytest.mark.asyncio
async def test_a_plotly_figure_shares_its_traces_and_where_it_looks() -> None:
    go = pytest.importorskip("plotly.graph_objects")
    one, other = twice(lambda: go.FigureWidget(go.Scatter(y=[1, 2, 3])))
    one.layout.title, one.data[0].y = "shared", [3, 2, 1]
    await until(lambda: other.layout.title.text == "shared" and other.data[0].y == (3, 2, 1))
    zoom = {"xaxis.range[0]": 0.5, "xaxis.range[1]": 1.5}
    other._js2py_relayout = {"relayout_data": zoom, "source_view_id": "a page"}
    await until(lambda: one.layout.xaxis.range == (0.5, 1.5))
    settled = share_of(one).state.bus.last
    await rest(one, other)
    assert share_of(one).state.bus.last == settled
