"""Keeps the bound traits of one share and its state in agreement.

The state is the only source of truth
    A page writes a person's changes to the state itself, over its own connection, so pages follow each other while their
    kernels are busy or dead. As soon as a page has reported that it is live, this kernel ignores what the widget's comm
    brings of a bound trait, because it may be late and undo a newer value; the kernel takes the value from the state, like
    everybody. The kernel writes a program's changes, and does not send them to live pages by comm. So nothing is written
    twice, and no change travels in a circle.

The first value
    The first participant to share a name sets the state; later participants take what it holds.

Values that do not fit
    A widget may be unable to take the state's value, because its range or its options differ. It keeps what it makes of the
    value, and so do its pages. The state keeps its value, and a later value that fits is taken. Only a value that this
    kernel's own page has proposed is corrected in the state, once: a validator holds for its own page, and two widgets that
    disagree cannot start a loop.

Before a page is live
    Its changes arrive by comm and this kernel writes them, unless the state has changed meanwhile: then the state is newer.
    The page itself writes what a person does while it connects.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import traitlets

from ebus_jupyter.client.ack import Ack
from ebus_jupyter.client.state import Change, State
from ebus_jupyter.client.waiting import NOT_YET
from ebus_jupyter.core.client.replica import MISSING
from ebus_jupyter.errors import Conflict, EbusError

from .bound_trait import BoundTrait
from .share_pages import SharePages
from .traits import UnshareableError, equal, portable

SETTLE_SECONDS = 15.0
"""The time that `Reconciler.settle` waits for each key, in seconds."""

logger = logging.getLogger("ebus_jupyter")


class Reconciler:
    """Keeps bound traits and a state in agreement.

    Args:
        state: The shared state.
        bound: The bound traits by key. The mapping is live: the caller adds and removes entries.
        pages: The pages that show the widgets.
        call_soon: Runs a function on the kernel's event loop.
        read_only: Write nothing.
    """

    def __init__(
        self,
        state: State[Any],
        bound: Mapping[str, BoundTrait],
        pages: SharePages,
        call_soon: Callable[[Callable[[], None]], None],
        *,
        read_only: bool = False,
    ) -> None:
        self._state = state
        self._bound = bound
        self._pages = pages
        self._call_soon = call_soon
        self._read_only = read_only
        self._changed_keys: set[str] = set()
        self._lock = threading.Lock()
        self._closed = False
        state.on_change(self._state_changed)

    def close(self) -> None:
        """Leave the widgets and the state as they are from now on."""
        self._closed = True
        self._state.off_change(self._state_changed)

    # --- the first value --------------------------------------------------------------------------------------------

    def start(self, bound: BoundTrait) -> Ack | None:
        """Take the state's value; if there is none, propose the widget's.

        Returns:
            The ack of the proposal, for `settle`. It fails with `Conflict` if another participant was first.
        """
        value = self._state_value(bound)
        if value is not MISSING:
            self._apply(bound, value)
        elif not self._read_only:
            with self._logging_errors(bound):
                own = bound.state_value = bound.widget_value = bound.get()
                ack = self._state.bus.write(own, key=bound.key, expect=0)
                _ = ack.error  # a conflict is expected: it is not logged as an error that nobody looked at
                return ack
        return None

    def settle(self, proposals: list[tuple[BoundTrait, Ack]]) -> None:
        """Wait until the first value of each proposal is known, and take it."""
        for bound, ack in proposals:
            with self._logging_errors(bound):
                with contextlib.suppress(Conflict):
                    ack.result(SETTLE_SECONDS)
                self._state.bus.arrivals.wait(
                    lambda key=bound.key: None if key in self._state else NOT_YET,  # type: ignore[misc]
                    SETTLE_SECONDS,
                    f"{bound.key} has not arrived",
                )
        with self._lock:  # the state shows them before its listeners are told
            self._changed_keys.update(bound.key for bound, _ in proposals)
        self._catch_up()

    # --- from the widget to the state -------------------------------------------------------------------------------

    def changed(self, bound: BoundTrait) -> None:
        """A program has changed the trait: write it."""
        if self._closed:
            return
        with self._logging_errors(bound):
            value = bound.get()
            if value is MISSING or equal(value, bound.widget_value):
                return
            if self._read_only:
                self._revert(bound)
            else:
                self._write(bound, value)
            return
        bound.send_by_comm()

    def accept(self, bound: BoundTrait, value: Any) -> bool:
        """A page has sent ``value`` by comm. Returns whether the widget takes it."""
        if self.is_live(bound):
            bound.proposed = portable(value)
            self._correct(bound)
            return False
        current = self._state_value(bound)
        state_is_newer = current is not MISSING and not equal(current, bound.state_value)
        if self._read_only or state_is_newer:
            if not state_is_newer or not self._apply(bound, current):
                bound.send_by_comm()
            return False
        return True

    def is_live(self, bound: BoundTrait) -> bool:
        """True if pages have the trait's values from the bus."""
        return self._pages.is_live(bound)

    def models_live(self, model_ids: set[str]) -> None:
        """Pages have begun to take the values of these models from the bus."""
        for bound in self._bound.values():
            if bound.unfit and bound.model_id in model_ids:
                self._pages.send_fit(bound)

    def _revert(self, bound: BoundTrait) -> None:
        if not bound.warned:
            bound.warned = True
            logger.warning("%s is shared read_only here: it shows what others set.", bound.key)
        current = self._state_value(bound)
        if current is not MISSING:
            self._apply(bound, current)

    def _write(self, bound: BoundTrait, value: Any) -> None:
        bound.widget_value = value
        if not equal(value, self._state_value(bound)):
            self._state[bound.key] = value
        bound.state_value = value
        bound.unfit = False

    def _correct(self, bound: BoundTrait) -> bool:
        """Write what the widget makes of its own page's proposal, once the state holds that proposal.

        Returns:
            Whether it was written.
        """
        proposed = bound.proposed
        current = self._state_value(bound)
        if proposed is MISSING or self._read_only:
            return False
        if not equal(current, proposed) or not equal(bound.state_value, current):
            return False
        bound.proposed = MISSING
        if not bound.unfit:
            return False
        with self._logging_errors(bound):
            self._write(bound, bound.get())
        return True

    # --- from the state to the widget -------------------------------------------------------------------------------

    def _state_value(self, bound: BoundTrait) -> Any:
        value = self._state.get(bound.key, MISSING)
        return value if value is MISSING else bound.clean(value)

    def _state_changed(self, change: Change) -> None:
        """Called on the client's thread. Widgets are touched only on the kernel's loop, between cells."""
        if change.local or change.key not in self._bound:
            return
        with self._lock:
            first = not self._changed_keys
            self._changed_keys.add(change.key)
        if first:
            self._call_soon(self._catch_up)

    def _catch_up(self) -> None:
        """Apply the current values of the changed keys; intermediate values are skipped."""
        with self._lock:
            changed, self._changed_keys = self._changed_keys, set()
        if self._closed:
            return
        touched = {bound.model_id for key in changed if (bound := self._bound.get(key)) is not None}
        for bound in list(self._bound.values()):
            # A value that did not fit may do so after another trait of the widget has changed.
            if bound.key in changed or (bound.unfit and bound.model_id in touched):
                value = self._state_value(bound)
                if value is not MISSING:
                    self._apply(bound, value)

    def _apply(self, bound: BoundTrait, value: Any) -> bool:
        """Set the widget to the state's ``value``. Returns whether that changed the widget."""
        bound.state_value = value
        reason = "the widget changes it"
        try:
            before = bound.widget_value = bound.get()
            if before is MISSING or equal(before, value):
                bound.unfit = False
                return False
            try:
                bound.set(value)
            except traitlets.TraitError as error:
                reason = str(error)
            after = bound.widget_value = bound.get()
        except Exception:  # raised by the widget's own code, or by an observer of the program's
            logger.exception("%s of %s could not be shown", bound.trait, self._state.bus.name)
            return False
        bound.unfit = not equal(after, value)
        if bound.unfit and not self._correct(bound):
            if not bound.warned:
                bound.warned = True
                logger.warning("the shared value of %s does not fit this widget: %s", bound.key, reason)
            self._pages.send_fit(bound)
        elif not bound.unfit:
            bound.warned = False
        return not equal(before, after)

    @contextlib.contextmanager
    def _logging_errors(self, bound: BoundTrait) -> Iterator[None]:
        """Log what cannot be shared; the value then stays in this notebook only."""
        try:
            yield
        except (EbusError, UnshareableError, TimeoutError) as error:
            logger.error("%s of %s is not shared: %s", bound.trait, self._state.bus.name, error)
