"""Tables and ALBEF's JSON in several files: a folder, a pattern or a list in braces, for each split or for all."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from cusa.annotations.convert import inspect
from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.source import Record
from cusa.config.dataset import load_dataset
from cusa.errors import ConfigurationError


@pytest.fixture
def data(tmp_path, shapes) -> Path:
    """Two tables of train, one of val and one of test, in CSV; the images are those of the shapes."""
    rows = {split: json.loads((shapes / f"{split}.json").read_text()) for split in ("train", "val", "test")}
    half = len(rows["train"]) // 2
    files = {
        "train-0": rows["train"][:half],
        "train-1": rows["train"][half:],
        "val-0": rows["val"],
        "test": rows["test"],
    }
    for name, members in files.items():
        pairs = [(str(shapes / row["image_path"]), row["caption"]) for row in members]
        write_table(tmp_path / f"{name}.csv", [("image", "caption"), *pairs])
    return tmp_path


def write_table(path: Path, rows: list[tuple[str, ...]], separator: str = ",") -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)


def read_table(path: Path) -> list[tuple[str, ...]]:
    with path.open(newline="") as file:
        return [tuple(row) for row in csv.reader(file)]


def section(data: Path, train: str) -> dict:
    rest = {split: str(data / f"{split}.csv") for split in ("val-0", "test")}
    return {
        "name": "shapes",
        "format": "table",
        "annotations": {"train": str(data / train), "val": rest["val-0"], "test": rest["test"]},
    }


def records(mapping: dict) -> list[Record]:
    return [each for each in open_source(load_dataset(mapping), Path("/none")).records() if isinstance(each, Record)]


@pytest.mark.parametrize("train", ["train-*.csv", "train-{0,1}.csv", "train-[01].csv", "train"])
def test_tables_of_a_split_are_read_one_after_the_other(data, train):
    both = [records(section(data, f"train-{number}.csv")) for number in (0, 1)]
    expected = [each for found in both for each in found if each.split == "train"]
    if train == "train":
        (data / "train").mkdir()
        for number in (0, 1):
            content = (data / f"train-{number}.csv").read_bytes()
            (data / f"train/{number}.csv.gz").write_bytes(gzip.compress(content))
    found = records(section(data, train))
    plain = [each._replace(place="") for each in found if each.split == "train"]
    assert plain == [each._replace(place="") for each in expected]
    assert len({each.split for each in found}) == 3


def test_each_table_has_its_own_heading_and_kind(data):
    rows = read_table(data / "train-1.csv")[1:]
    write_table(data / "train-1.csv", [("caption", "image"), *((text, image) for image, text in rows)], "\t")
    (data / "train-2.json").write_text(json.dumps([{"image": image, "caption": text} for image, text in rows]))
    texts = [each.caption for each in records(section(data, "train-*")) if each.split == "train"]
    assert texts[-2 * len(rows) :] == [text for _, text in rows] * 2


def test_files_that_are_missing_or_match_nothing_are_named(data):
    dataset = load_dataset(section(data, "train-{0,1,2}.csv"))
    assert dataset.files["annotations.train[2]"] == str(data / "train-2.csv")
    assert load_dataset(section(data, "tran-*.csv")).files["annotations.train"] == str(data / "tran-*.csv")
    with pytest.raises(ConfigurationError, match="braces that do not pair up"):
        load_dataset(section(data, "train-{0,1.csv"))


def test_a_single_file_is_an_input_in_its_own_spelling(data, monkeypatch):
    """Another spelling would be another input of the job `convert`, which would then run again."""
    monkeypatch.chdir(data)
    dataset = load_dataset(
        section(Path(), "x") | {"annotations": {"train": "./train-0.csv", "val": "val-0.csv", "test": "test.csv"}}
    )
    assert dataset.files["annotations.train"] == "./train-0.csv"


def test_a_column_says_the_split_in_all_files_of_a_pattern(data):
    for name, split in (("train-0", "train"), ("train-1", "train"), ("val-0", "dev"), ("test", "test")):
        heading, *rows = read_table(data / f"{name}.csv")
        write_table(data / f"all-{name}.csv", [(*heading, "split"), *((*row, split) for row in rows)])
    mapping = {"name": "d", "format": "table", "file": str(data / "all-*.csv"), "columns": {"split": "split"}}
    expected = {each._replace(place="") for each in records(section(data, "train-*.csv"))}
    assert {each._replace(place="") for each in records(mapping)} == expected


def test_albef_reads_several_json_files_of_a_split(data, shapes):
    """As ALBEF's pre-training names coco.json, vg.json and others for train."""
    rows = json.loads((shapes / "train.json").read_text())
    parts = {"coco": rows[:20], "vg": rows[20:]}
    for name, members in [
        *parts.items(),
        *((s, json.loads((shapes / f"{s}.json").read_text())) for s in ("val", "test")),
    ]:
        content = [{"image": str(shapes / row["image_path"]), "caption": row["caption"]} for row in members]
        (data / f"{name}.json").write_text(json.dumps(content))
    places = {"train": "{coco,vg}.json", "val": "val.json", "test": "test.json"}
    dataset = load_dataset(
        {"name": "d", "format": "albef", "annotations": {split: str(data / place) for split, place in places.items()}}
    )
    found = [each for each in open_source(dataset, Path("/none")).records() if each.split == "train"]
    assert [each.caption for each in found] == [row["caption"] for row in rows]
    assert list(dataset.files) == [
        "annotations.train[0]",
        "annotations.train[1]",
        "annotations.val",
        "annotations.test",
    ]
    (data / "scratch").mkdir()
    assert inspect(dataset, data / "scratch").captions["train"] == len(rows)
