"""The common base of the ready-made widgets: one bus each, drawn by a page module of the widget's own.

The page module, ``static/widgets/NAME.js``, talks to the bus itself, so the widget keeps working while this kernel is busy
or dead. The Python side opens the same bus and gives programs access to it.
"""

from __future__ import annotations

from typing import Any, Unpack

import traitlets

import ebus_jupyter as ebus
from ebus_jupyter.client.bus import Bus
from ebus_jupyter.client.open import StateOptions
from ebus_jupyter.core.protocol.message import Retain
from ebus_jupyter.widgets.page import STATIC, PageWidget, coordinates


def own_bus(name: str, type: Any = Any, *, retain: Retain = "log", **options: Unpack[StateOptions]) -> Bus[Any, Any]:
    """The bus of a ready-made widget.

    Anyone in its scope may have made it before. The widget insists on its own type and retention, and on no filter: what it
    shows as a person's words, vote or drawing is theirs. Its pages insist on the same.

    Raises:
        SpecConflict: The bus that is there is another one; the error says whose filter it has.
    """
    options["filter"] = False
    return ebus.bus(name, type, retain=retain, **options)


def status_bus(scope: str | None) -> Bus[Any, Any]:
    """A bus for a widget that only needs a connection. Default scope: "user", because it outlives this kernel."""
    return own_bus("status", scope=scope or "user", retain="latest")


class BusView(PageWidget):
    """A view of one bus, drawn by the page module that ``_face`` names.

    Args:
        bus: The bus. It is closed with the widget.
        title: The widget's heading.

    Attributes:
        bus: The bus, for programs.
    """

    _view_name = traitlets.Unicode("AnyView").tag(sync=True)
    _face = traitlets.Unicode().tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)

    def __init__(self, bus: Bus[Any, Any], title: str, **traits: Any) -> None:
        self.bus = bus
        super().__init__(_bus=coordinates(bus), title=title, **traits)

    def close(self) -> None:
        """Close the widget in all pages, and its bus. What was written stays on the bus."""
        super().close()
        if hasattr(self, "bus"):
            self.bus.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.bus.name}>"

    def _receive(self, widget: Any, content: Any, buffers: list[Any]) -> None:
        if isinstance(content, dict) and content.get("ebus") == "face":  # a page that cannot import the module
            text = (STATIC / "widgets" / f"{self._face}.js").read_text(encoding="utf-8")
            self.send({"ebus": "face", "text": text})
        else:
            super()._receive(widget, content, buffers)
