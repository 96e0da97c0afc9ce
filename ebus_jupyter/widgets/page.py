"""What every widget of ours does in a page: load the page's one client, and say which bus it is about.

The server extension serves the client at ``{base}ebus/client.js``; a widget's own module is a stub that imports it from
there, so that its text does not travel with each widget and the page holds one connection however many widgets it shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

import ebus_jupyter
from ebus_jupyter.client.bus import Bus

from . import comm_tunnel as relay

STATIC = Path(ebus_jupyter.__file__).parent / "static"


def coordinates(bus: Bus[Any, Any]) -> dict[str, Any]:
    """How a page opens ``bus``: by scope and name, or by the capability that only the broker can make.

    ``kernel`` names this kernel's client, for a page that can only go through it; ``embedded`` says that it must.
    """
    return {
        "scope": bus.scope,
        "name": bus.name,
        "owner": bus.channel.owner,
        "cap": bus.channel.cap,
        "kernel": relay.key_of(bus.client),
        "embedded": bus.client.embedded,
    }


class PageWidget(anywidget.AnyWidget):
    """A widget without a face, whose page side is a function of the client named by ``_entry``."""

    _esm: Any = STATIC / "stub.js"
    _view_name = traitlets.Any(None, allow_none=True).tag(sync=True)
    _version = traitlets.Unicode(ebus_jupyter.__version__).tag(sync=True)
    _entry = traitlets.Unicode().tag(sync=True)
    _bus = traitlets.Dict().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        if traits.get("_bus", {}).get("embedded"):
            self._esm = self.client_text()  # no server serves the client: the widget brings it along
        super().__init__(**traits)
        self.on_msg(relay.page_says)

    @staticmethod
    def client_text() -> str:
        """The page's client and these entries, in one module."""
        return (STATIC / "bundle.js").read_text(encoding="utf-8")

    def close(self) -> None:
        """Close it in all pages, and the layout that ipywidgets gives every widget."""
        super().close()
        self.layout.close()
