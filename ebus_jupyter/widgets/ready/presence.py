"""Shows the people on a bus, and what their kernels are doing.

here = ebus.widgets.Presence("lobby")          # everyone who shows this widget
here = ebus.widgets.Presence(votes)            # everyone on the bus `votes`
here.people                                    # ["Alice", "Bob"]
"""

from __future__ import annotations

from typing import Any

import traitlets

from ebus_jupyter.client.bus import Bus
from ebus_jupyter.client.presence import Seat

from .view import BusView, own_bus


class Presence(BusView):
    """The participants of a bus.

    Args:
        room: A bus, or a name for a bus ``presence:NAME`` of the widget's own.
        scope: "server" (default), "user" or "kernel"; used only if ``room`` is a name.
        title: The widget's heading. Default: the name.
    """

    _face = traitlets.Unicode("presence").tag(sync=True)

    def __init__(self, room: str | Bus[Any, Any], *, scope: str = "server", title: str | None = None) -> None:
        if isinstance(room, str):
            super().__init__(own_bus(f"presence:{room}", scope=scope, retain="latest"), title or room)
        else:
            super().__init__(room.clone(), title or room.name)

    @property
    def seats(self) -> list[Seat]:
        """All participants, pages and kernels, with ``who``, ``here``, ``since``, ``state`` and ``activity``."""
        return self.bus.presence.seats()

    @property
    def people(self) -> list[str]:
        """The sorted names of the people whose pages are connected."""
        return sorted({seat.who.name or seat.who.user for seat in self.seats if seat.here and seat.who.kind == "page"})
