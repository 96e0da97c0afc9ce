"""Widgets of other libraries, with values that are no traits, or traits that depend on the page."""

from __future__ import annotations

from typing import Any

import pytest

from .notebook import settled, share_of, share_twice, until


@pytest.mark.asyncio
async def test_map_shares_view_and_layers_but_not_size() -> None:
    leaflet = pytest.importorskip("ipyleaflet")
    one, other = share_twice(lambda: leaflet.Map(center=(50, 8), layers=[leaflet.Marker(location=(50, 8))]))
    assert not {"north", "bounds", "options", "right"} & set(share_of(one).traits)
    one.zoom, one.layers[0].location = 7, (51, 9)
    await until(lambda: other.zoom == 7 and other.layers[0].location == [51, 9])


@pytest.mark.asyncio
async def test_bqplot_shares_arrays_as_bytes() -> None:
    bqplot, np = pytest.importorskip("bqplot"), pytest.importorskip("numpy")

    def figure() -> Any:
        scales = {"x": bqplot.LinearScale(), "y": bqplot.LinearScale()}
        return bqplot.Figure(marks=[bqplot.Lines(x=np.arange(3.0), y=np.zeros(3), scales=scales)])

    one, other = share_twice(figure)
    one.marks[0].y = np.array([5.0, np.nan, 6.0])
    one.marks[0].scales["x"].max = 9.0
    await until(lambda: np.array_equal(other.marks[0].y, [5.0, np.nan, 6.0], equal_nan=True))
    await until(lambda: other.marks[0].scales["x"].max == 9.0)
    assert isinstance(share_of(one).state["marks/0/y"]["value"], bytes)
    last = share_of(one).state.bus.last
    await settled(one, other)
    assert share_of(one).state.bus.last == last


@pytest.mark.asyncio
async def test_datagrid_shares_cells_and_selection() -> None:
    grids, pandas = pytest.importorskip("ipydatagrid"), pytest.importorskip("pandas")
    one, other = share_twice(lambda: grids.DataGrid(pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]}), editable=True))
    edit = {"event_type": "cell-changed", "row": 1, "column_index": 0, "value": 9}
    one._handle_custom_msg(edit, [])  # made by a person in a page
    one.select(0, 0, 1, 1)  # changes a list in place
    await until(lambda: other.data["a"].tolist() == [1, 9] and other.selections)


@pytest.mark.asyncio
async def test_plotly_figure_shares_traces_and_layout() -> None:
    go = pytest.importorskip("plotly.graph_objects")
    one, other = share_twice(lambda: go.FigureWidget(go.Scatter(y=[1, 2, 3])))
    one.layout.title, one.data[0].y = "shared", [3, 2, 1]
    await until(lambda: other.layout.title.text == "shared" and other.data[0].y == (3, 2, 1))
    zoom = {"xaxis.range[0]": 0.5, "xaxis.range[1]": 1.5}
    other._js2py_relayout = {"relayout_data": zoom, "source_view_id": "a page"}
    await until(lambda: one.layout.xaxis.range == (0.5, 1.5))
    last = share_of(one).state.bus.last
    await settled(one, other)
    assert share_of(one).state.bus.last == last
