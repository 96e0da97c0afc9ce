"""The former place of the whiteboard, which notebooks import `Piece` from. New code imports from `ebus_jupyter.widgets`."""

from __future__ import annotations

from .ready.whiteboard import Piece, Whiteboard

__all__ = ["Piece", "Whiteboard"]
