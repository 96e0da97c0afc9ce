"""One shared trait of one widget: reads it, sets it, and reports the changes that a program or a page makes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Protocol
from weakref import ref

import ipywidgets

from ebus_jupyter.core.client.replica import MISSING

from . import adapters, markup, traits
from .comm_interceptor import CommInterceptor

_bound: dict[str, dict[str, BoundTrait]] = {}
"""Bound traits by model id and name. The key is not the widget itself, which need not be hashable."""


class Owner(Protocol):
    """The share that a trait belongs to."""

    def release(self, bound: BoundTrait) -> None:
        """Another share has taken this trait."""

    def exclude(self, widget: ipywidgets.Widget) -> None:
        """Leave ``widget``, which is inside the shared one, out of the share."""


class Listener(Protocol):
    """Decides about the values of a bound trait."""

    def changed(self, bound: BoundTrait) -> None:
        """The trait has changed in this kernel, and not by `BoundTrait.set`."""

    def accept(self, bound: BoundTrait, value: Any) -> bool:
        """A page has sent ``value`` by comm. Returns whether the widget takes it."""

    def is_live(self, bound: BoundTrait) -> bool:
        """True if pages have the trait's values from the bus."""


class BoundTrait:
    """A trait of a widget, bound to a key of a shared state.

    Args:
        owner: The share that the trait belongs to.
        listener: Hears of changes.
        widget: The widget, held weakly.
        trait: The trait's name, or the name of one of the widget's adapters.
        key: The key in the state.

    Attributes:
        state_value: The last value of the state that was looked at.
        widget_value: The widget's value at that time.
        proposed: The last value that this kernel's own page has made of the trait, until it is dealt with.
        unfit: The widget could not take the state's value.
        warned: A warning about the trait has been logged.
    """

    def __init__(self, owner: Owner, listener: Listener, widget: ipywidgets.Widget, trait: str, key: str) -> None:
        self.owner = owner
        self.trait = trait
        self.key = key
        self.state_value: Any = MISSING
        self.widget_value: Any = MISSING
        self.proposed: Any = MISSING
        self.unfit = False
        self.warned = False
        self._listener = listener
        self._widget = ref(widget)
        self._registry_key: str = widget._model_id
        self._adapter = adapters.find(widget, trait)
        self._setting_thread: int | None = None
        self._unobserve: Callable[[], None] = lambda: None

    @property
    def widget(self) -> ipywidgets.Widget | None:
        """The widget; None once it is closed or garbage collected."""
        widget = self._widget()
        return None if widget is None or widget.comm is None else widget

    @property
    def is_synced(self) -> bool:
        """True if pages have the trait too. An adapter's values are known to the kernel only."""
        return self._adapter is None

    @property
    def model_id(self) -> str:
        """The id of the widget's model; "" once the widget is gone."""
        widget = self.widget
        return "" if widget is None else str(widget.model_id)

    @property
    def muted(self) -> bool:
        """True if pages have the trait's values from the bus, so that none is sent by comm."""
        return self._listener.is_live(self)

    def get(self) -> Any:
        """The widget's value in its wire form; `MISSING` once the widget is gone.

        Raises:
            UnshareableError: The value has no wire form.
        """
        widget = self.widget
        if widget is None:
            return MISSING
        if self._adapter is not None:
            return traits.portable(self._adapter.get(widget))
        return traits.to_wire(widget, self.trait)

    def clean(self, value: Any) -> Any:
        """A value of the state as the widget may take it: see `markup.clean`."""
        widget = self.widget
        return value if widget is None else markup.clean(widget, self.trait, value)

    def set(self, value: Any) -> None:
        """Set the widget's value from its wire form, without reporting it as a change.

        Raises:
            traitlets.TraitError: The value does not fit the widget.
        """
        widget = self.widget
        if widget is None:
            return
        self._setting_thread = threading.get_ident()
        try:
            if self._adapter is not None:
                self._adapter.set(widget, value)
            else:
                widget.set_trait(self.trait, traits.from_wire(widget, self.trait, value))
        finally:
            self._setting_thread = None

    def attach(self) -> None:
        """Begin to observe the trait. A trait has one owner: the previous one releases it."""
        widget = self.widget
        if widget is None:
            return
        previous = _bound.get(self._registry_key, {}).get(self.trait)
        if previous is not None:
            previous.owner.release(previous)
        if self._registry_key not in _bound:
            _bound[self._registry_key] = {}
            CommInterceptor(widget, _bound[self._registry_key])
        _bound[self._registry_key][self.trait] = self
        if self._adapter is not None:
            self._unobserve = self._adapter.observe(widget, self.changed)
        else:
            widget.observe(self.changed, self.trait)

    def detach(self) -> None:
        """Stop observing the trait."""
        widget = self._widget()
        registered = _bound.get(self._registry_key, {})
        if registered.get(self.trait) is self:
            del registered[self.trait]
            if not registered:
                del _bound[self._registry_key]
                if widget is not None:
                    CommInterceptor.remove(widget)
        if widget is None:
            return
        if self._adapter is not None:
            self._unobserve()
        else:
            with contextlib.suppress(ValueError):
                widget.unobserve(self.changed, self.trait)

    def send_by_comm(self) -> None:
        """Send the widget's value to its pages by comm, also where they take it from the bus."""
        widget = self.widget
        if widget is not None and self.is_synced:
            type(widget).send_state(widget, self.trait)

    def accept(self, value: Any) -> bool:
        """A page has sent ``value`` by comm. Returns whether the widget takes it."""
        return self._listener.accept(self, value)

    def changed(self, change: Any = None) -> None:
        """The trait may have changed: report it unless `set` is the cause."""
        if self._setting_thread != threading.get_ident():
            self._listener.changed(self)


def bound_traits(widget: ipywidgets.Widget) -> list[BoundTrait]:
    """The bound traits of ``widget``."""
    return list(_bound.get(widget._model_id, {}).values())
