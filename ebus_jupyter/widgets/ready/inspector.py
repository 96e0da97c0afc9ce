"""Shows the buses within reach: their participants, their rates over time, and the messages of a chosen one.

ebus.widgets.Inspector()
"""

from __future__ import annotations

import traitlets

from .view import BusView, status_bus


class Inspector(BusView):
    """The buses that this user can open, by scope.

    Args:
        scope: Show the buses of this scope only. Default: all scopes.
        title: The widget's heading.
    """

    _face = traitlets.Unicode("inspector").tag(sync=True)
    scope = traitlets.Unicode().tag(sync=True)

    def __init__(self, *, scope: str = "", title: str = "Buses") -> None:
        super().__init__(status_bus(None), title, scope=scope)
