"""Widgets that keep part of their value outside their traits: how to get it, set it and observe it.

A page cannot read such values from the model, so their changes go through the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import ipywidgets
import traitlets


class Adapter(Protocol):
    """One named value of a widget that is no trait.

    An adapter whose value a page renders as markup has the attribute ``markup = True`` (see `markup`).
    """

    def get(self, widget: Any) -> Any:
        """The current value, made of what JSON knows and bytes."""

    def set(self, widget: Any, value: Any) -> None:
        """Set the value.

        Raises:
            traitlets.TraitError: The value does not fit the widget.
        """

    def observe(self, widget: Any, changed: Callable[[Any], None]) -> Callable[[], None]:
        """Call ``changed`` after each change. Returns a function that stops it."""


class GridCells:
    """The cells of an ipydatagrid, by column. A person's edit reaches the kernel as a message, not as a trait."""

    def get(self, widget: Any) -> Any:
        frame = widget._data["data"]
        return {str(name): frame[name].tolist() for name in self._columns(frame)}

    def set(self, widget: Any, value: Any) -> None:
        frame = widget._data["data"]
        columns = {str(name): name for name in self._columns(frame)}
        if value.keys() != columns.keys() or any(len(cells) != len(frame) for cells in value.values()):
            raise traitlets.TraitError(
                f"the shared cells do not match this grid's columns {list(columns)} and {len(frame)} rows"
            )
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
    """The layout of a plotly figure: axes and their ranges, titles, shapes that people draw."""

    # Each change of a figure is a message to its pages in one of these traits. plotly empties the trait once the figure
    # itself is up to date.
    MESSAGES = (
        "_py2js_relayout",
        "_py2js_restyle",
        "_py2js_update",
        "_py2js_addTraces",
        "_py2js_deleteTraces",
        "_js2py_relayout",
        "_js2py_restyle",
        "_js2py_update",
        "_js2py_layoutDelta",
    )

    def get(self, widget: Any) -> Any:
        return {name: part for name, part in widget.to_dict().get("layout", {}).items() if name != "template"}

    def set(self, widget: Any, value: Any) -> None:
        self.update(widget, lambda: widget.layout.update(value))
        removed = dict.fromkeys(self.get(widget).keys() - value.keys())
        if removed:
            self.update(widget, lambda: widget.layout.update(removed))

    def observe(self, widget: Any, changed: Callable[[Any], None]) -> Callable[[], None]:
        def message_changed(change: Any) -> None:
            if not change["new"]:
                changed(change)

        widget.observe(message_changed, self.MESSAGES)
        return lambda: widget.unobserve(message_changed, self.MESSAGES)

    @staticmethod
    def update(widget: Any, change: Callable[[], Any]) -> None:
        """Run ``change`` as one update of the figure."""
        try:
            with widget.batch_update():
                change()
        except (ValueError, TypeError, KeyError) as error:
            raise traitlets.TraitError(str(error).strip().partition("\n")[0]) from None


class FigureTraces(FigureLayout):
    """The traces of a plotly figure: data, style and visibility. Each notebook's figure must have as many traces."""

    def get(self, widget: Any) -> Any:
        return [{name: part for name, part in trace.items() if name != "uid"} for trace in widget.to_dict()["data"]]

    def set(self, widget: Any, value: Any) -> None:
        if len(value) != len(widget.data):
            raise traitlets.TraitError(f"the shared figure has {len(value)} traces, this one {len(widget.data)}")

        def change() -> None:
            for trace, new in zip(widget.data, value, strict=True):
                trace.update({name: part for name, part in new.items() if name != "type"})

        self.update(widget, change)


def of(widget: ipywidgets.Widget) -> dict[str, Adapter]:
    """The adapters of ``widget``, by name."""
    if widget._model_module == "ipydatagrid" and widget._model_name == "DataGridModel":
        return {"cells": GridCells()}
    if any(
        base.__name__ == "BaseFigureWidget" and base.__module__.startswith("plotly.") for base in type(widget).__mro__
    ):
        return {"figure_layout": FigureLayout(), "figure_data": FigureTraces()}
    return {}


def find(widget: ipywidgets.Widget, name: str) -> Adapter | None:
    """The adapter ``name`` of ``widget``; None if ``name`` is a trait."""
    return of(widget).get(name)
