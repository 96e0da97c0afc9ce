"""The storage seam: where a bus's log is stored.

A backend puts entries in order and keeps them. It knows nothing of types, filters or participants. Every backend passes
`tests/contracts/backend.py`, whose headings are the promises below.

- *Sequenced.* `append` assigns to each entry an offset greater than all before it on that bus, and never assigns one twice.
- *Log before fan-out.* What `append` returns is kept already, and survives the process as far as the backend claims to
  keep anything.
- *Whole or nothing.* A batch for one bus is kept as a whole or not at all.
- *Bounded.* A bus holds what its spec and `core.protocol.log` say, and remembers the ids of each client's last writes for
  longer than that, as `core.broker.answers` does. (Keys are never dropped: the broker refuses a write that would make too
  many.) The number of buses is bounded.

There are two kinds. The broker is the only writer of a *local* backend (`Backend`): what `append` returns is committed, in
the order in which the broker appended it. A *shared* engine (`SharedBackend`) serves several brokers: `append` only
acknowledges, and the entries of all brokers arrive by a feed, the broker's own among them. An entry may arrive before its
acknowledgement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

from ebus_jupyter.core.broker.entry import Entry
from ebus_jupyter.core.broker.kept import Kept
from ebus_jupyter.core.protocol.message import BusSpec
from ebus_jupyter.errors import TooLarge

Sink = Callable[[Sequence[Entry]], None]


class Backend(Protocol):
    """Logs, by bus address. A method that can fail raises `BackendError`, and then has kept nothing."""

    async def open(self, bus: str, spec: BusSpec | None, epoch: str) -> Kept | None:
        """Open the log of ``bus``. Where there is none, create it with ``spec`` and ``epoch``.

        Returns:
            What is kept of the bus; None where there is no log and no ``spec``.

        Raises:
            TooLarge: There would be too many buses (`too_many_buses`).
        """

    async def append(self, batch: Sequence[Entry]) -> Sequence[Entry]:
        """Append ``batch`` in this order. All of its buses were opened before.

        Returns:
            The entries of ``batch``, with their offsets.
        """

    def append_now(self, batch: Sequence[Entry]) -> Sequence[Entry] | None:
        """Append ``batch`` without waiting, where that takes microseconds. None: it does not, and `append` is to be awaited."""

    def read(self, bus: str, after: int, max_bytes: int) -> tuple[list[Entry], int]:
        """Read the oldest entries after offset ``after`` of a bus with ``retain="log"``, which was opened before.

        It is called on the event loop, and takes time in proportion to ``max_bytes``. The broker asks for what `open` has
        left out. (A shared engine leaves nothing out, and is not asked.)

        Args:
            bus: The bus.
            after: The offset.
            max_bytes: The bytes of the entries to return; at least one entry is returned if there is one.

        Returns:
            The entries, and the last offset that was dropped. Where ``after`` is less than that, there are no entries.
        """

    async def buses(self) -> dict[str, BusSpec]:
        """The buses that have a log, by address."""

    async def alter(self, bus: str, spec: BusSpec) -> None:
        """Replace the spec of ``bus``. What it retains stays the same, and its size does not shrink: no entry is dropped.
        Without effect where there is no log."""

    async def delete(self, bus: str) -> None:
        """Delete the log of ``bus``. Without effect where there is none."""

    async def aclose(self) -> None:
        """Finish what was begun and release everything. Safe to call twice."""


@runtime_checkable
class SharedBackend(Backend, Protocol):
    """The logs of an engine that several brokers share."""

    def on_committed(self, sink: Sink) -> None:
        """Report each entry that any broker commits from now on to ``sink``, once, in the order of offsets.

        Called once, before the first `append`. A reported entry may be another object than the one that was appended.
        """


def reader(backend: Backend, bus: str) -> Callable[[int, int], tuple[list[Entry], int]] | None:
    """A function that reads the log of one bus, see `Backend.read`; None where `Backend.open` returns all of it."""
    return None if isinstance(backend, SharedBackend) else partial(backend.read, bus)


def too_many_buses(limit: int) -> TooLarge:
    """The error of a backend that keeps ``limit`` buses and no more."""
    return TooLarge(f"this server keeps {limit} buses (its limit `kept_buses`); delete some first.", limit="kept_buses")
