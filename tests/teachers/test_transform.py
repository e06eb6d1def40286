"""The preprocessing before a model's first layer: that of CLIP, bounded in memory for strips."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cusa.errors import DataError
from cusa.teachers.transform import LONGEST_ASPECT, ImageTransform


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


def smooth_strip(width: int, height: int) -> Image.Image:
    """A strip whose grey level changes slowly along it and across it."""
    y, x = np.mgrid[0:height, 0:width]
    levels = 128 + 100 * np.sin(x / max(width, height) * 40) * np.cos(y / max(width, height) * 40)
    return Image.fromarray(np.repeat(levels.astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("size", [(6000, 2), (2, 60_000), (1, 40), (3000, 100), (333, 5), (5000, 224), (400, 9000)])
@pytest.mark.parametrize(("resize", "crop"), [(224, 224), (256, 224), (32, 32), (24, 32)])
def test_the_middle_of_a_strip_is_resized_and_no_more(monkeypatch, size, resize, crop):
    """The pixels are those of resizing all of it, as far as that is small enough to be tried."""
    from torchvision.transforms.v2 import functional

    largest, resized = [0], functional.resize

    def watched(image, *arguments, **keywords):
        result = resized(image, *arguments, **keywords)
        largest.append(result.numel())
        return result

    monkeypatch.setattr(functional, "resize", watched)
    strip = encoded(smooth_strip(*size))
    transform = ImageTransform(resize, crop, (0.5,) * 3, (0.5,) * 3)
    found = transform.pixels(strip, True)
    assert found.shape == (3, crop, crop)
    assert max(largest) <= 3 * max(crop, resize) * 10 * resize
    assert np.array_equal(found, transform.pixels(strip, False))
    if resize * max(size) / min(size) < 60_000:
        monkeypatch.setattr("cusa.teachers.transform.LONGEST_ASPECT", 1e9)
        whole = transform.pixels(strip, True)
        assert np.abs(whole.numpy().astype(int) - found.numpy()).max() <= 12


def test_pictures_up_to_the_longest_aspect_are_resized_whole(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (20, 20 * LONGEST_ASPECT, 3), dtype=np.uint8)
    transform = ImageTransform(32, 32, (0.5,) * 3, (0.5,) * 3)
    found = transform.pixels(encoded(Image.fromarray(noise)), True)
    monkeypatch.setattr("cusa.teachers.transform.LONGEST_ASPECT", 1e9)
    assert np.array_equal(found, transform.pixels(encoded(Image.fromarray(noise)), True))


def test_a_damaged_image_of_a_shard_is_a_sentence():
    transform = ImageTransform(8, 8, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(DataError, match="an image in a shard cannot be decoded .*; the shard is damaged"):
        transform.pixels(b"no image", True)
    with pytest.raises(DataError, match="an image in a shard cannot be read as an image"):
        transform.pixels(b"no image", False)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest", "nearest-exact"])
@pytest.mark.parametrize("size", [(640, 480), (225, 300), (64, 48), (3000, 100), (100, 3000), (224, 224)])
@pytest.mark.parametrize(
    ("resize", "crop", "square"), [(224, 224, False), (255, 224, False), (224, 224, True), (32, 40, False)]
)
def test_pixels_without_torch_differ_by_rounding_alone(interpolation, size, resize, crop, square):
    """A crop that is off by one pixel would differ by far more."""
    rng = np.random.default_rng(0)
    layers = [rng.integers(0, 256, (side, side + 1, 3), dtype=np.uint8) for side in (4, 20, 60)]
    grown = [np.asarray(Image.fromarray(layer).resize(size), dtype=float) for layer in layers]
    picture = Image.fromarray((sum(grown) / 3).astype(np.uint8))
    transform = ImageTransform(resize, crop, (0.0,) * 3, (1.0,) * 3, interpolation, square)
    expected, found = transform.pixels_of(picture).numpy(), transform.array_of(picture)
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 2
