"""The pictures that the page shows are upright and look as the model sees them, whatever their format."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cusa.common.images import open_rgb
from cusa.serve.pictures import _webp


def shown(content: bytes) -> np.ndarray:
    """What a browser shows of a picture on white: int [H, W, 3]."""
    picture = Image.open(io.BytesIO(_webp(content, None))).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB"), int)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_turned_pictures_are_shown_upright(kind, mode, orientation):
    stored = Image.new("RGBA", (64, 32), "white")
    stored.paste((0, 0, 0, 255), (0, 0, 16, 16))
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    how = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif}
    stored.convert(mode).save(buffer, kind, **how)
    expected = np.asarray(open_rgb(buffer.getvalue()), dtype=int)
    found = shown(buffer.getvalue())
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 100  # WebP blurs the edge of the square


def test_a_transparent_grey_of_sixteen_bits_is_shown_as_the_model_sees_it():
    grey, buffer = np.full((8, 8), 20_000, dtype=np.uint16), io.BytesIO()
    grey[:4] = 40_000
    Image.fromarray(grey).save(buffer, "PNG", transparency=20_000)
    found = shown(buffer.getvalue())
    assert (found[-1, 0] > 240).all()
    assert np.abs(found[0, 0] - 156).max() < 20
