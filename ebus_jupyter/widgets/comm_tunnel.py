"""Carries a page's frames through this kernel, where the page can't reach the broker by itself.

That is so in VS Code, in Colab, behind a gateway, and wherever the broker is embedded in the kernel. The frames are the
same as on a WebSocket; they ride as the buffers of a widget's custom messages, each page on a channel of its own::

    page → kernel   {"ebus": "open" | "frames" | "close", "channel": …, "client": …}
    kernel → page   {"ebus": "frames" | "closed", "channel": …, "client": …}

For each channel the kernel opens a connection of its own to the broker, so such a page acts as this kernel and its user.
What pages send waits while the kernel runs a cell (that is how comms are); what they receive does not.
A page that cannot import the client from the server asks for its text: ``{"ebus": "client"}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from ebus_jupyter.client.client import Client
from ebus_jupyter.errors import EbusError

if TYPE_CHECKING:
    from .page import PageWidget

logger = logging.getLogger("ebus_jupyter")

SILENT_SECONDS = 90.0
"""A channel that says nothing for so long belongs to a page that is gone: a living one pings every 20 s."""

CHANNELS = 200
"""How many channels one kernel carries; the page of one more is told that it is closed, and tries again later."""

_clients: WeakValueDictionary[str, Client] = WeakValueDictionary()
_keys: WeakKeyDictionary[Client, str] = WeakKeyDictionary()
_channels: dict[str, CommTunnel] = {}


def key_of(client: Client) -> str:
    """What pages call ``client``."""
    if client not in _keys:
        _keys[client] = secrets.token_hex(8)
        _clients[_keys[client]] = client
    return _keys[client]


def page_says(widget: PageWidget, content: Any, buffers: list[Any]) -> None:
    """A custom message from a page; what is not for us is left alone."""
    if not isinstance(content, dict) or "ebus" not in content:
        return
    if content["ebus"] == "client":
        widget.send({"ebus": "client", "text": widget.client_text()})
        return
    name, client = str(content.get("channel")), _clients.get(str(content.get("client")))
    if client is None:
        return  # another message of ours, or one from before this kernel was restarted
    channel = _channels.get(name)
    match content["ebus"]:
        case "open" if channel is None and len(_channels) < CHANNELS:
            _channels[name] = CommTunnel(name, client, widget)
        case "open":
            widget.send({"ebus": "closed", "channel": name, "client": content["client"]})
        case "frames" if channel is not None:
            for buffer in buffers:
                channel.say(bytes(buffer))
        case "frames":
            widget.send({"ebus": "closed", "channel": name, "client": content["client"]})
        case "close" if channel is not None:
            channel.say(None)


class CommTunnel:
    """One page's connection to the broker, by way of this kernel. It lives on the client's loop."""

    def __init__(self, name: str, client: Client, widget: PageWidget) -> None:
        self._name = name
        self._client = client
        self._widget = widget
        self._said: asyncio.Queue[bytes | None] = asyncio.Queue()
        asyncio.run_coroutine_threadsafe(self._carry(), client.loop)

    def say(self, data: bytes | None) -> None:
        """The page has sent a message; None: it has closed the channel."""
        self._client.loop.call_soon_threadsafe(self._said.put_nowait, data)

    def _tell(self, kind: str, buffers: list[bytes] | None = None) -> None:
        with contextlib.suppress(Exception):  # the widget's comm may be closed: the page has no more use for us
            self._widget.send({"ebus": kind, "channel": self._name, "client": key_of(self._client)}, buffers)

    async def _carry(self) -> None:
        try:
            transport = await self._client.relay()
            listener = asyncio.get_running_loop().create_task(self._listen(transport))
            try:
                while True:
                    data = await asyncio.wait_for(self._said.get(), SILENT_SECONDS)
                    if data is None:
                        break
                    await transport.send(data)
            finally:
                listener.cancel()
                await transport.aclose()
        except (EbusError, OSError, TimeoutError) as ended:
            logger.debug("a page's channel has ended: %r", ended)
        finally:
            _channels.pop(self._name, None)
            self._tell("closed")

    async def _listen(self, transport: Any) -> None:
        async for data in transport:
            self._tell("frames", [data])
        self._said.put_nowait(None)
