"""`cusa init` finds the folders of images of formats of papers, and tells where each split has a folder of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cusa.annotations.convert import inspect
from cusa.commands.starting_configuration import look_at
from cusa.config.dataset import load_dataset

SIZES = {"train": 8, "val": 3, "test": 3}


@pytest.fixture
def put(shapes, tmp_path) -> Callable[..., list[str]]:
    """A function that puts pictures called 0.jpg, 1.jpg, ... into a folder, and returns their names."""
    pictures = iter(sorted((shapes / "pics").iterdir()))

    def put_some(place: str, count: int, first: int = 0) -> list[str]:
        folder = tmp_path / place
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"{number}.jpg" for number in range(first, first + count)]
        for name in names:
            shutil.copy(next(pictures), folder / name)
        return names

    return put_some


def coco(names: list[str]) -> dict[str, Any]:
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    captions = [{"id": number, "image_id": number, "caption": f"picture {number}"} for number in range(len(names))]
    return {"images": images, "annotations": captions}


def karpathy(names: list[str]) -> dict[str, Any]:
    splits = [split for split, size in SIZES.items() for _ in range(size)]
    pairs = zip(names, splits, strict=True)
    return {"images": [{"filename": name, "split": split, "sentences": [{"raw": name}]} for name, split in pairs]}


def written(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def images_of(section: dict[str, Any], scratch: Path) -> dict[str, int]:
    """The images of each split, all of which are there."""
    (scratch / "scratch").mkdir()
    found = inspect(load_dataset(section), scratch / "scratch")
    assert not found.problems.counts
    return found.images


@pytest.mark.parametrize("place", ["{split}2017", "images/{split}2017", "annotations/{split}"])
@pytest.mark.parametrize("named", ["", "annotations"])
def test_each_of_cocos_splits_has_its_folder_also_if_names_are_equal(put, tmp_path, place, named):
    for split, size in SIZES.items():
        names = put(place.format(split=split), size)
        written(tmp_path / f"annotations/captions_{split}2017.json", coco(names))
    start = look_at(tmp_path / named)
    assert start.section["image_roots"] == {split: str(tmp_path / place.format(split=split)) for split in SIZES}
    assert not start.warnings
    assert images_of(start.section, tmp_path) == SIZES


def test_a_folder_of_all_of_cocos_splits_is_one_root(put, tmp_path):
    first = 0
    for split, size in SIZES.items():
        written(tmp_path / f"annotations/captions_{split}.json", coco(put("images", size, first)))
        first += size
    section = look_at(tmp_path).section
    assert section["image_root"] == str(tmp_path / "images")
    assert "image_roots" not in section
    assert images_of(section, tmp_path) == SIZES


@pytest.mark.parametrize(
    ("file", "folder"), [("data.json", "pics"), ("karpathy/data.json", "anything"), ("data.json", "")]
)
def test_karpathys_images_are_near_its_file(put, tmp_path, file, folder):
    path = written(tmp_path / file, karpathy(put(folder, sum(SIZES.values()))))
    section = look_at(path).section
    assert section.get("image_root") == (str(tmp_path / folder) if folder else None)
    assert images_of(section, tmp_path) == SIZES


@pytest.mark.parametrize("place", ["here", "here/images"])
def test_paths_of_another_machine_lose_their_start(put, tmp_path, place):
    """As in ALBEF's own files: /export/share/datasets/vision/VG/1.jpg."""
    first = 0
    for split, size in SIZES.items():
        names = [f"/export/share/vision/VG/{name}" for name in put(f"{place}/VG", size, first)]
        first += size
        written(tmp_path / f"here/{split}.json", [{"image": name, "caption": f"the {name}"} for name in names])
    start = look_at(tmp_path / "here")
    assert not start.warnings
    assert start.section["image_prefix"] == "/export/share/vision"
    root = None if place == "here" else str(tmp_path / place)
    assert start.section.get("image_root") == root
    assert f"image_prefix is /export/share/vision: without it, the images are in {tmp_path / place}" in start.reasons
    assert images_of(start.section, tmp_path) == SIZES


def test_other_folders_above_are_not_looked_through(put, tmp_path):
    """Another data set there may have images of the same names."""
    path = written(tmp_path / "mine/data.json", karpathy(put("another", sum(SIZES.values()))))
    start = look_at(path)
    assert "image_root" not in start.section
    assert "does not exist; correct dataset.image_root" in "\n".join(start.lines())


@pytest.mark.parametrize("kind", ["albef", "published", "table", "column"])
def test_a_folder_of_images_for_each_split_is_told(put, tmp_path, kind):
    """Images of equal names in them would be read from one of them."""
    lines = ["image,caption,split"]
    for split, size in SIZES.items():
        names = put(split, size)
        key = {"published": "image_path"}.get(kind, "image")
        rows = [{key: name, "caption": f"{split} {name}", "image_id": f"{split}-{name}"} for name in names]
        if kind == "column":
            lines += [f"{name},a {split} picture,{split}" for name in names]
        elif kind == "table":
            text = "image,caption\n" + "\n".join(f"{name},a picture" for name in names)
            (tmp_path / f"{split}.csv").write_text(text)
        else:
            written(tmp_path / f"{split}.json", rows)
    (tmp_path / "all.csv").write_text("\n".join(lines))
    start = look_at(tmp_path / "all.csv" if kind == "column" else tmp_path)
    assert (
        f"{tmp_path}/train is of train by its name, and beside it is test, but image_root is one" in start.warnings[-1]
    )


def test_a_split_that_is_drawn_needs_no_other_folder(put, tmp_path):
    names = put("train", SIZES["train"])
    put("test", SIZES["test"])
    (tmp_path / "captions.csv").write_text("image,caption\n" + "\n".join(f"{name},a picture" for name in names))
    start = look_at(tmp_path / "captions.csv")
    assert start.section["image_root"] == str(tmp_path / "train")
    assert not [warning for warning in start.warnings if "by its name" in warning]
