"""One trait of one widget, and the widget's comm.

While a page takes a trait's values from the bus, the comm of that trait is silent in both directions: what it would bring
is late, and could undo something newer. `CommInterceptor` stands in the two methods of the widget that the comm goes through.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol
from weakref import ref

import ipywidgets

from ebus_jupyter.core.client.replica import MISSING

from . import adapters, traits

_taps: dict[str, CommInterceptor] = {}
"""By the id of the model; not by the widget, which need not be hashable."""


class Owner(Protocol):
    """Who binds a trait to something."""

    def page_sends(self, slot: BoundTrait, value: Any) -> bool:
        """The comm brings a value of a page; whether the widget is to take it."""

    def in_pages(self, slot: BoundTrait) -> bool:
        """Whether pages have the trait's values from the bus."""

    def program_sets(self, slot: BoundTrait) -> None:
        """The trait has changed in this kernel, and the owner did not do it."""

    def drop(self, slots: Iterable[BoundTrait]) -> None:
        """These are someone else's now."""


class BoundTrait:
    """One bound trait. It holds its widget weakly."""

    def __init__(self, owner: Owner, widget: ipywidgets.Widget, trait: str, key: str) -> None:
        self.owner = owner
        self.trait = trait
        self.key = key
        self.taken: Any = MISSING  # what of the state was last looked at
        self.had: Any = MISSING  # what the widget had then
        self.proposed: Any = MISSING  # what this kernel's own page has last made of it
        self.unfit = False  # the widget could not take what the state holds
        self.warned = False
        self._widget = ref(widget)
        self._adapter = adapters.find(widget, trait)
        self._putting: int | None = None
        self._unobserve: Callable[[], None] = lambda: None

    @property
    def widget(self) -> ipywidgets.Widget | None:
        """The widget; None once it is gone, or closed."""
        widget = self._widget()
        return None if widget is None or widget.comm is None else widget

    @property
    def is_synced(self) -> bool:
        """Whether pages have the trait too; else it is one that only the kernel can read."""
        return self._adapter is None

    @property
    def model_id(self) -> str:
        widget = self.widget
        return "" if widget is None else str(widget.model_id)

    def read(self) -> Any:
        """What the widget has, as it travels.

        Raises:
            UnshareableError: That can't travel.
        """
        widget = self.widget
        if widget is None:
            return MISSING
        if self._adapter is not None:
            return traits.portable(self._adapter.read(widget))
        return traits.to_wire(widget, self.trait)

    def put(self, value: Any) -> None:
        """Let the widget have it; the owner is not told of that."""
        widget = self.widget
        if widget is None:
            return
        self._putting = threading.get_ident()
        try:
            if self._adapter is not None:
                self._adapter.put(widget, value)
            else:
                widget.set_trait(self.trait, traits.from_wire(widget, self.trait, value))
        finally:
            self._putting = None

    def plug(self) -> None:
        """Begin to listen. A trait has one owner: the one before lets go of it."""
        widget = self.widget
        if widget is None:
            return
        tap = _taps.get(widget._model_id) or CommInterceptor(widget)
        before = tap.slots.get(self.trait)
        if before is not None:
            before.owner.drop([before])
            tap = _taps.get(widget._model_id) or CommInterceptor(widget)
        tap.slots[self.trait] = self
        if self._adapter is not None:
            self._unobserve = self._adapter.observe(widget, self.changed)
        else:
            widget.observe(self.changed, self.trait)

    def unplug(self) -> None:
        """Listen no more."""
        widget = self._widget()
        if widget is None:
            return
        if self._adapter is not None:
            self._unobserve()
        else:
            with contextlib.suppress(ValueError):
                widget.unobserve(self.changed, self.trait)
        tap = _taps.get(widget._model_id)
        if tap is not None and tap.slots.get(self.trait) is self:
            del tap.slots[self.trait]
            if not tap.slots:
                tap.remove(widget)

    def send_by_comm(self) -> None:
        """Tell pages what the widget has, whatever they hear from the bus."""
        widget = self.widget
        if widget is not None and self.is_synced:
            type(widget).send_state(widget, self.trait)

    def changed(self, _: Any = None) -> None:
        """It may have changed: unless the owner did it, the owner is told."""
        if self._putting != threading.get_ident():
            self.owner.program_sets(self)


def slots_of(widget: ipywidgets.Widget) -> list[BoundTrait]:
    """The bound traits of ``widget``."""
    tap = _taps.get(widget._model_id)
    return [] if tap is None else list(tap.slots.values())


class CommInterceptor:
    """Stands between one widget and its comm: replaces two methods, on this instance only."""

    def __init__(self, widget: ipywidgets.Widget) -> None:
        self.slots: dict[str, BoundTrait] = {}
        self._widget = ref(widget)
        widget.set_state = self._set_state
        widget.send_state = self._send_state
        _taps[widget._model_id] = self

    def remove(self, widget: ipywidgets.Widget) -> None:
        _taps.pop(widget._model_id, None)
        with contextlib.suppress(AttributeError):
            del widget.set_state
            del widget.send_state

    def _set_state(self, sync_data: dict[str, Any]) -> None:
        widget = self._widget()
        if widget is None:
            return
        taken = {
            name: value
            for name, value in sync_data.items()
            if name not in self.slots or self.slots[name].owner.page_sends(self.slots[name], value)
        }
        if taken:
            type(widget).set_state(widget, taken)

    def _send_state(self, key: str | Iterable[str] | None = None) -> None:
        widget = self._widget()
        if widget is None:
            return
        if key is not None:  # None: a page asks for everything
            names = [key] if isinstance(key, str) else list(key)
            for name in names:  # so a program says that it has changed a list, or a table, in place
                if name in self.slots:
                    self.slots[name].changed()
            key = [name for name in names if name not in self.slots or not self._in_pages(name)]
            if not key:
                return
        type(widget).send_state(widget, key)

    def _in_pages(self, name: str) -> bool:
        return self.slots[name].owner.in_pages(self.slots[name])
