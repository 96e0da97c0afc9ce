"""Whether this page is connected, in honest words; and what its kernel does.

ebus.widgets.Status()              # of this page and this kernel
ebus.widgets.Status(votes)         # of the bus `votes`: tells what a slow page has missed, too
"""

from __future__ import annotations

from typing import Any

import traitlets

import ebus_jupyter as ebus
from ebus_jupyter.client.bus import Bus

from .view import BusView, own_bus


class Status(BusView):
    """Live, reconnecting, lagged or closed.

    Args:
        bus: The bus in question. Default: one of its own, ``status`` in ``scope``.
        scope: "user" (default), "kernel" or "server".
        title: What stands above it.
    """

    _face = traitlets.Unicode("status").tag(sync=True)
    _kernel = traitlets.Unicode().tag(sync=True)

    def __init__(self, bus: Bus[Any, Any] | None = None, *, scope: str | None = None, title: str = "Status") -> None:
        watched = own_bus(scope) if bus is None else bus.clone()
        you = watched.client.you
        super().__init__(watched, title, _kernel=you.kernel_id if you else "")

    def __str__(self) -> str:
        return ebus.status()
