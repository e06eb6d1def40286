"""`cusa init` of files that hold pictures: which columns are pictures, and what texts and JSON files are none."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from format_files import add_member

from cusa.annotations.sources.registry import open_source
from cusa.commands.starting_configuration import look_at
from cusa.config.dataset import load_dataset
from cusa.errors import ConfigurationError

COUNT = 12
CAPTIONS = [f"a picture of {number} things" for number in range(COUNT)]


@pytest.fixture
def pictures(shapes) -> list[bytes]:
    return [path.read_bytes() for path in sorted((shapes / "pics").iterdir())[:COUNT]]


def parquet(folder: Path, name: str = "t.parquet", **columns: object) -> Path:
    """A Parquet file of columns of bytes and texts."""
    pq.write_table(pa.table({"caption": CAPTIONS, **columns}), folder / name)
    return folder / name


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"a text of many words", "no picture but text"), (bytes(range(48)), "no picture"), (b"\x00\x00", "no picture")],
)
def test_bytes_that_are_no_pictures_are_not_taken_for_some(tmp_path, content, kind):
    """Raw pixels, arrays, texts; pictures in base64 are text."""
    with pytest.raises(ConfigurationError, match=f"`image` holds bytes that are {kind}, but"):
        look_at(parquet(tmp_path, image=[content] * COUNT))


def test_captions_as_bytes_beside_names_of_images_are_told(tmp_path):
    names = [f"{number}.jpg" for number in range(COUNT)]
    path = parquet(tmp_path, image=names, caption=[caption.encode() for caption in CAPTIONS])
    with pytest.raises(ConfigurationError, match="none of which holds captions; `caption` holds bytes that are no pic"):
        look_at(path)


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_few_pictures_get_a_batch_that_they_fill(tmp_path, pictures, kind):
    if kind == "parquet":
        path = parquet(tmp_path, name="train.parquet", image=pictures)
    else:
        path = tmp_path / "train.tar"
        with tarfile.open(path, "w") as tar:
            for number, (content, caption) in enumerate(zip(pictures, CAPTIONS, strict=True)):
                add_member(tar, f"{number}.png", content)
                add_member(tar, f"{number}.txt", caption.encode())
    start = look_at(path)
    (reason,) = [reason for reason in start.reasons if "train.batch_size" in reason]
    assert yaml.safe_load(start.text)["train"]["batch_size"] in (4, 8)
    assert reason.endswith("and a step takes 128 by default")
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name]


def test_bytes_of_something_else_beside_pictures_are_left_out(tmp_path, pictures):
    start = look_at(parquet(tmp_path, embedding=[bytes(16)] * COUNT, image=pictures))
    assert start.section["columns"] == {"image": "image", "caption": "caption"}
    assert not start.warnings


def test_of_two_columns_of_pictures_the_name_says_which_one_and_the_other_is_told(tmp_path, pictures):
    start = look_at(parquet(tmp_path, mask=pictures[::-1], image=pictures))
    assert start.section["columns"]["image"] == "image"
    assert start.warnings == ["`mask` also holds pictures and is left out; see columns.image"]


def test_pictures_that_start_with_rows_without_one_are_found(tmp_path, pictures):
    assert look_at(parquet(tmp_path, image=[None, b"damaged", *pictures[2:]])).section["format"] == "parquet"


def test_a_first_file_without_rows_is_passed_over_and_none_at_all_is_told(tmp_path, pictures):
    (tmp_path / "parts").mkdir()
    full = parquet(tmp_path / "parts", "part-1.parquet", image=pictures)
    pq.write_table(pq.read_table(full).slice(0, 0), tmp_path / "parts/part-0.parquet")
    assert look_at(tmp_path / "parts").section["columns"] == {"image": "image", "caption": "caption"}
    with pytest.raises(ConfigurationError, match="part-0.parquet has no rows; expected at least one picture"):
        look_at(tmp_path / "parts/part-0.parquet")


def tar(folder: Path, pictures: list[bytes], ending: str, content: bytes) -> Path:
    """A tar of pictures, each with a file of an ending."""
    with tarfile.open(folder / "t.tar", "w") as file:
        for number, picture in enumerate(pictures):
            add_member(file, f"{number}.jpg", picture)
            add_member(file, f"{number}{ending}", content)
    return folder / "t.tar"


def test_texts_of_several_lines_are_told_to_be_one_caption(tmp_path, pictures):
    start = look_at(tar(tmp_path, pictures, ".txt", b"a dog\na hound\n"))
    assert [warning.partition(",")[0] for warning in start.warnings] == ["12 of the first 12 texts have several lines"]
    assert not look_at(tar(tmp_path, pictures, ".txt", b"a dog\n")).warnings


@pytest.mark.parametrize(("content", "says"), [(b'["a dog"]', "holds a list"), (b"a dog", "holds no JSON")])
def test_json_files_that_are_no_objects_are_told(tmp_path, pictures, content, says):
    with pytest.raises(ConfigurationError, match=rf"under a key of an object in KEY.json \(0.json {says}\)"):
        look_at(tar(tmp_path, pictures, ".json", content))


def test_other_texts_of_json_files_are_told(tmp_path, pictures):
    content = json.dumps({"text": "a dog on a beach", "alt": "a dog"}).encode()
    start = look_at(tar(tmp_path, pictures, ".json", content))
    assert start.section["keys"] == {"caption": "text"}
    assert start.warnings == ["`alt` also holds sentences and is left out; see dataset.keys.caption"]


@pytest.mark.parametrize("name", ["t.parq", "t.pq", "t.data", "T.PARQUET", "t"])
def test_a_file_of_parquet_that_is_named_may_end_in_anything(tmp_path, pictures, name):
    path = parquet(tmp_path, name, image=pictures)
    start = look_at(path)
    assert (start.section["format"], start.section["file"]) == ("parquet", str(path))
    source = open_source(load_dataset({"name": "mine", **start.section}), tmp_path / "out")
    assert [row.caption for row in source.records()] == CAPTIONS


def test_files_of_splits_with_another_ending_are_found_beside_the_one_that_is_named(tmp_path, pictures):
    train, test = (parquet(tmp_path, f"{split}.parq", image=pictures) for split in ("train", "test"))
    assert look_at(train).section["annotations"] == {"train": str(train), "test": str(test)}
