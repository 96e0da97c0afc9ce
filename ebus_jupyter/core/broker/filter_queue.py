"""Writes that wait for their bus's filter.

A filter runs elsewhere: in the kernel that owns the bus, or in the server. It may answer slowly and out of order. Each
sender's writes wait in a queue of their own, and leave it only from its front: a sender's writes keep their order, and a
slow answer delays no other sender.

A filter has `Limits.filter_seconds` for each value. A write without an answer by then is refused, and a later answer is
ignored. Nothing is ever accepted unfiltered.
"""

from __future__ import annotations

from collections import deque

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import OWNER, public
from ebus_jupyter.errors import EbusError, Filtered, FilterUnavailable, TooLarge

from .bus_info import BusInfo
from .effects import Effect, Filter, Send
from .entry import Entry, Writer


class Pending(msgspec.Struct, gc=False):
    """A write that waits for the filter's answer, or behind an earlier write of its sender that does.

    Attributes:
        sender: The id of the participant that writes.
        entry: The write.
        deadline: The time by which the filter must have answered.
        value: The filter's answer.
        error: The reason for refusing the write.
    """

    sender: str
    entry: Entry
    deadline: float
    value: bytes | None = None
    error: EbusError | None = None

    @property
    def is_decided(self) -> bool:
        return self.value is not None or self.error is not None


class FilterQueue:
    """The writes to one bus that its filter has not decided on.

    Args:
        bus: The bus, whose spec names a filter.

    Attributes:
        owners: The connections that offer to run the owner's filter. The first one runs it.
    """

    __slots__ = ("_bus", "_last_request", "_queues", "_requests", "owners")

    def __init__(self, bus: BusInfo) -> None:
        self._bus = bus
        self._queues: dict[str, deque[Pending]] = {}  # by sender
        self._requests: dict[int, Pending] = {}
        self._last_request = 0
        self.owners: tuple[int, ...] = ()

    def is_full_for(self, sender: str) -> bool:
        """True if ``sender`` has as many writes waiting as one may."""
        queue = self._queues.get(sender)
        return queue is not None and len(queue) >= self._bus.limits.pending

    @property
    def next_deadline(self) -> float | None:
        """The time by which the filter must have answered its oldest request; None where there is none."""
        return next(iter(self._requests.values())).deadline if self._requests else None

    def check_available(self) -> None:
        """Raise `FilterUnavailable` where the owner runs the filter and is away."""
        if self._bus.spec.filter == OWNER and not self.owners:
            raise FilterUnavailable(
                f"{self._bus.name} is filtered by a kernel that is away; nothing is accepted unfiltered. Try again when "
                "it is back, or run the cell that makes the bus."
            )

    def submit(self, entry: Entry, writer: Writer, now: float) -> Effect:
        """Queue a write, and return the effect that asks the filter about it."""
        bus = self._bus
        pending = Pending(writer.id, entry, now + bus.limits.filter_seconds)
        self._queues.setdefault(writer.id, deque()).append(pending)
        self._last_request = request = self._last_request + 1
        self._requests[request] = pending
        if bus.spec.filter == OWNER:
            question = frames.FilterAsk(bus.number, request, msgspec.Raw(entry.value), public(writer.who))
            return Send(self.owners[0], frames.encode(question))
        assert bus.spec.filter is not None
        return Filter(bus.address, request, bus.spec.filter, entry.value, writer.who)

    def answered(self, request: int, value: bytes, error: EbusError | str | None) -> list[Pending]:
        """Take in the filter's answer.

        Args:
            request: The number of the request that it answers. An unknown one is ignored: it came after its deadline.
            value: The value to keep.
            error: The filter's reason for refusing the write, as text; or the error that kept it from deciding.

        Returns:
            The writes that are decided now, in the order in which their sender made them.
        """
        pending = self._requests.pop(request, None)
        if pending is None:
            return []
        if isinstance(error, str):
            pending.error = Filtered(f"{self._bus.name}: {error}", reason=error)
        elif error is not None:
            pending.error = error
        else:
            pending.value = value
        return self._take_decided(pending.sender)

    def expire(self, now: float, reason: str = "") -> list[Pending]:
        """Refuse the writes whose deadline has passed; with a ``reason``, all of them.

        Returns:
            The writes that are decided now.
        """
        decided: list[Pending] = []
        why = reason or f"did not answer within {self._bus.limits.filter_seconds:g} s"
        while self._requests:  # the oldest first: its deadline is the earliest
            request, pending = next(iter(self._requests.items()))
            if not reason and pending.deadline > now:
                break
            del self._requests[request]
            pending.error = FilterUnavailable(f"{self._bus.name}: the filter {why}; the write was not accepted.")
            decided += self._take_decided(pending.sender)
        return decided

    def _take_decided(self, sender: str) -> list[Pending]:
        decided: list[Pending] = []
        queue = self._queues.get(sender)
        while queue and queue[0].is_decided:
            pending = queue.popleft()
            if pending.error is None:
                self._apply_answer(pending)
            decided.append(pending)
        if not queue:
            self._queues.pop(sender, None)
        return decided

    def _apply_answer(self, pending: Pending) -> None:
        """Put the filter's value into the entry, or refuse the write where the value is not acceptable."""
        bus, value = self._bus, pending.value
        assert value is not None
        try:
            if len(value) > bus.limits.value_bytes:
                raise TooLarge(f"{bus.name}: the filter's answer is too large.", limit="value_bytes")
            if not pending.entry.deleted:
                bus.emits.check(value, f"{bus.name} (its filter's answer)")
                pending.entry.value = value
        except EbusError as error:
            pending.error = error.anew()  # a raised error refers to all that its stack does: this queue, for one
