"""A data set with too little for the trainings is refused before shards and features are made."""

from __future__ import annotations

import pyarrow as pa
import pytest

from cusa.annotations.enough_data import DataNeeds, TrainingNeeds, needs_json, needs_of, require_enough
from cusa.annotations.tables import CAPTIONS, IMAGES, write_table
from cusa.config.configuration import load
from cusa.errors import DataError


def needs(**changes) -> TrainingNeeds:
    values = {"experiments": ["cusa"], "batch_size": 8, "processes": 2, "accumulate": 3, "selection_split": "val"}
    return TrainingNeeds(**(values | changes))


ENOUGH = {"train": 48, "val": 2, "test": 1}


def test_what_is_enough_has_no_shortfall():
    assert list(needs().shortfalls(ENOUGH, ENOUGH)) == []


@pytest.mark.parametrize(
    ("changes", "images", "captions", "says"),
    [
        ({}, {}, {"train": 47}, "the split train has 47 pairs of image and caption, but a step takes 48 "
         "(train.batch_size 8 x 2 processes x train.accumulate 3); lower train.batch_size to 7 or less, or add data."),
        ({}, {}, {"train": 5}, "lower train.batch_size and these, or add data"),
        ({}, {"train": 1}, {}, "the split train has 1 images and 48 captions, but each image is compared with others"),
        ({}, {"val": 1}, {"val": 5}, "the split val has 1 images and 5 captions, but its recall selects the epoch"),
        ({}, {"val": 5}, {"val": 1}, "the split val has 5 images and 1 captions"),
        ({}, {"val": 0}, {"val": 0}, "the split val has 0 images and 0 captions"),
        ({"selection_split": "test"}, {}, {}, "the split test has 1 images"),
        ({"readers": 4, "samples_per_shard": 16}, {}, {}, "the split train has 3 shards of "
         "shards.samples_per_shard 16, but the stream has 4 readers (2 processes x 2 workers)"),
        ({"group": 49}, {}, {"train": 240}, "train.hard_negatives.group is 49, but the split train has 48 images"),
        ({"experiments": ["a", "b", "c"]}, {}, {"train": 1}, "experiment a and 2 more: the split train has 1 pairs"),
    ],
)  # fmt: skip
def test_what_is_too_little_is_a_sentence_with_the_numbers(changes, images, captions, says):
    found = list(needs(**changes).shortfalls(ENOUGH | images, ENOUGH | captions))
    assert any(says in sentence for sentence in found), found


def test_the_text_of_the_needs_is_as_before_without_hard_negatives(tiny_configuration):
    """So that annotations of earlier releases are not made again."""
    assert "group" not in needs_json(load(tiny_configuration))
    train = {**tiny_configuration["train"], "hard_negatives": {"group": 4}}
    assert [each.group for each in needs_of(load({**tiny_configuration, "train": train}))] == [4]


def test_the_needs_are_those_of_the_recipes(tiny_configuration):
    """Experiments with one recipe are told together; baselines and checkpoints train nothing."""
    experiments = {
        **tiny_configuration["experiments"],
        "large": {"contrastive": {}, "train": {"batch_size": 64, "accumulate": 2, "cpu_processes": 2}},
        "teachers": {"baseline": "teachers"},
    }
    found = needs_of(load({**tiny_configuration, "experiments": experiments}))
    assert [(each.experiments, each.batch_size, each.processes, each.accumulate) for each in found] == [
        (["contrastive", "cusa"], 8, 1, 1),
        (["large"], 64, 2, 2),
    ]
    assert [each.readers for each in found] == [0, 0]
    stream = {"url": "https://example.org/{shard}.tar"}
    assert needs_of(load({**tiny_configuration, "stream": stream}))[0].readers == 1
    alone = dict.fromkeys(tiny_configuration["experiments"]) | {"teachers": {"baseline": "teachers"}}
    assert needs_json(load({**tiny_configuration, "experiments": alone})) == ""


def test_the_tables_are_counted(tiny_configuration, tmp_path):
    train = {**tiny_configuration["train"], "batch_size": 10}
    text = needs_json(load({**tiny_configuration, "train": train}))
    splits = pa.table({"split": ["train"] * 9 + ["val"] * 2 + ["test"]})
    write_table(tmp_path / IMAGES, splits)
    write_table(tmp_path / CAPTIONS, splits)
    with pytest.raises(DataError, match="the split train has 9 pairs of image and caption, but a step takes 10"):
        require_enough(text, tmp_path)
    require_enough(needs_json(load(tiny_configuration)), tmp_path)
    require_enough(None, tmp_path / "no-tables")


@pytest.mark.parametrize(
    ("folds", "images", "says"),
    [
        (5, 5000, None),
        (
            5,
            4999,
            "benchmarks.itr.folds is 5, but the split test has 4,999 images, which it does not divide. Write null",
        ),
        (4, 10, "has 10 images, which it does not divide; 2 and 5 do. Write null for no folds."),
        (5, 4, "has 4 images, which it does not divide; 2 does. Write null for no folds."),
        (7, 420, None),
        (11, 420, "10, 12 and 14 do"),
        (2, 0, "has 0 images"),
    ],
)
def test_folds_divide_the_test_images(folds, images, says):
    found = list(DataNeeds(trainings=[], folds=folds).shortfalls({"test": images}, {}))
    assert found == [] if says is None else says in found[0], found


def test_folds_are_needed_also_where_nothing_is_trained(tiny_configuration, tmp_path):
    alone = dict.fromkeys(tiny_configuration["experiments"]) | {"teachers": {"baseline": "teachers"}}
    text = needs_json(load({**tiny_configuration, "experiments": alone, "benchmarks": {"itr": {"folds": 3}}}))
    splits = pa.table({"split": ["test"] * 8})
    write_table(tmp_path / IMAGES, splits)
    write_table(tmp_path / CAPTIONS, splits)
    with pytest.raises(DataError, match="folds is 3, but the split test has 8 images, which it does not divide; 2"):
        require_enough(text, tmp_path)
