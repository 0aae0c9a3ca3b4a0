"""What a piano roll is drawn on: a picture of pixels, or one of shapes that stays sharp at any size.

Both take the finished picture's pixels, with (0, 0) at the top left, and know boxes, pills and words.
"""

import io
import re
from html import escape
from pathlib import Path
from typing import Protocol

from PIL import Image, ImageDraw, ImageFont

from midillm_jax.files import write_whole

Colour = tuple[int, int, int]

_PAPER: Colour = (0xFF, 0xFF, 0xFF)
_SUPERSAMPLING = 2
_RADIUS = 3
"""Of a pill's corners, where it is large enough for that."""
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write, section 2.2."""
_ANCHORS = {"l": "start", "m": "middle", "r": "end"}


class Surface(Protocol):
    """What can be drawn."""

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """A rectangle."""

    def pill(self, left: float, top: float, right: float, bottom: float, colour: Colour, edge: Colour) -> None:
        """A rectangle with round corners and an edge."""

    def text(self, left: float, middle: float, words: str, size: int, colour: Colour, anchor: str = "lm") -> None:
        """One line of words, up and down around ``middle``; the anchor says what of it is at ``left``: l, m or r."""

    def save(self, path: Path) -> None:
        """Writes the picture, under its name once it is complete."""


def surface(path: Path, width: int, height: int) -> Surface:
    """What a file of this ending is drawn on.

    Raises:
        ValueError: it is neither .png nor .svg.
    """
    kinds: dict[str, type[Pixels] | type[Shapes]] = {".png": Pixels, ".svg": Shapes}
    if path.suffix not in kinds:
        raise ValueError(f"{path.name}: a piano roll is drawn as {' or '.join(kinds)}")
    return kinds[path.suffix](width, height)


class Pixels:
    """A PNG, drawn larger than it will be, so that its edges are soft."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._image = Image.new("RGB", (width * _SUPERSAMPLING, height * _SUPERSAMPLING), _PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """See Surface."""
        self._draw.rectangle(self._scaled(left, top, right, bottom), fill=colour)

    def pill(self, left: float, top: float, right: float, bottom: float, colour: Colour, edge: Colour) -> None:
        """See Surface."""
        box = self._scaled(left, top, right, bottom)
        radius = min(_RADIUS * _SUPERSAMPLING, (box[3] - box[1]) // 3, (box[2] - box[0]) // 2)
        self._draw.rounded_rectangle(box, radius, fill=colour, outline=edge, width=1)

    def text(self, left: float, middle: float, words: str, size: int, colour: Colour, anchor: str = "lm") -> None:
        """See Surface."""
        at = (left * _SUPERSAMPLING, middle * _SUPERSAMPLING)
        self._draw.text(at, words, fill=colour, font=font(size * _SUPERSAMPLING), anchor=anchor)

    def save(self, path: Path) -> None:
        """See Surface."""
        content = io.BytesIO()
        self._image.resize(self._size, Image.Resampling.BOX).save(content, format="PNG", optimize=True)
        write_whole(path, content.getvalue())

    @staticmethod
    def _scaled(left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int]:
        # Pillow's boxes include their right and bottom edges.
        x0, y0, x1, y1 = (round(value * _SUPERSAMPLING) for value in (left, top, right, bottom))
        return x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)


class Shapes:
    """An SVG 1.1 without scripts, styles or anything from elsewhere."""

    def __init__(self, width: int, height: int) -> None:
        self._lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif">'
        ]
        self.box(0, 0, width, height, _PAPER)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """See Surface."""
        self._lines.append(f'<rect {_place(left, top, right, bottom)} fill="{_hex(colour)}"/>')

    def pill(self, left: float, top: float, right: float, bottom: float, colour: Colour, edge: Colour) -> None:
        """See Surface."""
        # An edge lies half outside of what it is the edge of.
        inner = left + 0.25, top + 0.25, right - 0.25, bottom - 0.25
        radius = min(_RADIUS, (bottom - top) / 3, (right - left) / 2)
        self._lines.append(
            f'<rect {_place(*inner)} rx="{_number(radius)}" fill="{_hex(colour)}" stroke="{_hex(edge)}" '
            'stroke-width=".5"/>'
        )

    def text(self, left: float, middle: float, words: str, size: int, colour: Colour, anchor: str = "lm") -> None:
        """See Surface."""
        words = _NOT_XML.sub("", words)
        # What shows it has a font of its own; the words take the room that they were given.
        room = _number(font(size).getlength(words))
        self._lines.append(
            f'<text x="{_number(left)}" y="{_number(middle)}" font-size="{size}" fill="{_hex(colour)}" '
            f'text-anchor="{_ANCHORS[anchor[0]]}" dominant-baseline="central" textLength="{room}" '
            f'lengthAdjust="spacingAndGlyphs">{escape(words)}</text>'
        )

    def save(self, path: Path) -> None:
        """See Surface."""
        write_whole(path, "\n".join((*self._lines, "</svg>\n")))


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The one that comes with Pillow."""
    return ImageFont.load_default(size)


def _place(left: float, top: float, right: float, bottom: float) -> str:
    width, height = max(right - left, 0), max(bottom - top, 0)
    return f'x="{_number(left)}" y="{_number(top)}" width="{_number(width)}" height="{_number(height)}"'


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
