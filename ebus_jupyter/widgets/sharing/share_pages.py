"""The pages that show a shared widget, as its kernel sees them.

A hidden widget, `ShareHandle`, tells the pages which traits to bind (`_targets`). They answer by custom messages::

    page → kernel   {"ebus": "live", "targets": [model id, …]}        these models take their values from the bus
    page → kernel   {"ebus": "status", "status": …}                   the connection to the bus has changed
    kernel → page   {"ebus": "fit", "target", "trait", "of", "value"}  the widget turns the value `of` into `value`
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import traitlets

from ebus_jupyter.client.bus import Bus
from ebus_jupyter.widgets.page import PageWidget, coordinates

from .bound_trait import BoundTrait


class ShareHandle(PageWidget):
    """The page's half of one share. It draws nothing."""

    _entry = traitlets.Unicode("attachShare").tag(sync=True)
    _targets = traitlets.Dict(help="By model id: the bound traits, and the key of each in the state.").tag(sync=True)
    _read_only = traitlets.Bool(False).tag(sync=True)


class SharePages:
    """Tells pages what to bind, and knows which models are live, that is, take their values from the bus."""

    def __init__(self) -> None:
        self._handle: ShareHandle | None = None
        self._live: set[str] = set()
        self._on_live: Callable[[set[str]], None] = lambda _: None

    def open(
        self,
        bus: Bus[Any, Any],
        bound: Iterable[BoundTrait],
        on_live: Callable[[set[str]], None],
        *,
        read_only: bool = False,
    ) -> None:
        """Let pages bind the traits in ``bound``.

        Args:
            bus: The bus of the shared state.
            bound: The bound traits.
            on_live: Called with the ids of models that have become live.
            read_only: Pages write nothing.
        """
        self._on_live = on_live
        self._handle = ShareHandle(_bus=coordinates(bus), _targets=_targets(bound), _read_only=read_only)
        self._handle.on_msg(self._receive)

    def close(self) -> None:
        """Let pages bind nothing any more."""
        if self._handle is not None:
            self._handle.close()

    def update(self, bound: Iterable[BoundTrait]) -> None:
        """The bound traits are now those in ``bound``."""
        if self._handle is not None and self._handle.comm is not None:
            self._handle._targets = _targets(bound)

    def is_live(self, bound: BoundTrait) -> bool:
        """True if a page takes the trait's values from the bus."""
        return bound.model_id in self._live

    def send_fit(self, bound: BoundTrait) -> None:
        """Tell live pages, which show the state's value, what the widget makes of it."""
        if self._handle is not None and self.is_live(bound):
            with contextlib.suppress(TypeError, ValueError):  # a binary value: pages show the state's
                fit = {"target": bound.model_id, "trait": bound.trait, "of": bound.state_value, "value": bound.get()}
                self._handle.send({"ebus": "fit", **fit})

    def _receive(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        if content.get("ebus") == "live":
            new = set(content.get("targets", ())) - self._live
            self._live |= new
            self._on_live(new)
        elif content.get("ebus") == "status" and content.get("status") == "closed":
            self._live.clear()


def _targets(bound: Iterable[BoundTrait]) -> dict[str, dict[str, str]]:
    targets: dict[str, dict[str, str]] = {}
    for each in bound:
        if each.is_synced and each.model_id:
            targets.setdefault(each.model_id, {})[each.trait] = each.key
    return targets
