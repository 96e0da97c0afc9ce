"""Sharing a widget: its traits become entries of a shared state, in every notebook that shares the same name.

`Share` binds the traits of a widget and of the widgets inside it. `reconciler` has the rules by which a bound trait and the
state agree; `traits` chooses what is bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar
from weakref import finalize, ref

import ipywidgets

from ebus_jupyter.client.ack import Ack
from ebus_jupyter.client.discover import default_client
from ebus_jupyter.client.state import State

from . import markup
from .bound_trait import BoundTrait, bound_traits
from .reconciler import Reconciler
from .share_pages import SharePages
from .traits import Plan, SharedTrait, as_names, plan

logger = logging.getLogger("ebus_jupyter")

W = TypeVar("W", bound=ipywidgets.Widget)

Planner = Callable[[ipywidgets.Widget], Plan]

_shares: dict[str, list[Share]] = {}
"""Open shares by the model id of their widget."""


class Share:
    """A widget of this kernel, and the widgets inside it, bound to a state.

    Args:
        widget: The widget, held weakly. The share closes when the widget is closed or garbage collected.
        state: The state. It is closed with the share.
        planner: Chooses what is shared of the widget; called again whenever the widgets inside it change.
        read_only: Write nothing.
    """

    def __init__(
        self, widget: ipywidgets.Widget, state: State[Any], planner: Planner, *, read_only: bool = False
    ) -> None:
        self.state = state
        self.pages = SharePages()
        self.model_id: str = widget.model_id
        self._root = ref(widget)
        self._planner = planner
        self._bound: dict[str, BoundTrait] = {}
        self._containers: list[tuple[ref[ipywidgets.Widget], str]] = []
        self._excluded: set[str] = set()
        self._closed = False
        self._finalizer: finalize[..., ipywidgets.Widget] | None = None
        loop = _running_loop()
        self._reconciler = Reconciler(state, self._bound, self.pages, partial(_call_soon, loop), read_only=read_only)
        self._reconciler.settle(self._bind(widget))
        self.pages.open(state.bus, self._bound.values(), self._reconciler.models_live, read_only=read_only)
        widget.observe(self._comm_changed, "comm")
        self._finalizer = finalize(widget, _call_soon, loop, self.close)
        self._finalizer.atexit = False

    @property
    def traits(self) -> list[str]:
        """The keys of the bound traits."""
        return list(self._bound)

    @property
    def live(self) -> bool:
        """True if a page takes the values of all bound traits that it has from the bus."""
        return all(self.pages.is_live(bound) for bound in self._bound.values() if bound.is_synced and bound.widget)

    def close(self) -> None:
        """Unbind all traits and close the state."""
        if self._closed:
            return
        self._closed = True
        self._reconciler.close()
        root = self._root()
        if root is not None:
            with contextlib.suppress(ValueError):
                root.unobserve(self._comm_changed, "comm")
        others = [other for other in _shares.pop(self.model_id, ()) if other is not self]
        if others:
            _shares[self.model_id] = others
        self._unobserve_containers()
        for bound in self._bound.values():
            bound.detach()
        self._bound.clear()
        if self._finalizer is not None:
            self._finalizer.detach()
        self.pages.close()
        self.state.close()

    def exclude(self, widget: ipywidgets.Widget) -> None:
        """Unbind ``widget``, which is inside the shared one, and keep it out."""
        self._excluded.add(widget._model_id)
        self._unbind([bound for bound in self._bound.values() if bound.widget is widget])

    def release(self, bound: BoundTrait) -> None:
        """Another share has taken this trait: unbind it."""
        self._unbind([bound])

    def _unbind(self, traits: Iterable[BoundTrait]) -> None:
        for bound in traits:
            if self._bound.get(bound.key) is bound:
                del self._bound[bound.key]
            bound.detach()
        self.pages.update(self._bound.values())
        if not self._bound and not self._containers:
            self.close()

    def _bind(self, root: ipywidgets.Widget) -> list[tuple[BoundTrait, Ack]]:
        """Bind what the planner chooses now, and unbind the rest. Returns the proposed first values."""
        found = self._planner(root)
        wanted = {shared.key: shared for shared in found.shared if self._may_bind(root, shared)}
        for key, bound in list(self._bound.items()):
            if key not in wanted or bound.widget is not wanted[key].widget or bound.trait != wanted[key].trait:
                bound.detach()
                del self._bound[key]
        proposals = []
        for shared in wanted.values():
            if shared.key not in self._bound:
                bound = self._bound[shared.key] = BoundTrait(self, self._reconciler, *shared)
                bound.attach()
                proposal = self._reconciler.start(bound)
                if proposal is not None:
                    proposals.append((bound, proposal))
        self._unobserve_containers()
        for widget, name in found.containers:
            widget.observe(self._container_changed, name)
            self._containers.append((ref(widget), name))
        return proposals

    def _may_bind(self, root: ipywidgets.Widget, shared: SharedTrait) -> bool:
        """A widget inside the root that is excluded, or shared by itself, is not bound."""
        if shared.widget is root:
            return True
        others = [bound for bound in bound_traits(shared.widget) if bound.trait == shared.trait]
        return shared.widget._model_id not in self._excluded and all(bound.owner is self for bound in others)

    def _unobserve_containers(self) -> None:
        for reference, name in self._containers:
            widget = reference()
            if widget is not None:
                with contextlib.suppress(ValueError):
                    widget.unobserve(self._container_changed, name)
        self._containers = []

    def _container_changed(self, _: object) -> None:
        root = self._root()
        if root is not None and not self._closed:
            self._bind(root)  # no cell waits for the proposals: another participant's first value arrives by itself
            self.pages.update(self._bound.values())

    def _comm_changed(self, change: dict[str, object]) -> None:
        if change["new"] is None:
            self.close()


def share(
    widget: W,
    name: str,
    *,
    scope: str = "server",
    traits: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    read_only: bool = False,
    readers: Sequence[str] | None = None,
    writers: Sequence[str] | None = None,
    trust_markup: bool = False,
) -> W:
    """Make ``widget`` one live value in every notebook that shares ``name``.

    A container is shared with all widgets inside it. A widget that is shared already is shared anew under ``name``.

    Args:
        widget: Any ipywidgets widget: a control, a container, an anywidget, a widget of another library.
        name: The name of the shared value, unique within its scope.
        scope: "kernel", "user", "server" (default) or "hub".
        traits: The traits to share: names, keys of widgets inside (``children/0/value``), patterns (``children/*/value``).
            Default: what a person changes in it; all public traits but its look, for widgets that are not ipywidgets' own.
        exclude: Traits, keys or patterns to leave out.
        read_only: Follow the shared value only: a change made in this notebook is reverted. Others may change the value all the
            same; see ``writers``. Default: False.
        readers: Users and ``group:NAME`` who may follow it. Default: everyone in scope.
        writers: Users and ``group:NAME`` who may change it. Default: everyone in scope.
        trust_markup: Share what pages render as markup, such as the value of an `HTML` widget, or load from an address that
            is a shared value. **This lets everyone who may write to the shared value run code in the pages that show this
            widget, with the rights of whoever looks at it**: read and change their files, run cells and terminals as they.
            It concerns this notebook only; give ``writers`` as well, and name people who may do all that anyway. Default:
            False, such traits stay as they are in this notebook, whatever others share.

    Returns:
        The widget itself.

    Raises:
        ValueError: The widget has no such trait, or nothing to share; or what there is, or was named, is markup.
        SpecConflict: ``name`` is a bus of another kind, or has a filter, through which somebody could change what others set.
            That is checked again whenever the connection was lost.
        ConnectionLost, TimeoutError: The broker did not answer.
    """
    chosen, without = as_names(traits), as_names(exclude) or ()

    def planner(root: ipywidgets.Widget) -> Plan:
        return plan(root, chosen, without, trust_markup=trust_markup)

    _explain_withheld(widget, planner(widget), chosen)  # raises before anything is opened
    unshare(widget)
    plain = {"schema": None, "emits": None}
    state = default_client().open_bus(
        name, scope=scope, retain="keys", filter=False, readers=readers, writers=writers, given=plain
    )
    _add(widget, State(state), planner, read_only=read_only)
    return widget


def _explain_withheld(widget: ipywidgets.Widget, found: Plan, chosen: tuple[str, ...] | None) -> None:
    """Raise `MarkupError` where nothing is shared but markup, or markup was named; else log what is left out."""
    named = [left.key for left in found.withheld if left.key in (chosen or ())]
    holds_others = any(name not in markup.decided_by(each) for each, name in found.containers)
    if named or (found.withheld and not found.shared and not holds_others):
        raise markup.MarkupError(
            f"{type(widget).__name__}'s {(named or [found.withheld[0].key])[0]!r} is markup: whoever may write to the shared "
            "value could run code in your page with your rights. Share a Label for text; or pass trust_markup=True, and "
            "writers= with those whom you trust with everything that you may do."
        )
    told = [left.key for left in found.withheld if left.widget._model_module != "jupyter-leaflet"]
    if told:
        logger.warning(
            "%s of the shared %s: not shared, because it is markup (see trust_markup= of ebus.share).",
            ", ".join(told),
            type(widget).__name__,
        )


def shares_of(widget: ipywidgets.Widget) -> list[Share]:
    """The open shares of ``widget`` itself: at most one by `share`, and one for each `link`."""
    return list(_shares.get(widget._model_id, ()))


def unshare(widget: W) -> W:
    """Stop sharing ``widget``, also one inside a shared container. Without effect on a widget that is not shared.

    Returns:
        The widget itself.
    """
    for shared in shares_of(widget):
        shared.close()
    for bound in bound_traits(widget):
        bound.owner.exclude(widget)
    return widget


def link(source: tuple[W, str], state: State[Any], key: str, *, trust_markup: bool = False) -> W:
    """Link one trait of a widget to one entry of a shared state: ``ebus.link((slider, "value"), dash, "speed")``.

    Args:
        source: A widget and the name of its trait. A trait has at most one link: a new one replaces it.
        state: The state, as `ebus_jupyter.state` returns it. The trait takes the entry's value; an entry that does not exist
            takes the trait's.
        key: The key of the entry.
        trust_markup: As for `share`, which says what it gives away.

    Returns:
        The widget; `unshare` removes the link.

    Raises:
        ValueError: The widget has no such trait, or it is markup.
    """
    widget, trait = source
    found = plan(widget, [trait], trust_markup=trust_markup)
    _explain_withheld(widget, found, (trait,))
    if len(found.shared) != 1 or any(each is widget and name == trait for each, name in found.containers):
        raise ValueError(
            f"{trait!r} holds other widgets; link their traits, or share {type(widget).__name__} as a whole."
        )

    def planner(root: ipywidgets.Widget) -> Plan:
        now = plan(root, [trait], trust_markup=trust_markup)
        return now._replace(shared=[shared._replace(key=key) for shared in now.shared])

    _add(widget, state.clone(), planner, read_only=False)
    return widget


def _add(widget: ipywidgets.Widget, state: State[Any], planner: Planner, *, read_only: bool) -> None:
    try:
        shared = Share(widget, state, planner, read_only=read_only)
    except BaseException:
        state.close()
        raise
    _shares.setdefault(shared.model_id, []).append(shared)


def _call_soon(loop: asyncio.AbstractEventLoop | None, function: Callable[[], None]) -> None:
    """Call ``function`` on the kernel's loop; without a loop, at once."""
    if loop is None:
        function()
    else:
        with contextlib.suppress(RuntimeError):  # the kernel is ending
            loop.call_soon_threadsafe(function)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
