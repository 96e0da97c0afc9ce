"""Sharing a widget: its traits become entries of a shared state, in every notebook that shares the same name.

One source of truth
    The state is. What a person does in a page is written to it by the page itself, over the page's own connection: so pages
    follow each other while their kernels are busy, or dead. Once a page has said that it does so, this kernel takes no
    value of a shared trait from that widget's comm, where it could arrive late and undo a newer one; it takes them from the
    state, like everybody. What the program sets is written by this kernel, and not sent to pages by comm, which have it
    from the state. Nothing is written twice, and nothing goes round in a circle.

Who begins
    The first to share a name gives it its value; whoever comes later takes what is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, ref

import ipywidgets
import traitlets

from ebus_jupyter.client.discover import default_client
from ebus_jupyter.client.state import Change, State
from ebus_jupyter.core.replica import MISSING
from ebus_jupyter.errors import EbusError

from .page import PageWidget, coordinates

W = TypeVar("W", bound=ipywidgets.Widget)

logger = logging.getLogger("ebus_jupyter")

LOCAL = frozenset({"layout", "style", "tooltip", "tabbable", "comm", "log", "keys"})
"""Traits that are each person's own: how a widget looks, not what it says."""


class ShareHandle(PageWidget):
    """The page's half of one shared widget; it has no face."""

    _entry = traitlets.Unicode("attachShare").tag(sync=True)
    _target = traitlets.Unicode().tag(sync=True)
    _keys = traitlets.Dict(help="Shared traits, and the key of each in the state.").tag(sync=True)


class Share:
    """One widget of this kernel, bound to a state: each trait in ``keys`` to the key it names there."""

    def __init__(self, widget: ipywidgets.Widget, state: State, keys: dict[str, str]) -> None:
        self.state = state
        self._keys = keys
        self._traits = {key: name for name, key in keys.items()}
        self._widget = ref(widget)
        self._page_is_live = False
        self._applying: set[str] = set()
        self._loop = _running_loop()
        self._begin(widget)
        self._handle = ShareHandle(_bus=coordinates(state.bus), _target=widget.model_id, _keys=keys)
        self._handle.on_msg(self._page_says)
        self._set_state = widget.set_state
        widget.set_state = self._from_page  # only on this instance: see the module's first paragraph
        widget.observe(self._from_program, list(keys))
        state.on_change(self._from_state)

    def close(self) -> None:
        """The widget is this notebook's own again."""
        self.state.off_change(self._from_state)
        widget = self._widget()
        if widget is not None:
            with contextlib.suppress(ValueError):
                widget.unobserve(self._from_program, list(self._keys))
            with contextlib.suppress(AttributeError):
                del widget.set_state
        self._handle.close()
        self.state.close()

    def _begin(self, widget: ipywidgets.Widget) -> None:
        for name, key in self._keys.items():
            mine = _to_wire(widget, name)
            if key not in self.state:
                self.state.replace(key, MISSING, mine)
            self._apply(widget, name, self.state.get(key, mine))

    # --- towards the state ------------------------------------------------------------------------------------------

    def _from_program(self, change: dict[str, Any]) -> None:
        """A trait has changed in this kernel: unless it came from the state, the program did it."""
        name = change["name"]
        widget = self._widget()
        if widget is None or name in self._applying:
            return
        key, value = self._keys[name], _to_wire(widget, name)
        if self.state.get(key, MISSING) != value:
            try:
                self.state[key] = value
            except EbusError as error:
                logger.error("%s can't be shared: %s", name, error)

    def _from_page(self, sync_data: dict[str, Any]) -> None:
        """The widget's comm brings values of a page; those that the page writes to the state itself are taken from there."""
        if self._page_is_live:
            sync_data = {key: value for key, value in sync_data.items() if key not in self._keys}
        if sync_data:
            self._set_state(sync_data)

    def _page_says(self, _: Any, content: Any, buffers: Any) -> None:
        if isinstance(content, dict) and content.get("ebus") == "live":
            self._page_is_live = True

    # --- from the state ---------------------------------------------------------------------------------------------

    def _from_state(self, change: Change) -> None:
        """Called on the client's thread; a widget is touched on the kernel's loop only, between cells."""
        if change.local or change.key not in self._traits:
            return
        if self._loop is None:
            self._catch_up(change.key)
        else:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._catch_up, change.key)

    def _catch_up(self, key: str) -> None:
        """Take what the state holds now, which may be newer than what called us."""
        widget = self._widget()
        if widget is None:
            self.close()
        elif key in self.state:
            self._apply(widget, self._traits[key], self.state[key])

    def _apply(self, widget: ipywidgets.Widget, name: str, value: Any) -> None:
        if _to_wire(widget, name) == value:
            return
        self._applying.add(name)
        # Pages that are live have this value from the state already; the comm would bring it late.
        quiet = widget._lock_property(**{name: value}) if self._page_is_live else contextlib.nullcontext()
        try:
            with quiet:
                widget.set_trait(name, _from_wire(widget, name, value))
        except traitlets.TraitError as error:
            logger.warning("the shared value of %s does not fit this widget: %s", name, error)
        finally:
            self._applying.discard(name)


_shares: WeakKeyDictionary[ipywidgets.Widget, Share] = WeakKeyDictionary()


def share(widget: W, name: str, *, scope: str = "server", traits: Iterable[str] | None = None) -> W:
    """Make ``widget`` one live value in every notebook that shares ``name``.

    Args:
        widget: Any ipywidgets widget with a value.
        name: Names what is shared, within its scope.
        scope: Who shares it: "kernel", "user", "server" (default) or "hub".
        traits: Which traits are shared. Default: ``value``.

    Returns:
        The widget itself. Shared already, it is shared anew under ``name``.

    Raises:
        ValueError: The widget has no such trait.
        SpecConflict: ``name`` is a bus of another kind.
    """
    unshare(widget)
    keys = {trait: trait for trait in _shared_traits(widget, traits)}
    _shares[widget] = Share(widget, default_client().state(name, scope=scope), keys)
    return widget


def unshare(widget: W) -> W:
    """The widget is this notebook's own again. Without effect on one that is not shared."""
    shared = _shares.pop(widget, None)
    if shared is not None:
        shared.close()
    return widget


def link(source: tuple[W, str], state: State, key: str) -> W:
    """Tie one trait of a widget to one entry of a shared state: ``ebus.link((slider, "value"), dash, "speed")``.

    Args:
        source: A widget and the name of its trait.
        state: The state, as `ebus_jupyter.state` gives it. The trait takes the entry's value, or begins it.
        key: The entry.

    Returns:
        The widget; `unshare` unties it.

    Raises:
        ValueError: The widget has no such trait.
    """
    widget, trait = source
    unshare(widget)
    list(_shared_traits(widget, [trait]))
    _shares[widget] = Share(widget, state.clone(), {trait: key})
    return widget


def _shared_traits(widget: ipywidgets.Widget, traits: Iterable[str] | None) -> Iterator[str]:
    for name in ("value",) if traits is None else traits:
        if name not in widget.keys or name in LOCAL:
            synced = ", ".join(sorted(key for key in widget.keys if not key.startswith("_") and key not in LOCAL))
            raise ValueError(
                f"{type(widget).__name__} has no trait {name!r} to share; name some with traits=: it has {synced}."
            )
        yield name


def _to_wire(widget: ipywidgets.Widget, name: str) -> Any:
    return widget.get_state(name)[name]


def _from_wire(widget: ipywidgets.Widget, name: str, value: Any) -> Any:
    read = widget.trait_metadata(name, "from_json", None)
    return value if read is None else read(value, widget)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
