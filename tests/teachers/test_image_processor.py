"""Every kind of preprocessor_config.json: the pixels that transformers makes, or a sentence."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from conftest import draw_shape
from model_files import changed_json
from PIL import Image, ImageFilter

from cusa.config.models import ImageModel
from cusa.errors import ConfigurationError
from cusa.teachers.image_processor import transform_of
from cusa.teachers.registry import load_image_encoder

FILE = "preprocessor_config.json"


def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 255, (90, 141, 3), dtype=np.uint8)
    drawn = draw_shape("red", "triangle", "large")
    return [drawn, drawn.rotate(90, expand=True), Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))]


def differences(folder) -> float:
    """The largest mean difference from transformers, of 255 levels."""
    from transformers import AutoImageProcessor

    transform, processor = transform_of(str(folder), None), AutoImageProcessor.from_pretrained(folder)
    largest = 0.0
    for picture in pictures():
        file = io.BytesIO()
        picture.save(file, "PNG")
        found = transform.normalise(transform.pixels(file.getvalue(), plain=False)[None])[0]
        expected = processor(images=picture, return_tensors="pt")["pixel_values"][0]
        levels = (found - expected).abs() * 255 * torch.tensor(transform.std)[:, None, None]
        largest = max(largest, float(levels.mean()))
    return largest


SQUEEZED = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, "crop_pct": 0.875}
SQUEEZED |= {"do_center_crop": False}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"size": 32},
        {"size": {"shortest_edge": 40}},
        {"size": {"shortest_edge": 36}, "crop_size": 32},
        {"size": {"height": 32, "width": 32}, "do_center_crop": False},
        {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}},
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"rescale_factor": 1 / 127.5, "do_normalize": False},
        {"image_mean": 0.5, "image_std": 0.5},
        {"resample": 0},
        {"resample": 1},
        {"resample": 2},
        {"resample": 3},
        {"resample": ...},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32}, "crop_pct": 0.875},
        SQUEEZED,
    ],
    ids=str,
)
def test_pixels_are_those_of_transformers(tiny_clip, tmp_path, values):
    assert differences(changed_json(tiny_clip, tmp_path / "odd", FILE, **values)) < 1.5


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"size": {"longest_edge": 32}}, "longest_edge"),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "longest_edge"),
        ({"size": {"height": 32, "width": 64}, "do_center_crop": False}, "'height': 32, 'width': 64"),
        ({"crop_size": {"height": 32, "width": 24}}, "crop_size"),
        ({"do_resize": False}, "does not resize"),
        ({"resample": 4}, "resample 4; expected one of 0"),
        ({"resample": 5}, "resample 5; expected one of 0"),
        ({"image_mean": [0.5]}, "expected three numbers each"),
        ({"image_processor_type": "LevitImageProcessor"}, "LevitImageProcessor.* it makes pixels that differ by"),
        ({"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": True}, "differ by"),
    ],
    ids=str,
)
def test_what_cannot_be_reproduced_is_a_sentence(tiny_clip, tmp_path, values, says):
    with pytest.raises(ConfigurationError, match=says):
        transform_of(str(changed_json(tiny_clip, tmp_path / "odd", FILE, **values)), None)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"image_processor_type": "NoSuchProcessor"}'])
def test_a_missing_or_damaged_file_is_a_sentence(tiny_vision, tmp_path, content):
    folder = changed_json(tiny_vision, tmp_path / "odd", FILE)
    (folder / FILE).unlink()
    if content is not None:
        (folder / FILE).write_text(content)
    with pytest.raises(ConfigurationError, match="could not be loaded"):
        load_image_encoder(ImageModel(name=str(folder)))


def test_without_a_crop_the_central_square_is_kept_and_a_warning_says_so(tiny_clip, tmp_path, caplog):
    """As in earlier releases, whose runs have to stay readable."""
    folder = changed_json(tiny_clip, tmp_path / "no-crop", FILE, do_center_crop=False)
    transform = transform_of(str(folder), None)
    assert (transform.resize, transform.crop, transform.square) == (32, 32, False)
    assert "resizes the shorter side to 32 and does not crop; the central square is kept" in caplog.text


def test_image_size_scales_the_transform_or_takes_the_place_of_a_size_that_cannot_be_used(tiny_clip, tmp_path):
    folder = changed_json(tiny_clip, tmp_path / "crops", FILE, size={"shortest_edge": 40})
    assert (transform_of(str(folder), 64).resize, transform_of(str(folder), 64).crop) == (80, 64)
    folder = changed_json(tiny_clip, tmp_path / "no-crop", FILE, do_center_crop=False)
    assert (transform_of(str(folder), 64).resize, transform_of(str(folder), 64).crop) == (64, 64)
