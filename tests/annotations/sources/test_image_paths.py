"""Where the images are: a root, Windows' backslashes, and paths that start as they do on another machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cusa.annotations.sources.image_paths import find_prefix, image_path, image_paths, without_prefix
from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.source import Record
from cusa.config.dataset import load_dataset
from cusa.errors import ConfigurationError

SPLITS = ("train", "val", "test")
PREFIXES = [
    "/export/share/vision",
    "C:\\Users\\me\\data",
    "C:/Users/me/data/",
    "\\\\server\\share",
    "../other/data",
    "/",
]


def joined(prefix: str, name: str) -> str:
    """A path as the other machine writes it."""
    return "\\".join([prefix, *name.split("/")]) if "\\" in prefix else f"{prefix.rstrip('/')}/{name}"


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_is_left_out_with_its_slash(prefix):
    assert without_prefix(joined(prefix, "a/1.jpg"), prefix) == "a/1.jpg"
    assert without_prefix(joined(prefix, "a/1.jpg"), None) == joined(prefix, "a/1.jpg")


@pytest.mark.parametrize(
    "name", ["a/1.jpg", "/export/share/visions/1.jpg", "/export/share/vision", "/Export/share/vision/1"]
)
def test_a_path_that_starts_otherwise_stays(name):
    assert without_prefix(name, "/export/share/vision") == name


def test_many_names_give_the_paths_that_each_gives(tmp_path):
    names = ["/x/a/1.jpg", "/y/2.jpg", "b\\3.jpg", "/x/b\\4.jpg", "./5.jpg"]
    for prefix in (None, "/x"):
        one_by_one = [image_path(None, tmp_path / "t.json", without_prefix(name, prefix)) for name in names]
        assert image_paths(None, tmp_path / "t.json", names, prefix) == one_by_one
    assert one_by_one[0] == f"{tmp_path}/a/1.jpg"
    assert one_by_one[1] == "/y/2.jpg"


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_prefix_is_found_by_the_files_that_are_there(tmp_path, prefix):
    names = [f"a/{number}.jpg" for number in range(4)]
    put(tmp_path / "images", *names)
    elsewhere = [joined(prefix, name) for name in names]
    found = find_prefix(elsewhere, [tmp_path, tmp_path / "images"], tmp_path / "t.csv")
    assert found is not None
    assert found[1] in (tmp_path, tmp_path / "images")
    paths = [image_path(str(found[1]), tmp_path / "t.csv", without_prefix(name, found[0])) for name in elsewhere]
    assert paths == [f"{tmp_path}/images/{name}" for name in names]


def test_the_last_name_alone_is_enough_for_absolute_paths_only(tmp_path):
    """`train/1.jpg` and `1.jpg` in another folder may be two images."""
    put(tmp_path, "1.jpg", "2.jpg")
    assert find_prefix(["/x/1.jpg", "/x/2.jpg"], [tmp_path], tmp_path / "t.csv") == ("/x", tmp_path)
    assert find_prefix(["x/1.jpg", "x/2.jpg"], [tmp_path], tmp_path / "t.csv") is None
    assert find_prefix(["/x/1.jpg", "/x/3.jpg", "/x/4.jpg"], [tmp_path], tmp_path / "t.csv") is None  # one of three
    assert find_prefix([], [tmp_path], tmp_path / "t.csv") is None


def rows(kind: str, folder: Path, prefix: str) -> dict[str, Any]:
    """A data set in one of the formats that name images by path, one image and caption a split."""
    names = {split: joined(prefix, f"pics/{split}.jpg") for split in SPLITS}
    files = {split: folder / f"{split}.json" for split in SPLITS}
    section: dict[str, Any] = {"format": kind, "annotations": {split: str(file) for split, file in files.items()}}
    match kind:
        case "published":
            for split, name in names.items():
                row = {"image_path": name, "caption": "a cat", "image_id": split}
                files[split].write_text(json.dumps([row]))
        case "albef":
            for split, name in names.items():
                files[split].write_text(json.dumps([{"image": name, "caption": ["a cat"]}]))
        case "coco":
            for split, name in names.items():
                content = {
                    "images": [{"id": 1, "file_name": name}],
                    "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}],
                }
                files[split].write_text(json.dumps(content))
        case "karpathy":
            images = [
                {"filename": name, "split": split, "sentences": [{"raw": "a cat"}]} for split, name in names.items()
            ]
            (folder / "all.json").write_text(json.dumps({"images": images}))
            section = {"format": kind, "file": str(folder / "all.json")}
        case "table":
            lines = [f"{name},a cat,{split}" for split, name in names.items()]
            (folder / "t.csv").write_text("\n".join(["image,caption,split", *lines]))
            columns = {"image": "image", "caption": "caption", "split": "split"}
            section = {"format": kind, "file": str(folder / "t.csv"), "columns": columns}
    return {"name": "mine", **section}


@pytest.mark.parametrize("kind", ["published", "albef", "coco", "karpathy", "table"])
@pytest.mark.parametrize("prefix", ["C:\\data\\mine", "D:/data"])
def test_every_format_that_names_images_by_path_has_the_key(tmp_path, kind, prefix):
    section = rows(kind, tmp_path, prefix) | {"image_root": str(tmp_path / "here"), "image_prefix": prefix}
    found = list(open_source(load_dataset(section), tmp_path / "images").records())
    assert [record.image_path for record in found if isinstance(record, Record)] == [
        f"{tmp_path}/here/pics/{split}.jpg" for split in SPLITS
    ]


def test_tars_have_no_paths_of_images():
    section = {"name": "mine", "format": "webdataset", "file": "a.tar", "held_out": {"val": 0.1, "test": 0.1}}
    with pytest.raises(ConfigurationError, match="image_prefix has no effect, because the pictures are in the tars"):
        load_dataset(section | {"image_prefix": "/x"})
