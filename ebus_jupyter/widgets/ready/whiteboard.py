"""A whiteboard that everyone draws on. The picture is a shared state, so late joiners receive all of it.

board = ebus.widgets.Whiteboard("sketch")
board.svg()                                     # the picture, as text
pathlib.Path("sketch.png").write_bytes(board.png())
"""

from __future__ import annotations

import io
from itertools import groupby
from typing import Annotated

import msgspec
import traitlets

from ebus_jupyter.client.state import State

from .view import BusView, own_bus

WIDTH, HEIGHT = 2000, 1200
"""The size of the board, in units of its coordinates."""

PIECES = 20_000
"""Pieces that a board holds. A stroke has one piece for each 50 points or so. A full board refuses new pieces."""

Coordinate = Annotated[int, msgspec.Meta(ge=0, le=2000)]


class Piece(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a stroke.

    Attributes:
        colour: ``#rrggbb``, in lower case.
        width: The pen's width, 1 to 100 units.
        points: ``x, y, x, y, …``, in units of the board (2000 by 1200).
    """

    colour: Annotated[str, msgspec.Meta(pattern="^#[0-9a-f]{6}$")]
    width: Annotated[int, msgspec.Meta(ge=1, le=100)]
    points: Annotated[list[Coordinate], msgspec.Meta(min_length=2, max_length=200)]


class Whiteboard(BusView):
    """A whiteboard, shared by everyone in ``scope`` who opens the same ``name``.

    Args:
        name: The whiteboard's name; its bus is called ``whiteboard:NAME``.
        scope: "server" (default), "user" or "kernel".
        title: The widget's heading. Default: the name.

    Attributes:
        pieces: The shared state: pieces of strokes, by ``PAINTER/STROKE/NUMBER``.
    """

    _face = traitlets.Unicode("whiteboard").tag(sync=True)

    def __init__(self, name: str, *, scope: str = "server", title: str | None = None) -> None:
        bus = own_bus(f"whiteboard:{name}", Piece, scope=scope, retain="keys", size=PIECES)
        self.pieces = State(bus)
        super().__init__(bus, title or name)

    def strokes(self) -> list[list[Piece]]:
        """All strokes, in the order in which they were begun, each as a list of pieces."""
        keys = sorted(self.pieces, key=lambda key: (key.rpartition("/")[0].rpartition("/")[2], key))
        grouped = groupby(keys, key=lambda key: key.rpartition("/")[0])
        return [[self.pieces[key] for key in stroke if key in self.pieces] for _, stroke in grouped]

    def clear(self) -> None:
        """Remove all strokes, for everyone."""
        for key in list(self.pieces):
            self.pieces.pop(key, None)

    def svg(self) -> str:
        """The picture as SVG."""
        lines = []
        for piece in (piece for stroke in self.strokes() for piece in stroke):
            points = " ".join(f"{x},{y}" for x, y in _pairs(piece))
            lines.append(f'<polyline points="{points}" stroke="{piece.colour}" stroke-width="{piece.width}"/>')
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" fill="none" stroke-linecap="round" '
            f'stroke-linejoin="round"><rect width="100%" height="100%" fill="#fff"/>{"".join(lines)}</svg>'
        )

    def png(self, width: int = 1000) -> bytes:
        """The picture as PNG.

        Args:
            width: The width in pixels. Default: 1000.

        Raises:
            ImportError: Pillow is not installed (``pip install pillow``).
        """
        from PIL import Image, ImageDraw

        image = Image.new("RGB", (WIDTH, HEIGHT), "#fff")
        draw = ImageDraw.Draw(image)
        for piece in (piece for stroke in self.strokes() for piece in stroke):
            draw.line(_pairs(piece), fill=piece.colour, width=piece.width, joint="curve")
            for x, y in (_pairs(piece)[0], _pairs(piece)[-1]):
                draw.circle((x, y), piece.width / 2, fill=piece.colour)
        file = io.BytesIO()
        size = (width, width * HEIGHT // WIDTH)
        image.resize(size, Image.Resampling.BOX).save(file, "PNG")  # other filters overshoot: darker than any pen
        return file.getvalue()


def _pairs(piece: Piece) -> list[tuple[int, int]]:
    points = piece.points
    return list(zip(points[::2], points[1::2], strict=False))
