"""Pictures in a terminal: a strip of the hits, real pictures if the terminal can show them, else half blocks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Literal, TextIO

import numpy as np
from PIL import Image

from cusa.common.images import decoded_rgb
from cusa.config.dataset_section import MAX_PIXELS
from cusa.errors import DataError

When = Literal["always", "never", "auto"]
COLUMNS, LINES = 12, 6  # of a terminal, for one picture; a character is about twice as high as it is wide
GAP = 1  # columns between pictures
PIXELS = 16  # of a picture for each column, where the terminal shows real pictures
UPPER_HALF = "\N{UPPER HALF BLOCK}"
RESET = "\x1b[0m"
LEVELS = np.array([0, 95, 135, 175, 215, 255])  # of each colour in the palette of 256


def wanted(when: When, stream: TextIO) -> bool:
    """Whether pictures are to be shown on a stream: `auto` shows them in a terminal that has colours."""
    if when == "auto":
        return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and "NO_COLOR" not in os.environ
    return when == "always"


def fitting(width: int) -> int:
    """How many pictures fit beside each other into `width` columns; at least one."""
    return max(1, (width + GAP) // (COLUMNS + GAP))


def show_strip(pictures: Sequence[bytes | None], labels: Sequence[str], stream: TextIO) -> None:
    """Write picture files as a strip of thumbnails, each above its label.

    The terminal shows them by kitty's graphics or Sixel, if it says that it can and the package textual-image is
    installed; otherwise they are half blocks in colours. None stands for a picture that cannot be read; it stays empty.
    """
    thumbnails = [None if content is None else _thumbnail(content) for content in pictures]
    renderable = _graphics() if stream.isatty() else None
    if renderable is None:
        stream.writelines(f"{line}\n" for line in half_blocks(_strip(thumbnails, COLUMNS, 2 * LINES), _true_colour()))
    else:
        from rich.console import Console

        strip = _strip(thumbnails, COLUMNS * PIXELS, 2 * LINES * PIXELS, GAP * PIXELS)
        columns = len(thumbnails) * (COLUMNS + GAP) - GAP
        Console(file=stream, width=columns + 1).print(renderable(strip, width=columns, height=LINES))
    stream.write(" ".join(f"{label:^{COLUMNS}}" for label in labels).rstrip() + "\n")


def half_blocks(pixels: Image.Image, true_colour: bool) -> Iterable[str]:
    """The lines of an RGBA picture as text, two rows of pixels in a line; transparent pixels are blanks.

    Colours are of 24 bits if `true_colour` is set, else of the palette of 256.
    """
    array = np.asarray(pixels).astype(np.int64)
    for top in range(0, array.shape[0], 2):
        line = []
        for upper, lower in zip(array[top], array[top + 1], strict=True):
            if upper[3] == 0 and lower[3] == 0:
                line.append(f"{RESET} ")
            else:
                line.append(f"\x1b[38;{_colour(upper, true_colour)};48;{_colour(lower, true_colour)}m{UPPER_HALF}")
        yield "".join(line) + RESET


def _colour(pixel: np.ndarray, true_colour: bool) -> str:
    red, green, blue = pixel[:3].tolist()
    if true_colour:
        return f"2;{red};{green};{blue}"
    places = np.abs(pixel[:3, None] - LEVELS).argmin(axis=1)
    return f"5;{16 + int(places @ np.array([36, 6, 1]))}"


def _true_colour() -> bool:
    return os.environ.get("COLORTERM", "") in ("truecolor", "24bit")


def _thumbnail(content: bytes) -> Image.Image | None:
    try:
        with decoded_rgb(content, MAX_PIXELS) as picture:
            picture.thumbnail((COLUMNS * PIXELS, 2 * LINES * PIXELS))
            return picture.copy()
    except DataError:
        return None  # its place stays empty, as that of a file that is gone


def _strip(thumbnails: Sequence[Image.Image | None], width: int, height: int, gap: int = GAP) -> Image.Image:
    """The pictures beside each other on a transparent ground, each shrunk into `width` x `height` pixels, RGBA."""
    strip = Image.new("RGBA", (len(thumbnails) * (width + gap) - gap, height))
    for place, thumbnail in enumerate(thumbnails):
        if thumbnail is not None:
            fitted = thumbnail.copy()
            fitted.thumbnail((width, height))
            left = place * (width + gap) + (width - fitted.width) // 2
            strip.paste(fitted, (left, (height - fitted.height) // 2))
    return strip


def _graphics() -> type | None:
    """The class that renders real pictures in this terminal; None if it cannot, or textual-image is not installed."""
    try:
        from textual_image import renderable  # asks the terminal
    except ImportError:
        return None
    real = (renderable.TGPImage, renderable.SixelImage)
    return renderable.Image if renderable.Image in real else None
