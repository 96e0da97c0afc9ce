"""A value in a share that this kernel can't decode: the share, and its client, go on."""

from __future__ import annotations

import asyncio

import ipywidgets as widgets
import pytest

import ebus_jupyter as ebus
from ebus_jupyter.client.client import Client
from ebus_jupyter.core.protocol.codec import Codec
from tests.client.conftest import Line

from .notebook import share_of, until


@pytest.mark.asyncio
async def test_share_goes_on_after_a_value_that_it_cannot_decode(notebook_client: Client, line: Line) -> None:
    slider = ebus.share(widgets.FloatSlider(), "speed")
    slider.value = 1.0
    state = share_of(slider).state
    await asyncio.to_thread(state.flush)
    (key,) = [key for key, value in state.items() if value == 1.0]

    state.bus.emits_codec = Codec(float)  # as a reader's own code, which the broker can't know, may refuse a value
    peer = line.client("mallory", "k9").state("speed")
    peer[key] = "fast"
    await until(lambda: len(state.errors) == 1)
    error = state.errors[0]
    assert (error.bus, error.sender.user) == ("speed", "mallory")
    assert slider.value == 1.0

    peer[key] = 3.0
    await until(lambda: slider.value == 3.0)
    assert notebook_client.status == "live"
    late = ebus.share(widgets.FloatSlider(), "speed")
    await until(lambda: late.value == 3.0)
