"""Carries a page's frames through this kernel, for pages that cannot reach the broker themselves.

That is the case in VS Code, in Colab, behind some gateways, and wherever the broker is embedded in the kernel. The frames are
the same as on a WebSocket. They travel as the buffers of a widget's custom messages, on one channel for each page::

    page → kernel   {"ebus": "open" | "frames" | "close", "channel": …, "client": …, "n": …}
    kernel → page   {"ebus": "frames" | "closed", "channel": …, "client": …, "n": …}

Messages with frames are numbered, from 1, in each direction: a Jupyter server drops comm messages beyond its rate limits
without a word. A hole ends the channel; the page opens another one and resumes. So that few are dropped, what comes together
travels together, and a page is sent no more bytes a second than those limits allow.

The kernel opens a broker connection for each channel, so such a page acts as this kernel and its user. Messages from a page
wait while the kernel runs a cell, as all comm messages do; messages to a page do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakValueDictionary

from ebus_jupyter.client.owner import Owner
from ebus_jupyter.errors import EbusError

logger = logging.getLogger("ebus_jupyter")

SILENT_SECONDS = 90.0
"""A channel that is silent for this long is closed: its page is gone. A living page pings every 20 s."""

MAX_CHANNELS = 200
"""Channels that one kernel carries. A page that opens one more is told that it is closed, and tries again later."""

SEND_SECONDS = 0.02
"""The least time between two messages to a page. What comes meanwhile is sent together."""

BATCH_BYTES = 256 << 10
"""The size of a message to a page above which nothing more is added to it."""

BYTES_PER_SECOND = 500_000
"""The bytes that a page is sent in a second: half of what a Jupyter server lets pass of a kernel (`iopub_data_rate_limit`)."""

_clients: WeakValueDictionary[str, Owner] = WeakValueDictionary()
_keys: WeakKeyDictionary[Owner, str] = WeakKeyDictionary()
_tunnels: dict[str, CommTunnel] = {}


class CommWidget(Protocol):
    """A widget whose custom messages carry frames."""

    def send(self, content: Any, buffers: Any = None) -> None:
        """Send a custom message to the widget's pages."""


def client_key(client: Owner) -> str:
    """The name by which pages refer to ``client``."""
    if client not in _keys:
        _keys[client] = secrets.token_hex(8)
        _clients[_keys[client]] = client
    return _keys[client]


def receive(widget: CommWidget, content: dict[str, Any], buffers: list[Any]) -> None:
    """Handle a custom message from a page of ``widget``; messages that are not about a channel are ignored."""
    channel, client = str(content.get("channel")), _clients.get(str(content.get("client")))
    if client is None:
        return  # not about a channel, or from before this kernel was restarted
    tunnel = _tunnels.get(channel)
    match content.get("ebus"):
        case "open" if tunnel is None and len(_tunnels) < MAX_CHANNELS:
            _tunnels[channel] = CommTunnel(channel, client, widget)
        case "open":
            widget.send({"ebus": "closed", "channel": channel, "client": content["client"]})
        case "frames" if tunnel is not None:
            tunnel.feed(content.get("n"), [bytes(buffer) for buffer in buffers])
        case "frames":
            widget.send({"ebus": "closed", "channel": channel, "client": content["client"]})
        case "close" if tunnel is not None:
            tunnel.end()


class CommTunnel:
    """One page's connection to the broker through this kernel. It runs on the client's loop.

    Args:
        channel: The name that the page has given the connection.
        client: The client whose broker the page connects to.
        widget: The widget whose custom messages carry the frames.
    """

    def __init__(self, channel: str, client: Owner, widget: CommWidget) -> None:
        self._channel = channel
        self._client = client
        self._widget = widget
        self._from_page: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._received = 0
        self._sent = 0
        asyncio.run_coroutine_threadsafe(self._run(), client.connection.relay_loop)

    def feed(self, n: Any, messages: list[bytes]) -> None:
        """Pass on the messages that the page has sent together, as its ``n``-th. After a hole the channel ends."""
        self._received += 1
        if n != self._received:
            logger.debug("a page's channel has lost a message (%r instead of %d)", n, self._received)
            self.end()
            return
        for message in messages:
            self._put(message)

    def end(self) -> None:
        """The page has closed the channel, or a message of it was lost."""
        self._put(None)

    def _put(self, message: bytes | None) -> None:
        self._client.connection.relay_loop.call_soon_threadsafe(self._from_page.put_nowait, message)

    def _send_to_page(self, kind: str, buffers: list[bytes] | None = None) -> None:
        content = {"ebus": kind, "channel": self._channel, "client": client_key(self._client), "n": self._sent}
        with contextlib.suppress(Exception):  # the widget's comm may be closed: no page is left
            self._widget.send(content, buffers)

    async def _run(self) -> None:
        try:
            assert self._client.relay is not None
            transport = await self._client.relay()
            receiver = asyncio.get_running_loop().create_task(self._forward_to_page(transport))
            try:
                while True:
                    data = await asyncio.wait_for(self._from_page.get(), SILENT_SECONDS)
                    if data is None:
                        break
                    await transport.send(data)
            finally:
                receiver.cancel()
                await transport.aclose()
        except (EbusError, OSError, TimeoutError) as error:
            logger.debug("a page's channel has ended: %r", error)
        finally:
            _tunnels.pop(self._channel, None)
            self._send_to_page("closed")

    async def _forward_to_page(self, transport: Any) -> None:
        messages = aiter(transport)
        following = asyncio.ensure_future(anext(messages, None))
        try:
            while (message := await following) is not None:
                batch, size = [message], len(message)
                following = asyncio.ensure_future(anext(messages, None))
                await asyncio.sleep(0)
                while size < BATCH_BYTES and following.done() and (message := following.result()) is not None:
                    batch.append(message)
                    size += len(message)
                    following = asyncio.ensure_future(anext(messages, None))
                    await asyncio.sleep(0)
                self._sent += 1
                self._send_to_page("frames", batch)
                await asyncio.sleep(max(SEND_SECONDS, size / BYTES_PER_SECOND))
        finally:
            following.cancel()
        self._from_page.put_nowait(None)
