"""`cusa init` of folders that hold too much, few packed pictures, pairs of files, and Flickr8K's lists."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from format_files import add_member

from cusa.annotations.convert import convert
from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.source import Record
from cusa.commands import packed_files
from cusa.commands.starting_configuration import look_at
from cusa.config.dataset import load_dataset
from cusa.errors import ConfigurationError


def counts(section: dict, folder: Path) -> dict[str, int]:
    """The captions of each split, as `convert` reads them."""
    import pyarrow.parquet as pq

    convert(load_dataset(section), folder / "annotations", folder / "images")
    splits = pq.read_table(folder / "annotations" / "captions.parquet")["split"].to_pylist()
    return {split: splits.count(split) for split in ("train", "val", "test")}


def test_a_folder_with_too_much_in_it_is_told_without_looking_through_it(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_files, "MOST_ENTRIES", 20)
    for number in range(7):
        (tmp_path / f"{number}" / "a" / "b").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="more than 200,000 files and folders, .* name the folder that holds"):
        look_at(tmp_path)
    (tmp_path / "captions.csv").write_text("image,caption\n1.jpg,a cat\n2.jpg,a dog\n")
    assert look_at(tmp_path).section["file"] == str(tmp_path / "captions.csv")


def test_few_pictures_of_a_tar_are_drawn_for_every_split(shapes, tmp_path):
    pictures = [path.read_bytes() for path in sorted((shapes / "pics").iterdir())][:24]
    parts = [(f"{n}.jpg", content) for n, content in enumerate(pictures)]
    parts += [(f"{n}.txt", b"a shape") for n in range(len(pictures))]
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for name, content in sorted(parts):
            add_member(tar, name, content)
    start = look_at(tmp_path / "all.tar")
    assert sum(reason.startswith("held_out") for reason in start.reasons) == 1
    found = counts(start.section, tmp_path / "out")
    assert min(found.values()) >= 2 and found["train"] > found["test"]


def test_pictures_with_texts_beside_them_get_a_command_that_works(shapes, tmp_path, monkeypatch):
    folder = tmp_path / "my pairs"
    folder.mkdir()
    for number, path in enumerate(sorted((shapes / "pics").iterdir())[:24]):
        (folder / f"{number}.jpg").write_bytes(path.read_bytes())
        (folder / f"{number}.txt").write_text(f"shape {number}")
    with pytest.raises(ConfigurationError, match="are read from tars: tar ") as error:
        look_at(folder)
    command = str(error.value).partition("from tars: ")[2].removesuffix(" makes one.")
    subprocess.run(shlex.split(command), check=True, cwd=tmp_path)
    assert sum(counts(look_at(tmp_path / "pairs.tar").section, tmp_path / "out").values()) == 24


@pytest.mark.parametrize("names", ["Flickr_8k.{}Images.txt", "{}.txt"])
def test_the_token_file_of_flickr8k_is_read_with_its_lists(names, shapes, tmp_path):
    (tmp_path / "Flicker8k_Dataset").mkdir()
    pictures = sorted((shapes / "pics").iterdir())[:9]
    for path in pictures:
        os.link(path, tmp_path / "Flicker8k_Dataset" / path.name)
    lines = [f"{path.name}#{number}\ta shape {number}\n" for path in pictures for number in range(5)]
    (tmp_path / "Flickr8k.token.txt").write_text("".join(lines))
    with pytest.raises(ConfigurationError, match="has no list of images of train and val and test"):
        look_at(tmp_path / "Flickr8k.token.txt")
    for place, split in enumerate(("train", "dev" if "8k" in names else "val", "test")):
        listed = "".join(f"{path.name}\n" for path in pictures[place::3])
        (tmp_path / names.format(split)).write_text(listed)
    start = look_at(tmp_path / "Flickr8k.token.txt")
    assert not any("WARNING" in line for line in start.lines())
    assert counts(start.section, tmp_path / "out") == {"train": 15, "val": 15, "test": 15}


def splits_of(folder: Path, content: Callable[[int], object]) -> Path:
    """A JSON file for each split, with what `content` makes of a number."""
    for number, split in enumerate(("train", "val", "test")):
        (folder / f"{split}.json").write_text(json.dumps(content(number)))
        (folder / f"{number}.jpg").touch()
    return folder


@pytest.mark.parametrize("lists", [{0, 1, 2}, {1, 2}, set()])
def test_published_rows_with_lists_of_captions_are_a_table(tmp_path, lists):
    def rows(number: int) -> list[dict[str, object]]:
        captions = [f"a photo {number}", "another text"]
        caption = captions if number in lists else captions[0]
        return [{"image_path": f"{number}.jpg", "caption": caption, "image_id": number}]

    start = look_at(splits_of(tmp_path, rows))
    assert start.section["format"] == ("table" if lists else "published")
    found = list(open_source(load_dataset({"name": "d", **start.section}), tmp_path / "out").records())
    assert len([row for row in found if isinstance(row, Record)]) == 3 + len(lists)


@pytest.mark.parametrize(
    ("annotations", "says"),
    [
        (
            [{"id": 1, "image_id": 0, "bbox": [1, 2, 3, 4]}],
            r"has annotations of boxes, without captions \(their keys: id, ",
        ),
        ([{"id": 1, "image_id": 0, "caption": ["a", "b"]}], "has a list as `caption` of its first annotation"),
        (
            [{"id": 1, "image_id": 0, "text": "a"}],
            r"has no `caption` in its first annotation \(its keys: id, image_id, te",
        ),
        ([], "has no annotations"),
        (None, "has no annotations"),
    ],
)
def test_files_of_coco_without_captions_are_refused_with_what_they_have(tmp_path, annotations, says):
    content = {"images": [{"id": 0, "file_name": "0.jpg"}]} | (
        {} if annotations is None else {"annotations": annotations}
    )
    with pytest.raises(ConfigurationError, match=f"is like one of COCO's files, but {says}.*captions_"):
        look_at(splits_of(tmp_path, lambda number: content))
