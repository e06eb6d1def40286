from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cusa.errors import DataError
from cusa.shards.image_files import (
    IMAGE_FILES,
    ImageChanges,
    changed_images,
    describe_files,
    record_image_files,
    write_image_files,
)


@pytest.fixture
def images(tmp_path) -> list[str]:
    """Three images; the last is a link to a file elsewhere."""
    for name in ("a.jpg", "b.jpg", "elsewhere.jpg"):
        (tmp_path / name).write_bytes(name.encode())
        os.utime(tmp_path / name, ns=(1, 1_234_567_890_123_456_789))
    (tmp_path / "c.jpg").symlink_to("elsewhere.jpg")
    return [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")]


def test_the_description_of_files_has_their_bytes_and_their_times_to_the_nanosecond(images):
    table = describe_files([*images, "/no/such/file", "with\0nul"])
    assert table["image_path"].to_pylist() == [*images, "/no/such/file", "with\0nul"]
    assert table["bytes"].to_pylist() == [5, 5, 13, None, None]
    assert table["modified"].cast(pa.int64()).to_pylist() == [1_234_567_890_123_456_789] * 3 + [None, None]
    assert len(describe_files([])) == 0


def test_more_files_than_one_thread_asks_about_keep_their_order(images):
    table = describe_files([images[0], images[2]] * 5000)
    assert table["bytes"].to_pylist() == [5, 13] * 5000


def test_another_size_another_time_and_no_file_are_changes(tmp_path, images):
    write_image_files(describe_files(images), tmp_path)
    assert changed_images(tmp_path) == ImageChanges(3, [], [])
    os.utime(images[0], ns=(1, 1_234_567_890_123_456_790))
    (tmp_path / "elsewhere.jpg").write_bytes(b"the target of a link")
    Path(images[1]).unlink()
    assert changed_images(tmp_path) == ImageChanges(3, [images[0], images[2]], [images[1]])


def test_pictures_that_were_made_from_other_files_are_compared_by_size(tmp_path, images):
    write_image_files(describe_files(images), tmp_path)
    os.utime(images[0], ns=(1, 1))
    assert changed_images(tmp_path, made_in=tmp_path) == ImageChanges(3, [], [])
    assert changed_images(tmp_path, made_in=tmp_path / "other") == ImageChanges(3, [images[0]], [])
    (tmp_path / "a.jpg").write_bytes(b"cut")
    assert changed_images(tmp_path, made_in=tmp_path) == ImageChanges(3, [images[0]], [])


def test_an_image_that_was_not_there_and_is_now_is_a_change_and_one_that_still_is_not_is_none(tmp_path, images):
    Path(images[0]).unlink()
    missing = str(tmp_path / "never.jpg")
    write_image_files(describe_files([*images, missing]), tmp_path)
    assert changed_images(tmp_path) == ImageChanges(4, [], [])
    (tmp_path / "a.jpg").write_bytes(b"new")
    assert changed_images(tmp_path) == ImageChanges(4, [images[0]], [])


def test_nothing_is_said_without_a_record_or_without_any_image(tmp_path, images):
    assert changed_images(tmp_path) is None
    write_image_files(describe_files(images), tmp_path)
    for path in images:
        Path(path).unlink()
    assert changed_images(tmp_path) is None


@pytest.mark.parametrize("says", ["is not a complete Parquet file .*", "has other columns than image_path, .*"])
def test_a_damaged_record_is_one_sentence(tmp_path, images, says):
    record = tmp_path / IMAGE_FILES
    write_image_files(describe_files(images), tmp_path)
    if "complete" in says:
        record.write_bytes(record.read_bytes()[:-20])
    else:
        pq.write_table(pa.table({"path": images}), record)
    with pytest.raises(DataError, match=rf"{record} {says}; delete {record}, and the images"):
        changed_images(tmp_path)


def tables_beside(shards: Path, paths: list[str], splits: list[str]) -> None:
    annotations = shards.parents[1] / "annotations"
    annotations.mkdir()
    table = {"image_path": paths, "split": splits, "image_id": paths}
    pq.write_table(pa.table(table), annotations / "images.parquet")


def test_a_record_is_taken_once_and_the_folder_keeps_its_time(tmp_path, images):
    shards = tmp_path / "shards/train"
    tables_beside(shards, images, ["train", "val", "train"])
    assert not record_image_files(shards)
    shards.mkdir(parents=True)
    os.utime(shards, (1e9, 1e9))
    assert record_image_files(shards)
    assert shards.stat().st_mtime == 1e9
    assert pq.read_table(shards / IMAGE_FILES)["image_path"].to_pylist() == [images[0], images[2]]
    assert not record_image_files(shards)


def test_no_record_is_taken_where_the_images_are_on_another_machine(tmp_path):
    shards = tmp_path / "shards/train"
    shards.mkdir(parents=True)
    tables_beside(shards, ["/not/here.jpg"], ["train"])
    assert not record_image_files(shards)
    assert not (shards / IMAGE_FILES).exists()
