"""A value in a share that this kernel can't decode: the share, and its client, go on."""

from __future__ import annotations

import asyncio

import ipywidgets as widgets
import pytest

import ebus_jupyter as ebus
from ebus_jupyter.client.client import Client
from tests.client.conftest import Line
from tests.client.test_undecodable import UNKNOWN_DTYPE

from .notebook import share_of, until


@pytest.mark.asyncio
async def test_share_goes_on_after_a_value_that_it_cannot_decode(notebook_client: Client, line: Line) -> None:
    slider = ebus.share(widgets.FloatSlider(), "speed")
    slider.value = 1.0
    state = share_of(slider).state
    await asyncio.to_thread(state.flush)
    (key,) = [key for key, value in state.items() if value == 1.0]

    peer = line.client("mallory", "k9").state("speed")
    written = asyncio.Event()
    loop = asyncio.get_running_loop()
    peer.bus.connection.publish(
        peer.bus.channel, lambda *_: loop.call_soon_threadsafe(written.set), UNKNOWN_DTYPE, key=key
    )
    await asyncio.wait_for(written.wait(), 5)
    await until(lambda: len(state.errors) == 1)
    error = state.errors[0]
    assert (error.bus, error.sender.user) == ("speed", "mallory")
    assert slider.value == 1.0

    peer[key] = 3.0
    await until(lambda: slider.value == 3.0)
    assert notebook_client.status == "live"
    late = ebus.share(widgets.FloatSlider(), "speed")
    await until(lambda: late.value == 3.0)
