"""Looks into the buses within reach: participants, rates over time, and what is being said on one of them.

ebus.widgets.Inspector()
"""

from __future__ import annotations

import traitlets

import ebus_jupyter as ebus

from .face import Face


class Inspector(Face):
    """The buses that this user can enter, by scope.

    Args:
        scope: Show those of this scope only. Default: all.
        title: What stands above it.
    """

    _face = traitlets.Unicode("inspector").tag(sync=True)
    scope = traitlets.Unicode().tag(sync=True)

    def __init__(self, *, scope: str = "", title: str = "Buses") -> None:
        super().__init__(ebus.bus("status", scope="kernel", retain="latest"), title, scope=scope)
