"""What the ready-made widgets have in common: one bus each, and a page side of their own that draws it.

The page side, ``static/widgets/NAME.js``, talks to the bus by itself: the widget goes on while this kernel is busy, or
dead. The Python side opens the same bus and gives programs access to it.
"""

from __future__ import annotations

from typing import Any

import traitlets

import ebus_jupyter as ebus
from ebus_jupyter.client.bus import Bus
from ebus_jupyter.widgets.page import STATIC, PageWidget, coordinates


def own_bus(scope: str | None) -> Bus[Any, Any]:
    """A bus for a widget that only needs to be connected; by default the user's, who outlives this kernel."""
    return ebus.bus("status", scope=scope or "user", retain="latest")


class BusView(PageWidget):
    """A widget that is drawn by the page module named by ``_face``.

    Args:
        bus: What it is about. It is closed with the widget.
        title: What stands in its head.

    Attributes:
        bus: To take part from a program.
    """

    _view_name = traitlets.Unicode("AnyView").tag(sync=True)
    _face = traitlets.Unicode().tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)

    def __init__(self, bus: Bus[Any, Any], title: str, **traits: Any) -> None:
        self.bus = bus
        super().__init__(_bus=coordinates(bus), title=title, **traits)
        self.on_msg(self._send_face)

    def close(self) -> None:
        """Close it in all pages. What was written stays on the bus."""
        super().close()
        self.bus.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.bus.name}>"

    def _send_face(self, _widget: Any, content: Any, _buffers: Any) -> None:
        # Only a page that no server serves asks for it.
        if isinstance(content, dict) and content.get("ebus") == "face":
            text = (STATIC / "widgets" / f"{self._face}.js").read_text(encoding="utf-8")
            self.send({"ebus": "face", "text": text})
