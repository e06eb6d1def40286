"""Image files of any format and mode become upright RGB; other files are reported in a sentence."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cusa.common.images import image_problem, open_rgb, resize_shorter_side, to_rgb
from cusa.errors import DataError
from cusa.teachers.transform import ImageTransform


def test_grey_palette_and_cmyk_become_rgb():
    red = Image.new("RGB", (4, 4), (200, 30, 30))
    for mode, tolerance in (("L", 255), ("P", 40), ("CMYK", 3), ("1", 255)):
        image = to_rgb(red.convert(mode))
        assert image.mode == "RGB"
        assert np.abs(np.asarray(image, dtype=int)[0, 0] - (200, 30, 30)).max() <= tolerance
    assert np.asarray(to_rgb(Image.new("L", (2, 2), 77))).tolist() == [[[77] * 3] * 2] * 2


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode):
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert np.asarray(to_rgb(clear.convert(mode))).min() == 255


def test_palette_transparency_of_a_png(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "p.png", transparency=0)
    assert np.asarray(open_rgb(tmp_path / "p.png")).min() == 255


def test_sixteen_bit_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert np.asarray(open_rgb(tmp_path / "deep.png"))[0, :, 0].tolist() == [0, 128, 255]


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (20, 10), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert open_rgb(tmp_path / "turned.jpg").size == (10, 20)


def test_problems_of_files(tmp_path, shapes):
    good = next((shapes / "pics").glob("*.jpg"))
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:-200])
    for how in ("decode", "header"):
        assert image_problem(good, how) is None
        assert image_problem(tmp_path / "none.jpg", how) == "the file does not exist"
        assert image_problem(tmp_path / "empty.jpg", how) == "the file has zero bytes"
        assert "cannot be read" in image_problem(tmp_path / "text.jpg", how)
    assert "truncated" in image_problem(tmp_path / "cut.jpg", "decode")
    assert image_problem(tmp_path / "cut.jpg", "header") is None
    with pytest.raises(DataError, match="cut.jpg cannot be read as an image .*truncated"):
        open_rgb(tmp_path / "cut.jpg")


def test_resizing_never_enlarges():
    assert resize_shorter_side(Image.new("RGB", (640, 480)), 224).size == (299, 224)
    assert resize_shorter_side(Image.new("RGB", (100, 90)), 224).size == (100, 90)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_the_transform_equals_the_clip_processor():
    """Pillow's bicubic resize and centre crop, as OpenAI's preprocessing does; one grey level of slack."""
    from transformers import CLIPImageProcessorPil

    noise = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((180, 120), Image.Resampling.BICUBIC)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    transform = ImageTransform(64, 64, tuple(processor.image_mean), tuple(processor.image_std))
    for plain in (True, False):
        pixels = transform.pixels(encoded(image), plain)
        found = transform.normalise(pixels[None])[0].numpy()
        assert np.abs(found - expected).max() < 1.5 / 255 / min(processor.image_std)


def test_a_square_transform_ignores_the_aspect():
    transform = ImageTransform(32, 32, (0.5,) * 3, (0.5,) * 3, square=True)
    assert transform.pixels(encoded(Image.new("RGB", (90, 40))), True).shape == (3, 32, 32)


def test_normalise_maps_the_mean_to_zero():
    import torch

    transform = ImageTransform(1, 1, (0.2, 0.4, 0.6), (0.5, 0.5, 0.5))
    pixels = torch.tensor([51, 102, 153], dtype=torch.uint8).view(1, 3, 1, 1)
    assert transform.normalise(pixels).abs().max() < 1e-6
