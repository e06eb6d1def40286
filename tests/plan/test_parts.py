"""The number of parts of a folder is read off the names of its own parts, and of nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cusa.plan.parts import PlannedParts, parts_in, parts_there, remove_other_parts
from cusa.plan.recorded_jobs import RecordedJobs

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


def planned(inputs: list[str] | None, submitted: bool = False, forced: bool = False) -> PlannedParts:
    """Parts where `inputs` are recorded of every output."""
    jobs = RecordedJobs(lambda output: None, lambda output: inputs)
    return PlannedParts(jobs, submitted, lambda: forced)


@pytest.mark.parametrize(
    ("inputs", "is_same", "forced", "number"),
    [
        (True, True, False, 3),  # another number in the configuration is no reason to make it again
        (True, False, False, 8),
        (True, True, True, 8),
        (False, True, False, 8),  # there is no record of it
    ],
)
def test_a_folder_that_is_not_made_again_keeps_its_number_of_parts(tmp_path, inputs, is_same, forced, number):
    folder = tmp_path / "train"
    folder.mkdir()
    parts = planned([f"{folder}.parts/0-of-3"] if inputs else None, forced=forced)
    assert parts.number(str(folder), str(folder), 8, is_same) == number


def test_a_folder_that_is_not_there_has_the_number_of_the_configuration(tmp_path):
    folder = str(tmp_path / "train")
    assert planned([f"{folder}.parts/0-of-3"]).number(folder, folder, 8, is_same=True) == 8


def test_a_job_on_a_cluster_has_the_parts_that_were_planned_for_it(tmp_path):
    folder = tmp_path / "train"
    made(folder, "0-of-3", 100)
    assert planned(None, submitted=True).number(str(folder), str(folder), 8, is_same=False) == 3


def test_only_parts_of_another_number_than_planned_are_removed(tmp_path):
    train, val = tmp_path / "train", tmp_path / "val"
    for folder in (train, val):
        made(folder, "0-of-3", 100)
        made(folder, "0-of-8", 100)
    parts = planned(None)
    parts.number(str(train), str(train), 8, is_same=False)
    parts.remove_others([str(train), str(val)])
    assert sorted(path.name for path in tmp_path.glob("*.parts/*")) == ["0-of-3", "0-of-8", "0-of-8"]
