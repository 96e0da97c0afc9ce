"""Looks into the buses within reach: participants, rates over time, and what is being said on one of them.

ebus.widgets.Inspector()
"""

from __future__ import annotations

import traitlets

from .view import BusView, own_bus


class Inspector(BusView):
    """The buses that this user can enter, by scope.

    Args:
        scope: Show those of this scope only. Default: all.
        title: What stands above it.
    """

    _face = traitlets.Unicode("inspector").tag(sync=True)
    scope = traitlets.Unicode().tag(sync=True)

    def __init__(self, *, scope: str = "", title: str = "Buses") -> None:
        super().__init__(own_bus(None), title, scope=scope)
