"""Pixels that are decoded once: they are those of the shards, bit for bit, and are only read where they belong."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cusa.annotations.convert import convert
from cusa.annotations.tables import SplitTables
from cusa.config.dataset import PublishedDataset
from cusa.config.models import StudentSettings
from cusa.config.shards import Shards
from cusa.config.student_inputs import WHOLE_PICTURES, pixels_folder
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.shards.reading import ShardReader
from cusa.shards.writing import write_split
from cusa.student.inputs import PixelInputs, open_images
from cusa.student.pixels import Crops, WholePictures, transform_of_student, write_crops, write_whole_pictures
from cusa.student.registry import load_backbone
from cusa.teachers.transform import CLIP_MEAN, CLIP_STD, ImageTransform

TRANSFORM = ImageTransform(32, 32, CLIP_MEAN, CLIP_STD)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> DatasetFolder:
    """Annotations of 70 pictures of many sizes and modes, one of them grey and one on its side."""
    folder, rows = tmp_path_factory.mktemp("photographs"), []
    rng = np.random.default_rng(0)
    for number in range(70):
        levels = rng.integers(0, 256, (int(rng.integers(33, 90)), int(rng.integers(33, 90)), 3), dtype=np.uint8)
        picture, name = Image.fromarray(levels), f"{number}.jpg"
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 3 else 1
        (picture.convert("L") if number == 5 else picture).save(folder / name, exif=exif)
        rows.append({"image_path": f"./{name}", "caption": "a picture", "image_id": name})
    files = {split: str(folder / f"{split}.json") for split in ("train", "val", "test")}
    for split, some in (("train", rows[:66]), ("val", rows[66:68]), ("test", rows[68:])):
        Path(files[split]).write_text(json.dumps(some))
    data = DatasetFolder(folder / "data")
    convert(PublishedDataset(name="p", format="published", annotations=files), data.annotations, data.images)
    return data


def shards_of(data: DatasetFolder, folder: Path, **settings: object) -> Path:
    write_split(data.annotations, "train", folder, Shards(samples_per_shard=20, **settings))
    return folder


STORED = {
    "jpg": {"shorter_side": 40},
    "png": {"shorter_side": 32, "image_format": "png"},
    "webp": {"shorter_side": 48, "image_format": "webp"},
    "original files": {"shorter_side": None},
}


@pytest.mark.parametrize("settings", STORED.values(), ids=STORED)
def test_pixels_are_those_of_the_shards_bit_for_bit(photographs, tmp_path, settings):
    shards = shards_of(photographs, tmp_path / "shards", **settings)
    reader = ShardReader(shards)
    write_crops(shards, TRANSFORM, tmp_path / "crops", threads=2)
    write_whole_pictures(shards, tmp_path / "whole", threads=2)
    decoded = PixelInputs(reader, TRANSFORM)
    crops, pictures = Crops.open(tmp_path / "crops", reader, TRANSFORM), WholePictures.open(tmp_path / "whole", reader)
    mapped = PixelInputs(reader, TRANSFORM, crops, pictures)
    chosen = np.array([65, 3, 5, 3, 0, 31, 32])
    assert torch.equal(mapped[chosen], decoded[chosen])
    assert mapped[chosen].stride() == decoded[chosen].stride()
    assert len(crops) == len(pictures) == len(mapped) == 66
    for position in (0, 3, 5, 64, 65):
        assert torch.equal(mapped.decoded(position), decoded.decoded(position))
        # Resizing rounds by the order of the numbers in memory.
        assert mapped.decoded(position).stride() == decoded.decoded(position).stride()


@pytest.mark.parametrize("crop", [[32, 32], [24, 20]], ids=["whole side", "central part"])
def test_a_batch_is_a_copy_that_may_be_changed(photographs, tmp_path, crop):
    resize, side = crop
    transform = replace(TRANSFORM, resize=resize, crop=side)
    shards = shards_of(photographs, tmp_path / "shards")
    write_crops(shards, transform, tmp_path / "crops")
    crops = Crops.open(tmp_path / "crops", ShardReader(shards), transform)
    batch = crops[np.arange(4)]
    assert batch.shape == (4, 3, side, side)
    before = batch.clone()
    batch += 1
    assert torch.equal(crops[np.arange(4)], before)


def test_pixels_of_other_shards_or_of_another_transform_are_not_read(photographs, tmp_path, caplog):
    shards = shards_of(photographs, tmp_path / "shards", shorter_side=40)
    reader = ShardReader(shards)
    write_crops(shards, TRANSFORM, tmp_path / "crops")
    write_whole_pictures(shards, tmp_path / "whole")
    assert Crops.open(tmp_path / "nothing", reader, TRANSFORM) is None
    assert WholePictures.open(tmp_path / "nothing", reader) is None
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert Crops.open(tmp_path / "crops", reader, replace(TRANSFORM, interpolation="bilinear")) is None
        assert Crops.open(tmp_path / "whole", reader, TRANSFORM) is None
    assert "is not used, but the shards are decoded" in caplog.text
    other = ShardReader(shards_of(photographs, tmp_path / "other", shorter_side=48))
    assert Crops.open(tmp_path / "crops", other, TRANSFORM) is None
    assert WholePictures.open(tmp_path / "whole", other) is None


def test_damaged_pixels_are_refused_with_what_to_do(photographs, tmp_path):
    shards = shards_of(photographs, tmp_path / "shards", shorter_side=40)
    reader = ShardReader(shards)
    write_crops(shards, TRANSFORM, tmp_path / "crops")
    path = tmp_path / "crops/pixels.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match="delete .*, and the same command makes it again"):
        Crops.open(tmp_path / "crops", reader, TRANSFORM)
    np.save(path, np.zeros((66, 31, 32, 3), np.uint8))
    with pytest.raises(DataError, match=r"expected uint8 of shape \(66, 32, 32, 3\)"):
        Crops.open(tmp_path / "crops", reader, TRANSFORM)
    write_whole_pictures(shards, tmp_path / "whole")
    np.save(tmp_path / "whole/sizes.npy", np.zeros((3, 2), np.int32))
    with pytest.raises(DataError, match="sizes.npy holds int32 of shape"):
        WholePictures.open(tmp_path / "whole", reader)


def test_nothing_is_left_of_pixels_that_could_not_be_made(photographs, tmp_path, monkeypatch):
    shards = shards_of(photographs, tmp_path / "shards")
    tar = shards / "shard-000003.tar"
    tar.write_bytes(tar.read_bytes()[:600])
    with pytest.raises(DataError, match="shorter than its index says"):
        write_crops(shards, TRANSFORM, tmp_path / "pixels/crops", threads=2)
    assert not list((tmp_path / "pixels").iterdir())
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(DataError, match="pixels.npy needs [0-9.]+ MB"):
        write_crops(shards_of(photographs, tmp_path / "sound"), TRANSFORM, tmp_path / "pixels/crops")
    assert not list((tmp_path / "pixels").iterdir())


def test_a_split_is_opened_with_its_stored_pixels(tiny_configuration, shapes_data, tmp_path):
    data = DatasetFolder(Path(shutil.copytree(shapes_data, tmp_path / "shapes")))
    student = StudentSettings(**tiny_configuration["student"])
    write_crops(data.shards("val"), transform_of_student(student), data.pixels(pixels_folder(student), "val"))
    write_whole_pictures(data.shards("train"), data.pixels(WHOLE_PICTURES, "train"))
    backbone = load_backbone(student)
    opened = {
        split: open_images(backbone, student, data, SplitTables.open(data, split)) for split in ("train", "val", "test")
    }
    assert [opened[split].crops is None for split in opened] == [True, False, True]
    assert [opened[split].pictures is None for split in opened] == [False, True, True]
