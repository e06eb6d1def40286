"""Converting pictures of any mode to 8-bit RGB: transparency, deep greys, and colours of 16 bits."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cusa.errors import DataError

DEEP_GREYS = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")
BAND_PIXELS = 2**22  # pixels that are converted at a time, where a conversion needs several copies
DEPTHS = (8, 10, 12, 14, 16)  # bits in which scanners and sensors store a sample
PHOTOMETRIC_INTERPRETATION, WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and its value
DARK = 16  # a picture whose brightest pixel is below this, of 255, is taken for black


class Scale(NamedTuple):
    """How samples become 8 bits: (sample - offset) * factor + base, rounded down and limited to 0 .. 255."""

    offset: float
    factor: float
    base: float = 0

    def apply(self, samples: np.ndarray) -> np.ndarray:
        """The samples as uint8, of the same shape. Not-a-number becomes 0."""
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.floor((samples.astype(np.float64) - self.offset) * self.factor + self.base)
        eight_bits: np.ndarray = np.nan_to_num(scaled.clip(0, 255), nan=0).astype(np.uint8)
        return eight_bits


FULL_SIXTEEN_BITS = Scale(0, 1 / 256)


def scale_of(low: float, high: float, integers: bool) -> Scale:
    """The scale for samples from `low` to `high`, the real range of a picture's values.

    Samples from 0 on are taken to have the smallest depth of 8, 10, 12, 14 and 16 bits that holds them, or to be
    floats up to 1. If that leaves the picture black, and for negative and larger samples, the real range is
    stretched to 0 .. 255. A picture of one such value becomes mid-grey.
    """
    scale = None
    if low >= 0 and not integers and high <= 1:
        scale = Scale(0, 256)
    elif low >= 0 and (depth := next((bits for bits in DEPTHS if high < 2**bits), None)) is not None:
        scale = Scale(0, 2.0 ** (8 - depth))
    if scale is not None and (high * scale.factor >= DARK or low == high):
        return scale
    return Scale(low, 256 / (high - low)) if low < high else Scale(low, 0, base=128)


def grey_scale(image: Image.Image) -> Scale:
    """The scale of a grey picture of 16 or 32 bits. Raises DataError if it has no finite value."""
    low, high = math.inf, -math.inf
    for box in _bands(image):
        samples = np.asarray(image.crop(box)).astype(np.float64)
        finite = samples[np.isfinite(samples)]
        low, high = min(low, finite.min(initial=math.inf)), max(high, finite.max(initial=-math.inf))
    if low > high:
        raise DataError("all its values are infinite or not a number")
    return scale_of(float(low), float(high), integers=image.mode != "F")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image of any mode to 8-bit RGB. The image itself if it is RGB already.

    Transparent pixels are blended with white. Greys of 16 and 32 bits are scaled as `scale_of` says.
    """
    if image.mode in DEEP_GREYS:
        scale = grey_scale(image)
        return _by_bands([image], lambda band: _scaled(np.asarray(band)[..., None], scale, image))
    if image.mode in TRANSPARENT or "transparency" in image.info:
        return _by_bands([image], _on_white)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _scaled(samples: np.ndarray, scale: Scale, of: Image.Image) -> Image.Image:
    """Deep samples [H, W, 1 or 3] as 8-bit RGB. Those that the picture `of` says are transparent become white."""
    rgb = np.repeat(scale.apply(samples), 3 // samples.shape[-1], axis=-1)
    if has_clear_colour(of):
        rgb[(samples == np.asarray(of.info["transparency"])).all(axis=-1)] = 255
    return Image.fromarray(rgb)


def has_white_zero(image: Image.Image) -> bool:
    """Whether 0 is white in a TIFF of deep greys, as scanners and X-ray devices store them.

    Pillow inverts such greys of 8 bits or fewer, but not deeper ones.
    """
    tags = getattr(image, "tag_v2", {})
    return image.mode in DEEP_GREYS and tags.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO


def has_clear_colour(image: Image.Image) -> bool:
    """Whether a picture of deep samples says that one colour is transparent, as a PNG can."""
    return isinstance(image.info.get("transparency"), int | tuple)


def has_deep_colours(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet stores colours of 16 bits, of which Pillow reads the upper eight."""
    return image.mode in ("RGB", "RGBA", "RGBX", "RGBa") and _swapped_tiles(image) is not None


def is_dark(image: Image.Image) -> bool:
    """Whether a loaded colour picture has no pixel that is brighter than black."""
    return all(high < DARK for _, high in image.getextrema()[:3])  # type: ignore[misc]


def read_lower_bytes(image: Image.Image) -> Image.Image:
    """The lower eight bits of colours of 16 bits, of an image that is not loaded yet, which this loads."""
    tiles = _swapped_tiles(image)
    if tiles is None:
        raise DataError("its 16-bit colours are dark, and their lower eight bits cannot be read")
    image.tile = tiles  # type: ignore[attr-defined]
    image.load()
    if all(_rawmode(tile) == AS_FOUR_BYTES for tile in tiles):
        grey = image.getchannel("G")
        return Image.merge("RGBA", (grey, grey, grey, image.getchannel("A")))
    return image


def combined_bytes(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """The 8-bit RGB of colours of 16 bits, from both halves of their samples; dark ones are scaled by `scale_of`."""

    def samples(band: Image.Image, lower_band: Image.Image) -> np.ndarray:
        halves = (np.asarray(half)[..., :3].astype(np.int32) for half in (band, lower_band))
        return next(halves) * 256 + next(halves)

    scale = FULL_SIXTEEN_BITS
    if is_dark(upper):
        bands = (samples(upper.crop(box), lower.crop(box)) for box in _bands(upper))
        lowest, highest = zip(*((int(band.min()), int(band.max())) for band in bands), strict=True)
        scale = scale_of(min(lowest), max(highest), integers=True)

    def convert(band: Image.Image, lower_band: Image.Image) -> Image.Image:
        colours = _scaled(samples(band, lower_band), scale, upper)
        if band.mode != "RGBA":
            return colours
        colours.putalpha(band.getchannel("A"))
        return _on_white(colours)

    return _by_bands([upper, lower], convert)


# In a sample of two bytes, read in the other byte order, Pillow takes the lower byte for the upper one. It has no such
# reader for grey and alpha: read as four bytes, the second of them is the lower one of the grey.
OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
GREY_AND_ALPHA, AS_FOUR_BYTES = "LA;16B", "RGBA"


def _swapped_tiles(image: Image.Image) -> list[object] | None:
    """The tiles of an image with 16-bit samples, read in the other byte order; None if it has no such tiles."""
    swapped: list[object] = []
    for tile in getattr(image, "tile", []):
        rawmode = _rawmode(tile)
        if rawmode is None or rawmode[-4:-1] != ";16" or rawmode[-1] not in OTHER_ORDER:
            return None
        other = AS_FOUR_BYTES if rawmode == GREY_AND_ALPHA else rawmode[:-1] + OTHER_ORDER[rawmode[-1]]
        arguments = (other, *tile[3][1:]) if isinstance(tile[3], tuple) else other
        swapped.append(tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments))
    return swapped or None


def _rawmode(tile: Any) -> str | None:
    """How the bytes of a tile are read."""
    rawmode = tile[3][0] if isinstance(tile[3], tuple) and tile[3] else tile[3]
    return rawmode if isinstance(rawmode, str) else None


def _bands(image: Image.Image) -> list[tuple[int, int, int, int]]:
    """The boxes of bands of rows that cover an image."""
    rows = max(1, BAND_PIXELS // image.width)
    return [(0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)]


def _by_bands(images: list[Image.Image], convert: Callable[..., Image.Image]) -> Image.Image:
    """The 8-bit RGB image that `convert` makes of images of one size, a band of rows at a time."""
    boxes = _bands(images[0])
    if len(boxes) == 1:
        return convert(*images)
    converted = Image.new("RGB", images[0].size)
    for box in boxes:
        converted.paste(convert(*(image.crop(box) for image in images)), box)
    return converted
