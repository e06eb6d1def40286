"""The number of parts of a folder is read off the names of its own parts, and of nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cusa.plan.parts import parts_in, parts_there, remove_other_parts

FOLDER = "results/web/shards/train"


@pytest.mark.parametrize(
    ("names", "number"),
    [
        ([], 1),
        (["data/test-00000-of-00002.parquet", "data/train-1-of-3.csv"], 1),  # a user's files
        (["results/web/shards/val.parts/0-of-8"], 1),  # of another folder
        (["results/web/annotations/images.parquet", f"{FOLDER}.parts/0-of-8", f"{FOLDER}.parts/1-of-8"], 8),
        ([f"{FOLDER}.parts/3-of-12/features.npy"], 12),
        ([f"{FOLDER}.shares/0-of-4"], 4),
        ([f"{FOLDER}.parts/0-of-8.old"], 1),
    ],
)
def test_only_parts_of_the_folder_count(names, number):
    assert parts_in(names, FOLDER) == number


def test_a_name_that_looks_like_a_part_is_none():
    assert parts_in(["results/cc-1-of-2/annotations/images.parquet"], "results/cc-1-of-2/shards/train") == 1


def made(folder: Path, name: str, time: int) -> None:
    part = folder.with_name(f"{folder.name}.parts") / name
    part.mkdir(parents=True)
    os.utime(part, (time, time))


def test_of_several_numbers_the_newest_parts_count(tmp_path):
    folder = tmp_path / "train"
    assert parts_there(str(folder)) == 1
    made(folder, "0-of-9", 100)
    made(folder, "0-of-3", 200)
    assert parts_there(str(folder)) == 3


@pytest.mark.parametrize(("number", "left"), [(3, ["0-of-3", "1-of-3"]), (1, [])])
def test_parts_of_another_number_are_removed(tmp_path, number, left):
    folder = tmp_path / "train"
    for name in ("0-of-9", "0-of-3", "1-of-3"):
        made(folder, name, 100)
    (tmp_path / "train").mkdir()
    remove_other_parts(str(folder), number)
    assert sorted(path.name for path in (tmp_path / "train.parts").iterdir()) == left
    assert folder.is_dir()
