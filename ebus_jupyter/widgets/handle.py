"""A bus as a value in a page: what a `WidgetTrait` of anyone's anywidget holds after a `Bus` is assigned to it."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import traitlets

from ebus_jupyter.client.bus import Bus
from ebus_jupyter.client.topic import Topic

from .page import PageWidget, coordinates

_handles: WeakKeyDictionary[Topic, BusHandle] = WeakKeyDictionary()


class BusHandle(PageWidget):
    """Stands for one bus in pages. It exports the bus itself::

    const { exports: bus } = await host.getWidget(model.get("bus"));
    """

    _entry = traitlets.Unicode("attachBus").tag(sync=True)


def model_id(bus: Bus[Any, Any]) -> str:
    """The id of the model that stands for ``bus``; all holders of the bus in this process share one model."""
    handle = _handles.get(bus.topic)
    if handle is None or handle.comm is None:
        handle = _handles[bus.topic] = BusHandle(_bus=coordinates(bus))
    found: str = handle.model_id
    return found
