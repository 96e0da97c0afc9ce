"""Filters what a widget's comm carries of its bound traits.

A page that takes a trait's values from the bus needs nothing of that trait by comm, in either direction: what the comm
carries may be late, and would undo a newer value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol
from weakref import ref

import ipywidgets


class InterceptedTrait(Protocol):
    """One trait whose values pass the interceptor."""

    @property
    def muted(self) -> bool:
        """True if pages have the trait's values from the bus, so that none is sent by comm."""

    def accept(self, value: Any) -> bool:
        """A page has sent ``value`` by comm. Returns whether the widget takes it."""

    def changed(self, change: Any = None) -> None:
        """The trait may have changed in this kernel."""


class CommInterceptor:
    """Replaces `set_state` and `send_state`, the two methods that the comm goes through, on one widget.

    Args:
        widget: The widget, held weakly.
        traits: The intercepted traits by name. The mapping is live: the caller adds and removes entries.
    """

    def __init__(self, widget: ipywidgets.Widget, traits: Mapping[str, InterceptedTrait]) -> None:
        self._widget = ref(widget)
        self._traits = traits
        widget.set_state = self._set_state
        widget.send_state = self._send_state

    @staticmethod
    def remove(widget: ipywidgets.Widget) -> None:
        """Give ``widget`` its own methods back."""
        with contextlib.suppress(AttributeError):
            del widget.set_state
            del widget.send_state

    def _set_state(self, sync_data: dict[str, Any]) -> None:
        widget = self._widget()
        if widget is None:
            return
        accepted = {
            name: value
            for name, value in sync_data.items()
            if name not in self._traits or self._traits[name].accept(value)
        }
        if accepted:
            type(widget).set_state(widget, accepted)

    def _send_state(self, key: str | Iterable[str] | None = None) -> None:
        widget = self._widget()
        if widget is None:
            return
        if key is not None:  # None: a page asks for everything
            names = [key] if isinstance(key, str) else list(key)
            # A program calls `send_state(name)` after it has changed a list or a table in place.
            for name in names:
                if name in self._traits:
                    self._traits[name].changed()
            key = [name for name in names if name not in self._traits or not self._traits[name].muted]
            if not key:
                return
        type(widget).send_state(widget, key)
