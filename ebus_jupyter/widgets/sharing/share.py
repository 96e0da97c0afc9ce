"""Sharing a widget: its traits become entries of a shared state, in every notebook that shares the same name.

One source of truth
    The state is. What a person does in a page is written to it by the page itself, over the page's own connection: so pages
    follow each other while their kernels are busy, or dead. Once a page has said that it does so, this kernel takes no
    value of a shared trait from that widget's comm, where it could arrive late and undo a newer one; it takes them from the
    state, like everybody. What the program sets is written by this kernel, and not sent to pages by comm, which have it
    from the state. Nothing is written twice, and nothing goes round in a circle.

Who begins
    The first to share a name gives it its value; whoever comes later takes what is there.

What does not fit
    A widget may be unable to take what the state holds: it has another range, or other options. It then keeps what it makes
    of it, and so do its pages; the state stays, and a later value that fits is taken. Only what this kernel's *own page*
    proposes is corrected in the state, once: a validator holds for its own page, as it always did, and two that disagree
    can't start a quarrel.

Before a page is connected
    its changes come by comm, and this kernel writes them, unless the state has moved on meanwhile: that is newer. What a
    person does while the page connects, the page writes when it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar
from weakref import finalize, ref

import ipywidgets
import traitlets

from ebus_jupyter.client.ack import Ack
from ebus_jupyter.client.discover import default_client
from ebus_jupyter.client.state import Change, State
from ebus_jupyter.client.waiting import NOT_YET
from ebus_jupyter.core.client.replica import MISSING
from ebus_jupyter.errors import Conflict, EbusError
from ebus_jupyter.widgets.page import PageWidget, coordinates

from .comm_interceptor import BoundTrait, slots_of
from .traits import Plan, Spot, UnshareableError, plan, portable, same

W = TypeVar("W", bound=ipywidgets.Widget)

Planner = Callable[[ipywidgets.Widget], Plan]

BEGIN_SECONDS = 15.0
"""How long `share` waits until everybody agrees on who has begun."""

logger = logging.getLogger("ebus_jupyter")


class ShareHandle(PageWidget):
    """The page's half of one share; it has no face."""

    _entry = traitlets.Unicode("attachShare").tag(sync=True)
    _targets = traitlets.Dict(help="By the model's id: shared traits, and the key of each in the state.").tag(sync=True)
    _read_only = traitlets.Bool(False).tag(sync=True)


class Share:
    """A widget of this kernel, and those inside it, bound to a state.

    Args:
        widget: It is held weakly; when it is closed, or gone, this closes.
        state: Is closed with this.
        planner: Says what is shared of the widget; asked again whenever other widgets are in it.
        read_only: Follow, and write nothing.
    """

    def __init__(self, widget: ipywidgets.Widget, state: State, planner: Planner, *, read_only: bool = False) -> None:
        self.state = state
        self.read_only = read_only
        self._root = ref(widget)
        self._id: str = widget.model_id
        self._planner = planner
        self._slots: dict[str, BoundTrait] = {}
        self._holders: list[tuple[ref[ipywidgets.Widget], str]] = []
        self._left: set[str] = set()
        self._live: set[str] = set()
        self._dirty: set[str] = set()
        self._lock = threading.Lock()
        self._loop = _running_loop()
        self._closed = False
        self._begun: dict[str, Ack] = {}
        self._handle: ShareHandle | None = None
        state.on_change(self._from_state)
        self._rebind(widget)
        self._agree()
        self._handle = ShareHandle(_bus=coordinates(state.bus), _targets=self._targets(), _read_only=read_only)
        self._handle.on_msg(self._page_says)
        widget.observe(self._closing, "comm")
        self._finalizer = finalize(widget, _soon, self._loop, self.close)
        self._finalizer.atexit = False

    @property
    def traits(self) -> list[str]:
        """The keys of what is shared here."""
        return list(self._slots)

    def close(self) -> None:
        """The widgets are this notebook's own again."""
        if self._closed:
            return
        self._closed = True
        self.state.off_change(self._from_state)
        root = self._root()
        if root is not None:
            with contextlib.suppress(ValueError):
                root.unobserve(self._closing, "comm")
        others = [shared for shared in _shares.pop(self._id, ()) if shared is not self]
        if others:
            _shares[self._id] = others
        self._let_go_of_holders()
        for slot in self._slots.values():
            slot.unplug()
        self._slots.clear()
        if self._handle is not None:
            self._finalizer.detach()
            self._handle.close()
        self.state.close()

    def leave(self, widget: ipywidgets.Widget) -> None:
        """One of the widgets inside is this notebook's own from now on."""
        self._left.add(widget._model_id)
        self.drop([slot for slot in self._slots.values() if slot.widget is widget])

    def drop(self, slots: Iterable[BoundTrait]) -> None:
        for slot in slots:
            if self._slots.get(slot.key) is slot:
                del self._slots[slot.key]
            slot.unplug()
        self._tell_targets()
        if not self._slots and not self._holders:
            self.close()

    # --- what is bound ----------------------------------------------------------------------------------------------

    def _rebind(self, root: ipywidgets.Widget) -> None:
        """Bind what the plan names now, and let go of what it named before."""
        found = self._planner(root)
        spots = {spot.key: spot for spot in found.spots if self._may_take(root, spot)}
        for key, slot in list(self._slots.items()):
            if key not in spots or slot.widget is not spots[key].widget or slot.trait != spots[key].trait:
                slot.unplug()
                del self._slots[key]
        for spot in spots.values():
            if spot.key not in self._slots:
                slot = self._slots[spot.key] = BoundTrait(self, *spot)
                slot.plug()
                self._begin(slot)
        self._let_go_of_holders()
        for widget, name in found.holders:
            widget.observe(self._holds_others, name)
            self._holders.append((ref(widget), name))

    def _may_take(self, root: ipywidgets.Widget, spot: Spot) -> bool:
        """Whoever shares a widget by itself means it: a container that holds it too leaves it to that."""
        if spot.widget is root:
            return True
        others = [slot for slot in slots_of(spot.widget) if slot.trait == spot.trait and slot.owner is not self]
        return not others and spot.widget._model_id not in self._left

    def _let_go_of_holders(self) -> None:
        for reference, name in self._holders:
            widget = reference()
            if widget is not None:
                with contextlib.suppress(ValueError):
                    widget.unobserve(self._holds_others, name)
        self._holders = []

    def _holds_others(self, _: Any) -> None:
        root = self._root()
        if root is not None and not self._closed:
            self._rebind(root)
            self._begun.clear()  # a cell is not held up for this: what another has begun arrives by itself
            self._tell_targets()

    def _targets(self) -> dict[str, dict[str, str]]:
        targets: dict[str, dict[str, str]] = {}
        for key, slot in self._slots.items():
            if slot.is_synced and slot.model_id:
                targets.setdefault(slot.model_id, {})[slot.trait] = key
        return targets

    def _tell_targets(self) -> None:
        if self._handle is not None and self._handle.comm is not None:
            self._handle._targets = self._targets()

    def _begin(self, slot: BoundTrait) -> None:
        """Take what the state has; where it has nothing, give it what the widget has, if nobody else is first."""
        value = self.state.get(slot.key, MISSING)
        if value is not MISSING:
            self._apply(slot, value)
        elif not self.read_only:
            with self._reporting(slot):
                mine = slot.taken = slot.had = slot.read()
                ack = self._begun[slot.key] = self.state.bus.write(mine, key=slot.key, expect=0)
                _ = ack.error  # that another was first is no failure: nobody need look at it

    def _agree(self) -> None:
        """Wait until it is settled who was first, and take what they have."""
        begun, self._begun = self._begun, {}
        for key, ack in begun.items():
            with self._reporting(self._slots[key]):
                with contextlib.suppress(Conflict):
                    ack.result(BEGIN_SECONDS)
                self.state.bus.arrivals.wait(
                    lambda key=key: None if key in self.state else NOT_YET,  # type: ignore[misc]
                    BEGIN_SECONDS,
                    f"{key} has not arrived",
                )
        self._catch_up()

    # --- towards the state ------------------------------------------------------------------------------------------

    def program_sets(self, slot: BoundTrait) -> None:
        if self._closed:
            return
        with self._reporting(slot):
            value = slot.read()
            if value is MISSING or same(value, slot.had):
                return
            if self.read_only:
                self._snap_back(slot)
            else:
                self._write(slot, value)
            return
        slot.send_by_comm()

    def _snap_back(self, slot: BoundTrait) -> None:
        if not slot.warned:
            slot.warned = True
            logger.warning("%s is shared read_only here: it shows what others set.", slot.key)
        known = self.state.get(slot.key, MISSING)
        if known is not MISSING:
            self._apply(slot, known)

    def _write(self, slot: BoundTrait, value: Any) -> None:
        slot.had = value
        if not same(value, self.state.get(slot.key, MISSING)):
            self.state[slot.key] = value
        slot.taken = value
        slot.unfit = False

    @contextlib.contextmanager
    def _reporting(self, slot: BoundTrait) -> Iterator[None]:
        """What can't be shared is said, and stays this notebook's own."""
        try:
            yield
        except (EbusError, UnshareableError, TimeoutError) as error:
            logger.error("%s of %s is not shared: %s", slot.trait, self.state.bus.name, error)

    def page_sends(self, slot: BoundTrait, value: Any) -> bool:
        if slot.model_id in self._live:
            slot.proposed = portable(value)
            self._correct(slot)
            return False
        known = self.state.get(slot.key, MISSING)
        moved_on = known is not MISSING and not same(known, slot.taken)
        if self.read_only or moved_on:
            if not moved_on or not self._apply(slot, known):
                slot.send_by_comm()
            return False
        return True

    def in_pages(self, slot: BoundTrait) -> bool:
        return slot.model_id in self._live

    def _correct(self, slot: BoundTrait) -> bool:
        """The state has what our own page proposed, and the widget has made something else of it: so let all have that."""
        proposed = slot.proposed
        known = self.state.get(slot.key, MISSING)
        if proposed is MISSING or self.read_only or not same(known, proposed) or not same(slot.taken, known):
            return False
        slot.proposed = MISSING
        if not slot.unfit:
            return False
        with self._reporting(slot):
            self._write(slot, slot.read())
        return True

    def _page_says(self, _: Any, content: Any, buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        if content.get("ebus") == "live":
            fresh = set(content.get("targets", ())) - self._live
            self._live |= fresh
            for slot in self._slots.values():
                if slot.unfit and slot.model_id in fresh:
                    self._tell_fit(slot)
        elif content.get("ebus") == "status" and content.get("status") == "closed":
            self._live.clear()

    # --- from the state ---------------------------------------------------------------------------------------------

    def _from_state(self, change: Change) -> None:
        """Called on the client's thread; a widget is touched on the kernel's loop only, between cells."""
        if change.local or change.key not in self._slots:
            return
        with self._lock:
            first = not self._dirty
            self._dirty.add(change.key)
        if first:
            _soon(self._loop, self._catch_up)

    def _catch_up(self) -> None:
        """Take what the state holds now, which may be newer than what called us."""
        with self._lock:
            dirty, self._dirty = self._dirty, set()
        if self._closed:
            return
        touched = {slot.model_id for key in dirty if (slot := self._slots.get(key)) is not None}
        for slot in list(self._slots.values()):
            # What did not fit may do so now that the widget's other traits have changed too.
            if slot.key in dirty or (slot.unfit and slot.model_id in touched):
                value = self.state.get(slot.key, MISSING)
                if value is not MISSING:
                    self._apply(slot, value)

    def _apply(self, slot: BoundTrait, value: Any) -> bool:
        """Let the widget have ``value``; returns whether that changed it."""
        slot.taken = value
        why = "it makes something else of it"
        try:
            before = slot.had = slot.read()
            if before is MISSING or same(before, value):
                slot.unfit = False
                return False
            try:
                slot.put(value)
            except traitlets.TraitError as error:
                why = str(error)
            after = slot.had = slot.read()
        except Exception:  # a widget's own code, or an observer of the program's
            logger.exception("%s of %s could not be shown", slot.trait, self.state.bus.name)
            return False
        slot.unfit = not same(after, value)
        if slot.unfit and not self._correct(slot):
            if not slot.warned:
                slot.warned = True
                logger.warning("the shared value of %s does not fit this widget: %s", slot.key, why)
            self._tell_fit(slot)
        elif not slot.unfit:
            slot.warned = False
        return not same(before, after)

    def _tell_fit(self, slot: BoundTrait) -> None:
        """Pages that have the state's value are to show what the widget makes of it."""
        if self._handle is not None and self.in_pages(slot):
            with contextlib.suppress(TypeError, ValueError):  # binary: pages show what the state has
                fit = {"target": slot.model_id, "trait": slot.trait, "of": slot.taken, "value": slot.read()}
                self._handle.send({"ebus": "fit", **fit})

    def _closing(self, change: dict[str, Any]) -> None:
        if change["new"] is None:
            self.close()


def _soon(loop: asyncio.AbstractEventLoop | None, job: Callable[[], None]) -> None:
    """Do it on the kernel's loop; where there is none, here."""
    if loop is None:
        job()
    else:
        with contextlib.suppress(RuntimeError):  # the kernel is ending
            loop.call_soon_threadsafe(job)


_shares: dict[str, list[Share]] = {}
"""By the id of the model; each leaves when it closes."""


def share(
    widget: W,
    name: str,
    *,
    scope: str = "server",
    traits: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    read_only: bool = False,
) -> W:
    """Make ``widget`` one live value in every notebook that shares ``name``; a container, with all that is in it.

    Args:
        widget: Any ipywidgets widget: a control, a container, an anywidget, one of another library.
        name: Names what is shared, within its scope.
        scope: Who shares it: "kernel", "user", "server" (default) or "hub".
        traits: Just what to share: traits, keys of widgets inside it (``children/0/value``), patterns (``children/*/value``).
            Default: what a person changes in it; of widgets that are not ipywidgets' own, all public traits except looks.
        exclude: What to leave out, named likewise.
        read_only: This notebook follows: what is done to the widget here snaps back.

    Returns:
        The widget itself. Shared already, it is shared anew under ``name``.

    Raises:
        ValueError: The widget has no such trait, or nothing to share.
        SpecConflict: ``name`` is a bus of another kind.
        ConnectionLost, TimeoutError: The broker did not answer.
    """
    chosen, without = _listed(traits), _listed(exclude) or ()

    def planner(root: ipywidgets.Widget) -> Plan:
        return plan(root, chosen, without)

    planner(widget)  # what can't be is said before anything is made
    unshare(widget)
    _add(widget, default_client().state(name, scope=scope), planner, read_only)
    return widget


def unshare(widget: W) -> W:
    """The widget is this notebook's own again, also one inside a shared container. Without effect on one not shared."""
    for shared in list(_shares.get(widget._model_id, ())):
        shared.close()
    for slot in slots_of(widget):
        if isinstance(slot.owner, Share):
            slot.owner.leave(widget)
    return widget


def link(source: tuple[W, str], state: State, key: str) -> W:
    """Tie one trait of a widget to one entry of a shared state: ``ebus.link((slider, "value"), dash, "speed")``.

    Args:
        source: A widget and the name of its trait. A trait has one tie: a new one replaces it.
        state: The state, as `ebus_jupyter.state` gives it. The trait takes the entry's value, or begins it.
        key: The entry.

    Returns:
        The widget; `unshare` unties it.

    Raises:
        ValueError: The widget has no such trait.
    """
    widget, trait = source
    found = plan(widget, [trait])
    if found.holders or len(found.spots) != 1:
        raise ValueError(
            f"{trait!r} holds other widgets; link their traits, or share {type(widget).__name__} as a whole."
        )

    def planner(root: ipywidgets.Widget) -> Plan:
        return Plan([Spot(root, trait, key)], [])

    _add(widget, state.clone(), planner, False)
    return widget


def _add(widget: ipywidgets.Widget, state: State, planner: Planner, read_only: bool) -> None:
    try:
        shared = Share(widget, state, planner, read_only=read_only)
    except BaseException:
        state.close()
        raise
    _shares.setdefault(shared._id, []).append(shared)


def _listed(names: Iterable[str] | None) -> list[str] | None:
    if names is None:
        return None
    return [names] if isinstance(names, str) else list(names)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
