"""Reading any image file people have as upright RGB, and the transform each model applies to it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cusa.errors import DataError

Image.MAX_IMAGE_PIXELS = None  # large scans are legitimate; what cannot be decoded is reported


SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def image_problem(path: str | Path, how: Literal["decode", "header"]) -> str | None:
    """Say what is wrong with an image file, or None.

    `header` reads its first bytes. `decode` decodes it as well, JPEGs at an eighth of their size, which is
    several times faster and still reads every byte, so truncation is found.
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
    """Turn a Pillow image of any mode upright (EXIF) and into 8-bit RGB.

    Transparency is laid on white, 16-bit grey is scaled to 8 bits, CMYK, palette and grey are converted.
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
    """Decode a file or its bytes to upright RGB. Raises DataError when that is impossible."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return to_rgb(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        name = "an image in a shard" if isinstance(source, bytes) else str(source)
        raise DataError(f"{name} cannot be read as an image ({error}); replace or remove it.") from None


def resize_shorter_side(image: Image.Image, size: int) -> Image.Image:
    """Shrink so that the shorter side has `size` pixels (bicubic); smaller images stay as they are."""
    shorter = min(image.size)
    if shorter <= size:
        return image
    width, height = (max(1, round(side * size / shorter)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)
