"""One picture in two splits is told, whatever its path, size or quality; pictures that differ are not copies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import COLOURS, SHAPES, draw_shape
from PIL import Image, ImageDraw

from cusa.annotations.convert import convert, inspect
from cusa.annotations.copies import MAX_BITS, Thumbnails, close_hashes, near_copies
from cusa.annotations.tables import IMAGES, read_table
from cusa.common.files import read_json
from cusa.common.perceptual_hash import perceptual_hash
from cusa.config.dataset import PublishedDataset
from cusa.errors import DataError


def photograph(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """A picture with soft areas, edges and noise, as photographs have."""
    random = np.random.default_rng(seed)
    soft = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), 3)
    pen = ImageDraw.Draw(soft)
    for _ in range(6):
        x, y, w, h = random.integers(0, (width, height, width // 3, height // 3))
        pen.rectangle((int(x), int(y), int(x + w), int(y + h)), fill=tuple(random.integers(0, 256, 3).tolist()))
    noise = random.normal(0, 6, (height, width, 3))
    return Image.fromarray((np.asarray(soft) + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photographs of train, one of val, one of test, and their JSON files."""
    (tmp_path / "data/a").mkdir(parents=True)
    names = {"train": range(4), "val": range(4, 5), "test": range(5, 6)}
    for split, numbers in names.items():
        rows = []
        for number in numbers:
            photograph(number).save(tmp_path / f"data/a/{number}.jpg", quality=92)
            rows.append({"image_path": f"a/{number}.jpg", "caption": f"Number {number}", "image_id": str(number)})
        (tmp_path / f"data/{split}.json").write_text(json.dumps(rows))
    return tmp_path / "data"


def add(folder: Path, split: str, path: str, image_id: str | None = None) -> None:
    """Another image of a split, with an id of its own."""
    file = folder / f"{split}.json"
    row = {"image_path": path, "caption": "Another one.", "image_id": image_id or f"another {split}"}
    file.write_text(json.dumps([*json.loads(file.read_text()), row]))


def converted(folder: Path, **settings: object) -> dict:
    """What problems.json says."""
    files = {split: str(folder / f"{split}.json") for split in ("train", "val", "test")}
    section = PublishedDataset(name="photos", format="published", annotations=files, **settings)
    convert(section, folder / "out", folder / "images", threads=2)
    return read_json(folder / "out/problems.json")


def splits(folder: Path) -> list[str]:
    return read_table(folder / "out", IMAGES)["split"].to_pylist()


def another_name(folder: Path, kind: str) -> str:
    """Another path of the first photograph of train."""
    path = folder / "a/0.jpg"
    match kind:
        case "dots":
            return "a/../a/./0.jpg"
        case "symbolic link":
            (folder / "link.jpg").symlink_to(path)
            return "link.jpg"
        case "linked folder":
            (folder / "b").symlink_to(folder / "a")
            return "b/0.jpg"
        case "hard link":
            (folder / "hard.jpg").hardlink_to(path)
            return "hard.jpg"
    raise ValueError(kind)


@pytest.mark.parametrize("kind", ["dots", "symbolic link", "linked folder", "hard link"])
def test_one_file_in_two_splits_stops_whatever_its_path(folder, kind):
    add(folder, "test", another_name(folder, kind))
    with pytest.raises(DataError, match="images in more than one split") as error:
        converted(folder)
    assert "a/0.jpg: 0 in train and" in str(error.value)
    assert "another test in test" in str(error.value)
    # The same counts by `cusa check`, also where it decodes one image only.
    files = {split: str(folder / f"{split}.json") for split in ("train", "val", "test")}
    section = PublishedDataset(name="photos", format="published", annotations=files)
    (folder / "scratch").mkdir()
    assert inspect(section, folder / "scratch", sample=1).problems.counts == {"two_splits": 1}


@pytest.mark.parametrize("check_images", ["decode", "header"])
def test_byte_identical_copies_across_splits_are_told_and_can_be_left_out_of_train(folder, check_images):
    shutil.copy(folder / "a/0.jpg", folder / "copy.jpg")
    add(folder, "test", "copy.jpg")
    found = converted(folder, check_images=check_images)
    assert found["notes"] == {"copies_across_splits": 1}
    assert found["note_examples"]["copies_across_splits"] == [
        f"{folder}/a/0.jpg: 0 in train and {folder}/copy.jpg: another test in test"
    ]
    assert splits(folder) == ["train"] * 4 + ["val"] + ["test"] * 2

    found = converted(folder, check_images=check_images, leave_out_of_train=["copies"])
    assert found["notes"] == found["skipped"] == {"left_out_of_train": 1}
    assert splits(folder) == ["train"] * 3 + ["val"] + ["test"] * 2


def test_copies_within_a_split_are_counted_and_stay(folder):
    shutil.copy(folder / "a/0.jpg", folder / "copy.jpg")
    add(folder, "train", "copy.jpg")
    add(folder, "test", "a/../a/5.jpg")
    found = converted(folder)
    assert found["notes"] == {"one_file": 1, "copies": 1}
    assert splits(folder) == ["train"] * 5 + ["val"] + ["test"] * 2


@pytest.mark.parametrize("kind", ["copies", "one path"])
def test_a_picture_that_stands_for_many_images_is_told(folder, kind):
    """As the picture that a site shows in the place of one that is gone."""
    for number in range(8):
        shutil.copy(folder / "a/0.jpg", folder / f"gone {number}.jpg")
        add(folder, "train", "a/0.jpg" if kind == "one path" else f"gone {number}.jpg", f"gone {number}")
    assert "one_picture_often" not in converted(folder)["notes"]  # nine
    add(folder, "train", "a/../a/0.jpg")
    found = converted(folder)
    assert found["notes"]["one_picture_often"] == 1
    assert found["note_examples"]["one_picture_often"] == [f"{folder}/a/0.jpg: 10 images"]
    section = PublishedDataset(
        name="photos",
        format="published",
        annotations={split: str(folder / f"{split}.json") for split in ("train", "val", "test")},
    )
    (folder / "scratch").mkdir()
    assert inspect(section, folder / "scratch", sample=1).problems.notes["one_picture_often"] == 1


STORED_AGAIN = {
    "quality 50": lambda image: (image, {"format": "JPEG", "quality": 50}),
    "half the size": lambda image: (image.resize((160, 120), 3), {"format": "JPEG", "quality": 85}),
    "twice the size": lambda image: (image.resize((640, 480), 3), {"format": "PNG"}),
    "WebP": lambda image: (image, {"format": "WEBP", "quality": 60}),
}


@pytest.mark.parametrize("how", STORED_AGAIN)
def test_copies_in_another_size_or_quality_are_told_and_can_be_left_out_of_train(folder, how):
    image, settings = STORED_AGAIN[how](Image.open(folder / "a/1.jpg"))
    image.save(folder / "again", **settings)
    add(folder, "val", "again")
    found = converted(folder)
    assert found["notes"] == {"near_copies": 1}
    assert "a/1.jpg: 1 in train and" in found["note_examples"]["near_copies"][0]
    assert converted(folder, leave_out_of_train=["copies"])["notes"] == {"near_copies": 1}
    assert converted(folder, leave_out_of_train=["near_copies"])["notes"] == {"left_out_of_train": 1}
    assert splits(folder) == ["train"] * 3 + ["val"] * 2 + ["test"]


def test_a_copy_in_val_and_test_is_told_once_and_not_left_out(folder):
    Image.open(folder / "a/4.jpg").save(folder / "again.png")
    add(folder, "test", "again.png")
    assert converted(folder, leave_out_of_train=["copies", "near_copies"])["notes"] == {"near_copies": 1}
    assert splits(folder) == ["train"] * 4 + ["val"] + ["test"] * 2


def test_pictures_that_differ_are_no_copies_also_if_they_are_alike():
    """Drawings on white differ in a colour, a shape or a size; flat pictures have nothing to be known by."""
    drawings = [draw_shape(c, s, size) for c in COLOURS for s in SHAPES for size in ("small", "large")]
    flat = [Image.new("RGB", (64, 48), colour) for colour in ("white", "black", "#fefefe")]
    assert [perceptual_hash(image) for image in flat] == [0, 0, 0]
    images = [*drawings, *flat]
    hashes = np.array([perceptual_hash(image) for image in images], dtype=np.uint64)
    halves = np.arange(len(images)) % 2
    assert not list(near_copies(hashes, halves, 0, images.__getitem__))


def test_a_picture_that_was_edited_is_no_copy():
    image = photograph(7)
    edited = image.copy()
    ImageDraw.Draw(edited).rectangle((100, 80, 160, 140), fill="white")
    assert Thumbnails([image, image.resize((200, 150))].__getitem__).are_copies(0, 1)
    assert not Thumbnails([image, edited].__getitem__).are_copies(0, 1)
    assert not Thumbnails([image, image.resize((320, 160))].__getitem__).are_copies(0, 1)


def test_close_hashes_are_those_that_differ_in_few_bits():
    random = np.random.default_rng(0)
    hashes = random.integers(1, 2**63, 3000).astype(np.uint64)
    for bits in range(MAX_BITS + 3):
        flipped = np.uint64(sum(1 << int(bit) for bit in random.permutation(64)[:bits]))
        hashes[2000 + bits] = hashes[bits] ^ flipped
    found = set(close_hashes(hashes[2000:], hashes, np.arange(2000, 3000)))
    assert found == {(bits, bits) for bits in range(MAX_BITS + 1)}
