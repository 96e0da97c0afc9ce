"""A participant that draws the strokes of a whiteboard into an image, which late joiners receive.

Pages write to the bus ``whiteboard`` (`Stroke`), which keeps the last thousand strokes. The participant draws each stroke
and writes the image (PNG) to the bus ``whiteboard.png``, which keeps the latest one. A late joiner shows the image, then
the strokes after it: the image contains the position of its last stroke (`position_of`). A restarted server continues in
the same way.

The participant needs Pillow (``pip install ebus_jupyter[whiteboard]``). Enable it in the server's configuration::

    c.EBus.participants = {"whiteboard": "ebus_jupyter.server.whiteboard:participant"}

For another board or another size, name a function of your own that calls `fold`.
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

BACKGROUND = "white"

MAX_POINTS = 10_000
"""The maximum number of points of one stroke."""


class Stroke(msgspec.Struct):
    """One line, in the image's pixels.

    Attributes:
        points: The points (x, y) that the line connects.
        color: Such as "#ff0000".
        width: The line's width.
    """

    points: Annotated[list[tuple[float, float]], msgspec.Meta(min_length=1, max_length=MAX_POINTS)]
    color: Annotated[str, msgspec.Meta(pattern="^#[0-9a-fA-F]{6}$")] = "#000000"
    width: Annotated[float, msgspec.Meta(gt=0, le=200)] = 2.0


async def participant(ebus: Client) -> None:
    """Draw the bus ``whiteboard`` into the bus ``whiteboard.png``."""
    await fold(ebus)


async def fold(
    ebus: Client,
    strokes: str = "whiteboard",
    picture: str = "whiteboard.png",
    *,
    size: tuple[int, int] = (1200, 800),
    every: float = 0.5,
) -> None:
    """Draw the strokes of one bus, and write the image to another.

    Args:
        ebus: A participant in the server.
        strokes: The name of the bus of strokes.
        picture: The name of the bus of images.
        size: The image's width and height, in pixels.
        every: The minimum time between two images, in seconds.
    """
    board = await ebus.bus(strokes, Stroke, filter=False).opened()
    pictures = await ebus.bus(picture, bytes, retain="latest", filter=False).opened()
    image, after = await _load(board, pictures, size)
    stream = board.messages(since=after or "start")
    while True:
        try:
            message = await anext(stream)
            while True:  # strokes that have already arrived
                draw(image, message.value)
                after = message.offset
                message = stream.get_nowait()
        except LookupError:
            pass
        except Lagged as lag:
            logger.warning("ebus: strokes of %s are missing in %s: %s", strokes, picture, lag)
            continue
        png = await asyncio.to_thread(_encode, image.copy(), board.epoch, after)
        try:
            await pictures.write(png)
        except Rejected as refused:
            logger.warning("ebus: the image of %s was not accepted: %s", strokes, refused)
        await asyncio.sleep(every)


def draw(image: Image, stroke: Stroke) -> None:
    """Draw one stroke. Coordinates beyond four times the image's size are clamped."""
    from PIL import ImageDraw

    far = 4 * max(image.size)
    points = [(_clamp(x, far), _clamp(y, far)) for x, y in stroke.points]
    pen = ImageDraw.Draw(image)
    width = max(1, round(stroke.width))
    if len(points) > 1:
        pen.line(points, fill=stroke.color, width=width, joint="curve")
    for x, y in (points[0], points[-1]):  # round ends, and a dot for a single point
        pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=stroke.color)


def _clamp(coordinate: float, far: int) -> float:
    return min(max(coordinate, -far), far) if math.isfinite(coordinate) else 0.0


def position_of(png: bytes) -> tuple[str, int]:
    """Return the epoch of the bus that an image was drawn from, and the offset of its last stroke."""
    image = _decode(png)
    epoch, _, offset = str(image.info.get("ebus", "")).partition(" ")
    return epoch, int(offset or 0)


async def _load(board: Bus[Any, Any], pictures: Bus[Any, Any], size: tuple[int, int]) -> tuple[Image, int]:
    """Return the image to continue, and the offset of its last stroke; a blank image where there is none."""
    from PIL import Image

    kept = await asyncio.to_thread(pictures.history, 1)
    if kept:
        epoch, after = position_of(kept[0])
        image = _decode(kept[0])
        if epoch == board.epoch and image.size == size:
            return image.convert("RGB"), after
    return Image.new("RGB", size, BACKGROUND), 0


def _decode(png: bytes) -> Image:
    from PIL import Image

    return Image.open(io.BytesIO(png))


def _encode(image: Image, epoch: str, offset: int) -> bytes:
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("ebus", f"{epoch} {offset}")
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=info)
    return file.getvalue()
