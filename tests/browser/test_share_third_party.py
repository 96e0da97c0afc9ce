"""Widgets of other libraries, with nested and binary state, shared in a real JupyterLab."""

from __future__ import annotations

import importlib
import time

from playwright.sync_api import expect

from .lab import Lab, Person
from .test_share_controls import with_cell

LAST_OFFSET = "shares_of(w)[0].state.bus.last"

QUIET_SECONDS = 1.5
"""Longer than a widget may take to settle into a value that it was shown (`SETTLE` in the page's half of sharing)."""


def expect_quiet(person: Person) -> None:
    """Wait until nobody writes any more: two pages must not answer each other for ever."""
    offset, since = "", 0.0

    def quiet() -> bool:
        nonlocal offset, since
        now = person.eval(LAST_OFFSET, before="from ebus_jupyter.widgets.sharing.share import shares_of")
        if now != offset:
            offset, since = now, time.monotonic()
        return time.monotonic() - since > QUIET_SECONDS

    assert person.wait_until(quiet), "two pages answer each other"


def both(lab: Lab, name: str, cell: str, selector: str) -> tuple[Person, Person]:
    alice, bob = with_cell(lab, "alice", name, cell), with_cell(lab, "bob", name, cell)
    for person in (alice, bob):
        person.output(1).locator(selector).first.wait_for()
        person.wait_bound("w")
    return alice, bob


def test_map_and_markers(lab: Lab) -> None:
    importlib.import_module("ipyleaflet")
    cell = """
import ipyleaflet
marker = ipyleaflet.Marker(location=(50, 8))
w = ipyleaflet.Map(center=(50, 8), zoom=5, basemap=ipyleaflet.TileLayer(url=""), layout={"width": PLACE})
w.add(marker)
ebus.share(w, "NAME")
w
"""
    alice = with_cell(lab, "alice", "map", cell.replace("PLACE", "'700px'"))
    bob = with_cell(
        lab, "bob", "map", cell.replace("PLACE", "'433px'")
    )  # another size, so that the pages round differently
    for person in (alice, bob):
        person.output(1).locator(".leaflet-container").wait_for()
        person.wait_bound("w")
    expect_quiet(alice)
    start = bob.eval("w.center")
    box = alice.output(1).locator(".leaflet-container").bounding_box()
    assert box is not None
    mouse = alice.page.mouse
    mouse.move(box["x"] + 100, box["y"] + 100)
    mouse.down()
    mouse.move(box["x"] + 220, box["y"] + 160, steps=8)
    mouse.up()
    expect_quiet(alice)
    assert bob.eval("w.center") != start
    bob.wait_eval("w.center", " ".join(alice.eval("w.center").split()))

    bob.output(1).locator(".leaflet-control-zoom-in").click()
    alice.wait_eval("w.zoom", "6.0")
    bob.eval("None", before="marker.location = (51.5, 9)")
    alice.wait_eval("marker.location", "[51.5, 9]")
    expect_quiet(alice)


def test_plot_with_binary_data(lab: Lab) -> None:
    importlib.import_module("bqplot")
    cell = """
import bqplot, numpy as np
x, y = bqplot.LinearScale(), bqplot.LinearScale()
line = bqplot.Lines(x=np.arange(5.0), y=np.zeros(5), scales={"x": x, "y": y})
w = bqplot.Figure(marks=[line], axes=[bqplot.Axis(scale=x)], animation_duration=100)
ebus.share(w, "NAME")
w
"""
    alice, bob = both(lab, "bqplot", cell, ".bqplot")
    before = bob.output(1).locator("path.line").first.get_attribute("d") or ""
    alice.eval("None", before="line.y = np.array([1.0, 4.0, np.nan, 2.5, 9.0]); w.title = 'shared'; x.max = 4.0")
    bob.wait_eval("line.y", "array([1. , 4. , nan, 2.5, 9. ])")
    bob.wait_eval("(w.title, x.max)", "('shared', 4.0)")
    bob.output(1).get_by_text("shared").wait_for()
    expect(bob.output(1).locator("path.line").first).not_to_have_attribute("d", before)  # drawn from the bus's bytes
    expect_quiet(alice)


def test_datagrid_cells_and_selection(lab: Lab) -> None:
    importlib.import_module("ipydatagrid")
    cell = """
import ipydatagrid, pandas as pd
w = ipydatagrid.DataGrid(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), editable=True)
ebus.share(w, "NAME")
w
"""
    alice, bob = both(lab, "grid", cell, "canvas")
    alice.eval("None", before="w.set_cell_value_by_index('a', 1, 9)")
    bob.wait_eval("w.data['a'].tolist()", "[1, 9]")
    grid = bob.output(1).locator(".lm-DataGrid, .p-DataGrid").first.bounding_box()
    assert grid is not None
    bob.page.mouse.click(grid["x"] + 64 + 32, grid["y"] + 20 + 10)  # the first cell, past the headers
    alice.wait_eval("[(s['r1'], s['c1']) for s in w.selections]", "[(0, 0)]")
    bob.page.keyboard.type("7")
    bob.page.keyboard.press("Enter")
    bob.wait_eval("w.data['a'].tolist()", "[7, 9]")
    alice.wait_eval("w.data['a'].tolist()", "[7, 9]")
    expect_quiet(alice)


def test_plotly_figure(lab: Lab) -> None:
    importlib.import_module("plotly")
    cell = """
import plotly.graph_objects as go
w = go.FigureWidget(go.Scatter(y=[1, 3, 2]), layout={"width": 600, "height": 400})
ebus.share(w, "NAME")
w
"""
    alice, bob = both(lab, "plotly", cell, ".plotly")
    alice.eval("None", before="w.data[0].y = [5, 4, 3]; w.layout.title = 'shared'")
    bob.wait_eval("w.data[0].y", "(5, 4, 3)")
    bob.output(1).get_by_text("shared").wait_for()
    area = alice.output(1).locator(".nsewdrag").first.bounding_box()
    assert area is not None
    mouse = alice.page.mouse
    mouse.move(area["x"] + 100, area["y"] + 50)
    mouse.down()
    mouse.move(area["x"] + 300, area["y"] + 150, steps=6)
    mouse.up()
    expect_quiet(alice)
    zoomed = " ".join(alice.eval("w.layout.xaxis.range").split())
    assert zoomed != "None"
    bob.wait_eval("w.layout.xaxis.range", zoomed)


def test_canvas_size(lab: Lab) -> None:
    importlib.import_module("ipycanvas")
    cell = """
import ipycanvas
w = ebus.share(ipycanvas.Canvas(width=200, height=100), "NAME")
w
"""
    alice, bob = both(lab, "canvas", cell, "canvas")
    alice.eval("None", before="w.fill_rect(0, 0, 10, 10); w.width = 320")
    bob.wait_eval("w.width", "320")
    expect_quiet(alice)
