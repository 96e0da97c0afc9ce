"""Shows the state of this page's connection, and what its kernel does.

ebus.widgets.Status()              # of this page and this kernel
ebus.widgets.Status(votes)         # of the bus `votes`, with the number of messages that a slow page has missed
"""

from __future__ import annotations

from typing import Any

import traitlets

import ebus_jupyter as ebus
from ebus_jupyter.client.bus import Bus

from .view import BusView, status_bus


class Status(BusView):
    """Live, reconnecting, lagged or closed.

    Args:
        bus: The bus to show. Default: the bus ``status`` in ``scope``.
        scope: "user" (default), "kernel" or "server"; ignored if ``bus`` is given.
        title: The widget's heading.
    """

    _face = traitlets.Unicode("status").tag(sync=True)
    _kernel = traitlets.Unicode().tag(sync=True)

    def __init__(self, bus: Bus[Any, Any] | None = None, *, scope: str | None = None, title: str = "Status") -> None:
        shown = status_bus(scope) if bus is None else bus.clone()
        you = shown.client.you
        super().__init__(shown, title, _kernel=you.kernel_id if you else "")

    def __str__(self) -> str:
        return ebus.status()
