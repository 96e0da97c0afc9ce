"""Widgets that keep what they say elsewhere than in traits: how to read it, put it, and hear of it.

Their pages can't do this by themselves: what they share goes through their kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import ipywidgets
import traitlets


class Adapter(Protocol):
    """One thing that a widget says."""

    def read(self, widget: Any) -> Any:
        """What it says now, of what JSON knows, and binary."""

    def put(self, widget: Any, value: Any) -> None:
        """Let it say ``value``. Raises `traitlets.TraitError` where that does not fit."""

    def observe(self, widget: Any, changed: Callable[[Any], None]) -> Callable[[], None]:
        """Call ``changed`` after each change; returns how to stop."""


class GridCells:
    """The cells of an ipydatagrid, by column. A person's edit reaches the kernel as a message, not as a trait."""

    def read(self, widget: Any) -> Any:
        frame = widget._data["data"]
        return {str(name): frame[name].tolist() for name in self._columns(frame)}

    def put(self, widget: Any, value: Any) -> None:
        frame = widget._data["data"]
        columns = {str(name): name for name in self._columns(frame)}
        if value.keys() != columns.keys() or any(len(cells) != len(frame) for cells in value.values()):
            raise traitlets.TraitError(f"it has other rows or columns than {list(columns)} with {len(frame)} rows")
        for name, cells in value.items():
            for row, (old, new) in enumerate(zip(frame[columns[name]].tolist(), cells, strict=True)):
                if old != new:
                    widget.set_cell_value_by_index(columns[name], row, new)

    def observe(self, widget: Any, changed: Callable[[Any], None]) -> Callable[[], None]:
        widget.on_cell_change(changed)
        widget.observe(changed, "_data")

        def stop() -> None:
            widget.on_cell_change(changed, remove=True)
            widget.unobserve(changed, "_data")

        return stop

    @staticmethod
    def _columns(frame: Any) -> Iterator[Any]:
        return (name for name in frame.columns if "ipydguuid" not in (name if isinstance(name, tuple) else (name,)))


class FigureLayout:
    """The layout of a plotly figure: axes and their ranges, titles, shapes that people draw …"""

    def read(self, widget: Any) -> Any:
        return {name: part for name, part in widget.to_dict().get("layout", {}).items() if name != "template"}

    def put(self, widget: Any, value: Any) -> None:
        self.update(widget, lambda: widget.layout.update(value))
        gone = dict.fromkeys(self.read(widget).keys() - value.keys())
        if gone:
            self.update(widget, lambda: widget.layout.update(gone))

    def observe(self, widget: Any, changed: Callable[[Any], None]) -> Callable[[], None]:
        # To everything that changes a figure there is a message to its pages, one of these traits; they are emptied at
        # once, which is when the figure is up to date.
        names = [
            "_py2js_relayout",
            "_py2js_restyle",
            "_py2js_update",
            "_js2py_relayout",
            "_js2py_restyle",
            "_js2py_update",
        ]
        names += ["_js2py_layoutDelta", "_py2js_addTraces", "_py2js_deleteTraces"]

        def when_done(change: Any) -> None:
            if not change["new"]:
                changed(change)

        widget.observe(when_done, names)
        return lambda: widget.unobserve(when_done, names)

    @staticmethod
    def update(widget: Any, change: Callable[[], Any]) -> None:
        try:
            with widget.batch_update():
                change()
        except (ValueError, TypeError, KeyError) as error:
            raise traitlets.TraitError(str(error).strip().partition("\n")[0]) from None


class FigureTraces(FigureLayout):
    """The traces of a plotly figure: data and looks, and which are hidden. It must have as many in every notebook."""

    def read(self, widget: Any) -> Any:
        return [{name: part for name, part in trace.items() if name != "uid"} for trace in widget.to_dict()["data"]]

    def put(self, widget: Any, value: Any) -> None:
        if len(value) != len(widget.data):
            raise traitlets.TraitError(f"{len(value)} traces, and this figure has {len(widget.data)}")

        def change() -> None:
            for trace, new in zip(widget.data, value, strict=True):
                trace.update({name: part for name, part in new.items() if name != "type"})

        self.update(widget, change)


def of(widget: ipywidgets.Widget) -> dict[str, Adapter]:
    """What ``widget`` says elsewhere than in traits, by name."""
    if widget._model_module == "ipydatagrid" and widget._model_name == "DataGridModel":
        return {"cells": GridCells()}
    if any(
        base.__name__ == "BaseFigureWidget" and base.__module__.startswith("plotly.") for base in type(widget).__mro__
    ):
        return {"figure_layout": FigureLayout(), "figure_data": FigureTraces()}
    return {}


def find(widget: ipywidgets.Widget, name: str) -> Adapter | None:
    """How to read ``name`` of ``widget``; None: it is a trait."""
    return of(widget).get(name)
