"""The interface of the host that its parts use. It has a file of its own so that no part imports the host."""

from __future__ import annotations

from typing import Protocol

from ebus_jupyter.core.broker.effects import Effect


class Performer(Protocol):
    """Performs effects."""

    def perform(self, effects: list[Effect]) -> None:
        """Perform ``effects``, in order. What they send goes out in the next iteration of the event loop."""

    def flush(self) -> None:
        """Send what waits to be sent, now."""
