"""The whiteboard participant, without a server."""

from __future__ import annotations

import asyncio
import importlib
import io
from typing import Any

import pytest

import ebus_jupyter as ebus
from ebus_jupyter.server.whiteboard import Stroke, fold, position_of

from .room import Room, next_of


def colors(png: bytes) -> set[tuple[int, ...]]:
    image = importlib.import_module("PIL.Image").open(io.BytesIO(png)).convert("RGB")
    return {color for _, color in image.getcolors(1 << 16)}


async def fold_in(room: Room, name: str = "whiteboard") -> asyncio.Task[None]:
    """Start `fold`, and return when the server has created both buses."""
    client = room.server(name)
    folding = asyncio.ensure_future(fold(client, size=(60, 40), every=0.001))
    await client.bus("whiteboard", Stroke).opened()
    await client.bus("whiteboard.png", bytes, retain="latest").opened()
    return folding


RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


@pytest.mark.asyncio
async def test_late_joiner_gets_the_image_and_the_strokes_after_it(room: Room) -> None:
    importlib.import_module("PIL")
    folding = await fold_in(room)
    alice = room.client("alice")
    pictures = alice.bus("whiteboard.png").stream()
    board = alice.bus("whiteboard")
    red = {"points": [[5, 5], [50, 30]], "color": "#ff0000", "width": 4}
    offset = await board.write(red)
    png = await next_of(pictures)
    assert {RED, WHITE} <= colors(png)
    assert position_of(png) == (board.epoch, offset)

    late = room.client("bob")
    kept = await next_of(late.bus("whiteboard.png").stream(since="start"))
    assert kept == png
    since = late.bus("whiteboard", Stroke).stream(since=position_of(kept)[1])
    await board.write({"points": [[20, 5]], "color": "#00ff00", "width": 9})
    assert (await next_of(since)).color == "#00ff00"
    folding.cancel()


@pytest.mark.asyncio
async def test_restarted_server_continues_the_image(room: Room) -> None:
    importlib.import_module("PIL")
    folding = await fold_in(room, "first")
    alice = room.client("alice")
    pictures = alice.bus("whiteboard.png").stream()
    board = alice.bus("whiteboard")
    await board.write({"points": [[5, 5], [50, 5]], "color": "#ff0000", "width": 4})
    await next_of(pictures)
    folding.cancel()
    await board.write({"points": [[5, 30], [50, 30]], "color": "#00ff00", "width": 4})
    folding = await fold_in(room, "second")
    assert {RED, GREEN, WHITE} <= colors(await next_of(pictures))
    folding.cancel()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "scribble",
    [
        {"points": []},
        {"points": [[1, 2, 3]]},
        {"points": [[0, 0]], "color": "red"},
        {"points": [[0, 0]], "width": 0},
        "a line",
    ],
)
async def test_invalid_stroke_is_refused(room: Room, scribble: Any) -> None:
    board = await room.server().bus("whiteboard", Stroke).opened()
    with pytest.raises(ebus.TypeMismatch):
        await room.client("mallory").bus("whiteboard").write(scribble)
    assert board.last == 0


@pytest.mark.asyncio
async def test_stroke_far_outside_the_image_is_drawn(room: Room) -> None:
    importlib.import_module("PIL")
    folding = await fold_in(room)
    board = room.client("mallory").bus("whiteboard")
    pictures = room.client("alice").bus("whiteboard.png").stream()
    await board.write({"points": [[-1e300, 20], [1e300, 20]], "color": "#ff0000", "width": 3})
    assert RED in colors(await next_of(pictures))
    assert not folding.done()
    folding.cancel()
