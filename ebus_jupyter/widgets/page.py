"""The base of all widgets of this package: each loads the page's one client, and tells it which bus the widget shows.

The server extension serves the client at ``{base}ebus/client.js``. A widget's own module is a stub that imports it from
there, so the client's text does not travel with each widget, and the page holds one connection for all of them. A page that
cannot import the client asks the kernel for its text by a custom message: ``{"ebus": "client"}``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

import ebus_jupyter
from ebus_jupyter.client.bus import Bus

from . import comm_tunnel

STATIC = Path(ebus_jupyter.__file__).parent / "static"
"""The folder of the built JavaScript."""


INSISTED = ("filter", "schema", "retain")
"""The fields of a spec that decide what a message means."""


def coordinates(bus: Bus[Any, Any]) -> dict[str, Any]:
    """The coordinates by which a page opens ``bus``: its scope and name, or the capability that the broker has minted for it.

    ``kernel`` is this kernel's client, for a page that connects through the kernel; ``embedded`` says that a page must.
    ``insist`` are the fields of the spec that the page insists on, where this kernel insists that the bus has no filter: the
    bus may be deleted and made anew by another user, and the page must not take that one for it.
    """
    given = bus.channel.given
    insists = "filter" in given and given["filter"] is None
    return {
        "insist": {field: given[field] for field in INSISTED if insists and field in given},
        "scope": bus.scope,
        "name": bus.name,
        "owner": bus.owner,
        "cap": bus.capability,
        "kernel": comm_tunnel.client_key(bus.client),
        "embedded": bus.client.embedded,
    }


class PageWidget(anywidget.AnyWidget):
    """A widget without a view. Its page side is the function of the client that ``_entry`` names."""

    _esm: Any = STATIC / "stub.js"
    _view_name = traitlets.Any(None, allow_none=True).tag(sync=True)
    _version = traitlets.Unicode(ebus_jupyter.__version__).tag(sync=True)
    _entry = traitlets.Unicode().tag(sync=True)
    _bus = traitlets.Dict().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        if traits.get("_bus", {}).get("embedded"):
            self._esm = self.client_text()  # no server serves the client, so the widget brings it along
        super().__init__(**traits)
        self.on_msg(self._receive)

    @staticmethod
    def client_text() -> str:
        """The page's client and its entry points, in one module."""
        return (STATIC / "bundle.js").read_text(encoding="utf-8")

    def close(self) -> None:
        """Close the widget in all pages, and with it the layout that ipywidgets gives every widget."""
        if self.comm is not None:  # not one whose construction has failed, which is closed when it is collected
            super().close()
            self.layout.close()

    def _receive(self, _widget: Any, content: Any, buffers: list[Any]) -> None:
        if not isinstance(content, dict):
            return
        if content.get("ebus") == "client":
            self.send({"ebus": "client", "text": self.client_text()})
        else:
            comm_tunnel.receive(self, content, buffers)
