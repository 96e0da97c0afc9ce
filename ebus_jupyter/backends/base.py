"""Where a bus's log lives: one seam, a page long.

A backend puts entries in order and keeps them. It knows nothing of types, filters or participants. Every backend
passes `tests/contracts/backend.py`; the promises below are that suite's headings.

- *Sequenced.* `append` gives each entry an offset greater than all before it on that bus, never reused.
- *Log before fan-out.* What `follow` reports is kept already; what `append` has answered survives the process
  (as far as the backend says it keeps anything).
- *Everyone hears.* Each kept entry is reported to the follower once, in the order of offsets, the writer's own too.
- *Whole or nothing.* A batch for one bus is kept as a whole or not at all.
- *Bounded.* A bus holds what its spec and `core.protocol.log` say, and remembers the ids of its last writes longer than that.
  (Keys are never dropped: that there are not too many of them is the broker's care, before it appends.) There are no more
  buses than it was told to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ebus_jupyter.core.broker.entry import Entry, Kept
from ebus_jupyter.core.protocol.message import BusSpec
from ebus_jupyter.errors import TooLarge

Sink = Callable[[Sequence[Entry]], None]


class Backend(Protocol):
    """Logs, by bus address. Methods that can fail raise `BackendError`, and then nothing was kept."""

    async def open(self, bus: str, spec: BusSpec | None, epoch: str) -> Kept | None:
        """What is kept of ``bus``. Where nothing is: begin it with ``spec`` and ``epoch``, or None without a spec.

        Raises:
            TooLarge: There would be too many buses (`no_room`).
        """

    async def append(self, batch: Sequence[Entry]) -> list[int]:
        """Keep ``batch``, in this order; the offset given to each. An entry of a bus never opened: `BackendError`."""

    def append_now(self, batch: Sequence[Entry]) -> list[int] | None:
        """The same without waiting, where that takes microseconds and nothing is in the way; None: it is to be awaited."""

    def on_committed(self, sink: Sink) -> None:
        """Report every entry kept from now on to ``sink``, in order. One follower; called before the first `append`."""

    async def buses(self) -> dict[str, BusSpec]:
        """Every bus kept, by its address."""

    async def delete(self, bus: str) -> None:
        """Forget ``bus`` and its log. Without effect where there is none."""

    async def aclose(self) -> None:
        """Finish what was begun and let go of everything. Safe to call twice."""


def no_room(buses: int) -> TooLarge:
    """What a backend says that keeps ``buses`` buses, and no more."""
    return TooLarge(f"this server keeps {buses} buses (its limit `kept_buses`); delete some first.", limit="kept_buses")
