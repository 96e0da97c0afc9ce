"""What the tests of sharing do with widgets: two notebooks are two sets of widgets in one process, and pages are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

import ebus_jupyter as ebus
from ebus_jupyter.widgets.sharing.share import Share, shares_of


def share_twice(make: Callable[[], Any], name: str = "it", **options: Any) -> tuple[Any, Any]:
    """The same widget in two notebooks."""
    return ebus.share(make(), name, **options), ebus.share(make(), name, **options)


def share_of(widget: widgets.Widget) -> Share:
    """The share that ``widget`` is the root of."""
    return shares_of(widget)[0]


async def until(check: Callable[[], Any]) -> None:
    """Run the kernel's loop, on which shared values are applied, until ``check`` holds."""
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.001)


async def settled(*shared: widgets.Widget) -> None:
    """Wait until every write has arrived everywhere, and no participant has anything left to do."""
    shares = [share_of(widget) for widget in shared]
    states = [share.state for share in shares]
    while True:
        for state in states:
            await asyncio.to_thread(state.flush)
        last = max(state.bus.last for state in states)
        await asyncio.to_thread(states[0].bus.client.buses)  # the broker answers after all that it has sent before
        await asyncio.sleep(0)
        if all(state.bus.last == last and _is_idle(share) for state, share in zip(states, shares, strict=True)):
            return


def _is_idle(share: Share) -> bool:
    """True if the share has applied all that its client has received; the steps are in the order of a change's way."""
    state = share.state
    return not (
        state._replica.busy
        or state._is_behind()
        or state._changes
        or state._telling.locked()
        or share._reconciler._changed_keys
    )


class FakePage:
    """A page that shows one widget: reports that it is live, and sends a person's changes by the widget's comm.

    Attributes:
        comm_updates: The state updates that the page received by the widget's comm.
        fits: The custom messages that the page received from the share.
    """

    def __init__(self, widget: widgets.Widget, root: widgets.Widget | None = None) -> None:
        self.widget = widget
        self.share = share_of(root or widget)
        self.comm_updates: list[dict[str, Any]] = []
        self.fits: list[dict[str, Any]] = []
        widget.comm.send = self._receive_update  # type: ignore[method-assign]
        self._handle.comm.send = self._receive_custom

    @property
    def _handle(self) -> widgets.Widget:
        assert self.share.pages._handle is not None
        return self.share.pages._handle

    def _receive_update(self, data: Any = None, **_: Any) -> None:
        if data and data.get("method") == "update":
            self.comm_updates.append(data["state"])

    def _receive_custom(self, data: Any = None, **_: Any) -> None:
        if data and data.get("method") == "custom":
            self.fits.append(data["content"])

    def go_live(self) -> None:
        self._handle._handle_custom_msg({"ebus": "live", "targets": [self.widget.model_id]}, [])

    def lose_bus(self) -> None:
        self._handle._handle_custom_msg({"ebus": "status", "status": "closed"}, [])

    def send_by_comm(self, **state: Any) -> None:
        data = {"method": "update", "state": state, "buffer_paths": []}
        self.widget._handle_msg({"content": {"data": data}, "buffers": []})

    def write_to_bus(self, key: str, value: Any) -> None:
        self.share.state.bus.write(value, key=key).result(5)


def panel() -> Any:
    """A container with another container in it."""
    return widgets.Tab(
        [widgets.IntSlider(), widgets.VBox([widgets.Text(), widgets.Dropdown(options=["a", "b"]), widgets.Button()])]
    )
