"""Buses in pages.

`Chat`, `Presence`, `Whiteboard`, `Poll`, `Inspector` and `Status` are ready-made widgets; `Piece` is what a `Whiteboard` is
made of. `handle` gives a bus to anyone's widget; `sharing` makes any widget one live value for everybody.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ebus_jupyter.widgets.ready.chat import Chat
    from ebus_jupyter.widgets.ready.inspector import Inspector
    from ebus_jupyter.widgets.ready.poll import Poll
    from ebus_jupyter.widgets.ready.presence import Presence
    from ebus_jupyter.widgets.ready.status import Status
    from ebus_jupyter.widgets.ready.whiteboard import Piece, Whiteboard

__all__ = ["Chat", "Inspector", "Piece", "Poll", "Presence", "Status", "Whiteboard"]

_MODULES = {"Piece": "whiteboard"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ebus_jupyter.widgets' has no attribute {name!r}")
    return getattr(import_module(f".ready.{_MODULES.get(name, name.lower())}", __name__), name)


def __dir__() -> list[str]:
    return __all__
