"""Reading images of any file format and mode as upright RGB, checking image files, and shrinking images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cusa.errors import DataError

Image.MAX_IMAGE_PIXELS = None  # no limit: large scans are valid images, and images that cannot be decoded are reported


SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def image_problem(path: str | Path, how: Literal["decode", "header"]) -> str | None:
    """Check an image file. Returns a description of the problem, or None if there is none.

    `header` reads only the first bytes. `decode` also decodes the image, so truncated files are found. JPEGs are
    decoded at an eighth of their size: this is several times faster and still reads every byte.
    """
    path = Path(path)
    if not path.is_file():
        return "the file does not exist"
    if path.stat().st_size == 0:
        return "the file has zero bytes"
    try:
        with Image.open(path) as image:
            if how == "decode":
                image.draft("RGB", (image.width // 8, image.height // 8))
                image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        return f"cannot be read as an image ({error})"
    return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Rotate a Pillow image of any mode upright, as its EXIF data say, and convert it to 8-bit RGB.

    Transparent pixels are blended with white. 16-bit grey values are scaled to 8 bits.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return image
    if image.mode in SIXTEEN_BIT_MODES:
        grey = np.asarray(image).astype(np.uint32)
        return Image.fromarray((grey >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(np.asarray(image).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def open_rgb(source: str | Path | bytes) -> Image.Image:
    """Decode an image file, given by its path or as bytes, to upright 8-bit RGB. Raises DataError if this fails."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return to_rgb(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        name = "an image in a shard" if isinstance(source, bytes) else str(source)
        raise DataError(f"{name} cannot be read as an image ({error}); replace or remove it.") from None


def resize_shorter_side(image: Image.Image, size: int) -> Image.Image:
    """Shrink an image so that its shorter side has `size` pixels (bicubic); smaller images stay as they are."""
    shorter = min(image.size)
    if shorter <= size:
        return image
    width, height = (max(1, round(side * size / shorter)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)
