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

STATIC = Path(ebus_jupyter.__file__).parent / "static"


def coordinates(bus: Bus[Any, Any]) -> dict[str, str]:
    """How a page opens ``bus``: by scope and name, or by the capability that only the broker can make."""
    return {"scope": bus.scope, "name": bus.name, "owner": bus.link.owner, "cap": bus.link.cap}


class PageWidget(anywidget.AnyWidget):
    """A widget without a face, whose page side is a function of the client named by ``_entry``."""

    _esm = STATIC / "stub.js"
    _view_name = traitlets.Any(None, allow_none=True).tag(sync=True)
    _version = traitlets.Unicode(ebus_jupyter.__version__).tag(sync=True)
    _entry = traitlets.Unicode().tag(sync=True)
    _bus = traitlets.Dict().tag(sync=True)
