"""A participant to use or to learn from: folds the strokes of a whiteboard into a picture that a late joiner gets.

Everyone draws on the bus ``whiteboard`` (`Stroke`); it keeps the last thousand strokes. The server draws them all, and
writes the picture (PNG) to the bus ``whiteboard.png``, which keeps the latest one. Who comes late shows the picture, and
then the strokes after it: which that is stands in the PNG itself (`position_of`). So does a server that was restarted.

It needs Pillow (``pip install ebus_jupyter[whiteboard]``), and is switched on in the server's configuration::

    c.EBus.participants = {"whiteboard": "ebus_jupyter.server.whiteboard:participant"}

For another board, or another size, name a function of your own that calls `fold`.
"""

from __future__ import annotations

import asyncio
import io
import logging
import math
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from ebus_jupyter.client.bus import Bus
from ebus_jupyter.client.client import Client
from ebus_jupyter.errors import Lagged, Rejected

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger("ebus_jupyter")

PAPER = "white"
POINTS = 10_000
"""The most points of one stroke."""


class Stroke(msgspec.Struct):
    """One line that someone has drawn, in the picture's pixels."""

    points: Annotated[list[tuple[float, float]], msgspec.Meta(min_length=1, max_length=POINTS)]
    color: Annotated[str, msgspec.Meta(pattern="^#[0-9a-fA-F]{6}$")] = "#000000"
    width: Annotated[float, msgspec.Meta(gt=0, le=200)] = 2.0


async def participant(ebus: Client) -> None:
    """Fold the bus ``whiteboard`` into the bus ``whiteboard.png``."""
    await fold(ebus)


async def fold(
    ebus: Client,
    strokes: str = "whiteboard",
    picture: str = "whiteboard.png",
    *,
    size: tuple[int, int] = (1200, 800),
    every: float = 0.5,
) -> None:
    """Draw what is written to one bus, and write the picture to another.

    Args:
        ebus: A participant in the server.
        strokes: The bus of strokes.
        picture: The bus of pictures.
        size: The picture's width and height.
        every: The least time between two pictures, in seconds.
    """
    board = await ebus.bus(strokes, Stroke).opened()
    pictures = await ebus.bus(picture, bytes, retain="latest").opened()
    image, after = await _begin(board, pictures, size)
    stream = board.messages(since=after or "start")
    while True:
        try:
            message = await anext(stream)
            while True:  # all that is here already
                draw(image, message.value)
                after = message.offset
                message = stream.get_nowait()
        except LookupError:
            pass
        except Lagged as lag:
            logger.warning("ebus: %s has strokes that %s lacks: %s", strokes, picture, lag)
            continue
        png = await asyncio.to_thread(_encoded, image.copy(), board.channel.epoch, after)
        try:
            await pictures.write(png)
        except Rejected as refused:
            logger.warning("ebus: the picture of %s was not accepted: %s", strokes, refused)
        await asyncio.sleep(every)


def draw(image: Image, stroke: Stroke) -> None:
    """Draw one stroke; what lies far outside of the picture is drawn at its edge."""
    from PIL import ImageDraw

    far = 4 * max(image.size)
    points = [(_within(x, far), _within(y, far)) for x, y in stroke.points]
    pen = ImageDraw.Draw(image)
    width = max(1, round(stroke.width))
    if len(points) > 1:
        pen.line(points, fill=stroke.color, width=width, joint="curve")
    for x, y in (points[0], points[-1]):  # round ends; and a dot, where that is all
        pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=stroke.color)


def _within(place: float, far: int) -> float:
    return min(max(place, -far), far) if math.isfinite(place) else 0.0


def position_of(png: bytes) -> tuple[str, int]:
    """The epoch of the strokes that a picture was made of, and the offset of the last one."""
    image = _opened(png)
    epoch, _, offset = str(image.info.get("ebus", "")).partition(" ")
    return epoch, int(offset or 0)


async def _begin(board: Bus[Any, Any], pictures: Bus[Any, Any], size: tuple[int, int]) -> tuple[Image, int]:
    """The picture to go on with, and the offset after which it does."""
    from PIL import Image

    kept = await asyncio.to_thread(pictures.history, 1)
    if kept:
        epoch, after = position_of(kept[0])
        image = _opened(kept[0])
        if epoch == board.channel.epoch and image.size == size:
            return image.convert("RGB"), after
    return Image.new("RGB", size, PAPER), 0


def _opened(png: bytes) -> Image:
    from PIL import Image

    return Image.open(io.BytesIO(png))


def _encoded(image: Image, epoch: str, offset: int) -> bytes:
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("ebus", f"{epoch} {offset}")
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=info)
    return file.getvalue()
