"""A perceptual hash of a picture, for finding copies in another size or quality."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

SIDE = 32  # pixels of the thumbnails that are hashed
FREQUENCIES = 8
FLAT = 4.0  # standard deviation, of 255; pictures with less have no features to compare


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that stay nearly the same when a picture is stored in another size or quality.

    0 for a picture that is nearly flat; other pictures never have the hash 0.
    """
    grey = np.asarray(thumbnail(image.convert("L"), SIDE), dtype=np.float32)
    if grey.std() < FLAT:
        return 0
    basis = _cosines()
    low = (basis @ grey @ basis.T).ravel()
    bits = low > np.median(low[1:])
    bits[0] = True  # the bit of the mean brightness has no information; it is always 1, so no hash is 0
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@cache
def _cosines() -> np.ndarray:
    """The lowest cosines of a discrete cosine transform, float32 [FREQUENCIES, SIDE]."""
    places = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    return np.cos(np.arange(FREQUENCIES)[:, None] * places).astype(np.float32)


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """The image shrunk to `side` x `side` pixels, whatever its shape."""
    return image.resize((side, side), Image.Resampling.BILINEAR)
