"""Changed pictures, and the features of views of pictures and captions."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from cusa.annotations.caption_variants import caption_variants
from cusa.annotations.tables import SplitTables
from cusa.common.draws import hashed, uniform
from cusa.common.files import read_json
from cusa.config.augmentation import CaptionAugmentation, ImageAugmentation
from cusa.config.captions import PUBLISHED
from cusa.config.models import ImageModel
from cusa.config.shards import Stream
from cusa.config.views import ImageViews, TextViews, image_model, text_model
from cusa.errors import ConfigurationError, DataError
from cusa.layout import DatasetFolder
from cusa.shards.reading import ShardReader
from cusa.teachers.augmentation import DRAWS, AugmentedTransform, part_of
from cusa.teachers.extraction import encode_texts, extract_image_features, extract_text_features
from cusa.teachers.registry import load_image_encoder, load_text_encoder
from cusa.teachers.store import FeatureStore, join_features
from cusa.teachers.transform import ImageTransform

HALF = (0.5, 0.5, 0.5)
TRANSFORM = ImageTransform(resize=32, crop=32, mean=HALF, std=HALF)
DRAWN = uniform(hashed(np.arange(2000)), DRAWS)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (300, 300), (10, 2000), (1, 1)])
def test_parts_lie_within_the_picture_and_keep_their_ratio(height, width):
    settings = ImageAugmentation(crop=[0.5, 0.8])
    parts = np.array([part_of(height, width, settings, draws) for draws in DRAWN])
    top, left, rows, columns = parts.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + rows <= height).all()
    assert (left + columns <= width).all()
    assert (rows >= 1).all()
    if height == width == 300:
        share = rows * columns / (height * width)
        assert share.max() <= 0.81
        assert 0.63 < share.mean() < 0.67
        assert 0.74 < (columns / rows).min() < (columns / rows).max() < 1.35
        assert {top.min(), left.min()} == {0}
        assert (top + rows).max() == (left + columns).max() == 300
    if width == 2000:
        assert (np.abs(columns / rows - 1) < 0.4).all()  # no strip is squeezed into a square


def encoded(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


GRADIENT = np.dstack([np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))] * 3)  # brighter to the right


def test_a_picture_is_mirrored_in_half_of_its_views():
    whole = AugmentedTransform(TRANSFORM, ImageAugmentation(crop=[1.0, 1.0], flip=True))
    views = whole.batch([(encoded(GRADIENT), True)], np.zeros(200, np.int64), DRAWN[:200]).float()
    rises = (views[:, 0, :, -1].mean(1) > views[:, 0, :, 0].mean(1)).numpy()
    assert np.array_equal(rises, DRAWN[:200, 4] >= 0.5)
    assert 70 < rises.sum() < 130


def test_colours_change_only_if_asked_for():
    plain, coloured = (
        AugmentedTransform(TRANSFORM, ImageAugmentation(crop=[1.0, 1.0], colour=colour)) for colour in (0.0, 0.5)
    )
    grey = encoded(np.full((48, 64, 3), 100, np.uint8))
    one, other = (
        each.batch([(grey, True)], np.zeros(100, np.int64), DRAWN[:100]).float() for each in (plain, coloured)
    )
    assert (one == 100).all()
    means = other.mean((1, 2, 3))
    assert 49 <= means.min() < 60
    assert 140 < means.max() <= 151


def test_each_view_is_of_its_own_image_and_each_image_is_decoded_once(monkeypatch):
    images = [(encoded(np.full((40, 40, 3), level, np.uint8)), True) for level in (10, 200)]
    decoded, original = [], ImageTransform.decoded
    counting = staticmethod(lambda *image: (decoded.append(1), original(*image))[1])
    monkeypatch.setattr(ImageTransform, "decoded", counting)
    views = AugmentedTransform(TRANSFORM, ImageAugmentation()).batch(images, np.array([1, 0, 1]), DRAWN[:3])
    assert views.amax((1, 2, 3)).tolist() == [200, 10, 200]
    assert len(decoded) == 2


def test_originals_that_are_not_plain_are_decoded_by_pillow():
    palette = Image.fromarray(GRADIENT).convert("P")
    file = io.BytesIO()
    palette.save(file, "GIF")
    whole = AugmentedTransform(TRANSFORM, ImageAugmentation(crop=[1.0, 1.0]))
    views = whole.batch([(file.getvalue(), False)], np.zeros(2, np.int64), DRAWN[:2]).float()
    assert (views[:, 0, :, -1].mean(1) > views[:, 0, :, 0].mean(1) + 100).all()
    with pytest.raises(DataError, match="cannot be decoded"):
        AugmentedTransform(TRANSFORM, ImageAugmentation()).batch([(b"no image", True)], np.zeros(1, int), DRAWN[:1])


@pytest.fixture
def image_views(tiny_vision) -> ImageViews:
    augmentation = ImageAugmentation(flip=True, colour=0.2)
    return ImageViews(name=str(tiny_vision), dtype="float32", batch_size=10, views=3, augmentation=augmentation)


def test_views_of_pictures_are_extracted_in_the_order_of_the_pictures(image_views, shapes_data, tmp_path):
    folder = DatasetFolder(shapes_data)
    extract_image_features(folder.shards("train"), image_views, tmp_path, threads=2)
    reader = ShardReader(folder.shards("train"))
    store = FeatureStore(tmp_path, 3 * len(reader), image_views.identity)
    assert read_json(tmp_path / "meta.json")["model"].endswith(
        '3 views: {"colour": 0.2, "crop": [0.6, 1.0], "flip": true}'
    )
    encoder = load_image_encoder(image_views)
    draws = uniform(hashed(1, 5, np.arange(3)), DRAWS)
    transform = AugmentedTransform(encoder.transform, image_views.augmentation)
    views = transform.batch([(reader.encoded(5), reader.plain(5))], np.zeros(3, np.int64), draws)
    with torch.inference_mode():
        expected = encoder(views).numpy()
    np.testing.assert_allclose(store[np.array([15, 16, 17])], expected, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


def test_views_of_parts_join_to_the_whole_and_a_stream_gives_the_same(image_views, shapes_data, tmp_path):
    shards = DatasetFolder(shapes_data).shards("train")
    extract_image_features(shards, image_views, tmp_path / "whole")
    for part in (0, 1):
        extract_image_features(shards, image_views, tmp_path / f"{part}", part=part, parts=2)
    join_features([tmp_path / "0", tmp_path / "1"], tmp_path / "joined")
    stream = Stream(url=str(shards / "shard-{shard}.tar"))
    extract_image_features(shards, image_views, tmp_path / "stream", stream=stream)
    whole = np.load(tmp_path / "whole/features.npy")
    for name in ("joined", "stream"):
        np.testing.assert_allclose(np.load(tmp_path / name / "features.npy"), whole, atol=1e-5)


def test_variants_of_captions_are_extracted_in_the_order_of_the_captions(tiny_sentences, shapes_data, tmp_path):
    folder = DatasetFolder(shapes_data)
    augmentation = CaptionAugmentation(drop_words=0.4, reorder="words")
    model = TextViews(name=str(tiny_sentences), dtype="float32", views=4, augmentation=augmentation)
    extract_text_features(folder.annotations, "train", model, tmp_path)
    captions = SplitTables.open(folder, "train", captions=["cleaned"]).captions["cleaned"].to_pylist()
    features = FeatureStore(tmp_path, 4 * len(captions), model.identity)[np.arange(4 * len(captions))]
    assert read_json(tmp_path / "meta.json")["distinct_captions"] > len(set(captions))
    seeds = hashed(2, 7, np.arange(4))
    texts = SplitTables.open(folder, "train", captions=["caption"]).captions["caption"].to_pylist()
    variants = caption_variants([texts[7]] * 4, [captions[7]] * 4, PUBLISHED, augmentation, seeds)
    expected = encode_texts(load_text_encoder(model), variants, 4, torch.device("cpu"))
    np.testing.assert_allclose(features[28:32], expected, atol=1e-5)
    assert len(set(variants)) > 1


def test_other_views_have_another_folder_and_come_back_from_their_json(tiny_vision, tiny_sentences):
    one, other = (
        ImageViews(name=str(tiny_vision), views=4, augmentation=ImageAugmentation(flip=flip)) for flip in (False, True)
    )
    assert one.folder != other.folder
    assert one.folder.startswith(f"{ImageModel(name=one.name).folder}-views4-")
    assert image_model(json.loads(one.as_json())) == one
    text = TextViews(name=str(tiny_sentences), views=2, prompt="query: ", augmentation=CaptionAugmentation())
    assert text_model(json.loads(text.as_json())) == text
    with pytest.raises(ConfigurationError, match=r"augmentation\.crop"):
        image_model({"name": "m", "views": 2, "augmentation": {"crop": [0.0, 1.0]}})
    with pytest.raises(ConfigurationError, match="write the smaller share first"):
        image_model({"name": "m", "views": 2, "augmentation": {"crop": [0.9, 0.5]}})
