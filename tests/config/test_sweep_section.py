"""The section `sweep`: what is refused, how files are merged, and that no run depends on it."""

from __future__ import annotations

import json

import pytest

from cusa.config import load, merge
from cusa.config.sweep import Range
from cusa.errors import ConfigurationError

RANGE = {"low": 0.001, "high": 0.1}


def sweep(**changes: object) -> dict:
    return {"sweep": {"experiment": "cusa", "space": {"train.lr": [0.001, 0.002]}} | changes}


def test_it_is_off_and_not_in_the_json_of_configurations_that_lack_it(tiny_configuration):
    configuration = load(tiny_configuration)
    assert configuration.sweep is None
    assert "sweep" not in json.loads(configuration.as_json())
    assert load({**tiny_configuration, "sweep": None}) == configuration


def test_no_run_depends_on_it(tiny_configuration):
    with_sweep = load({**tiny_configuration, **sweep()})
    assert with_sweep.run("cusa", 23).as_json() == load(tiny_configuration).run("cusa", 23).as_json()
    assert load(json.loads(with_sweep.as_json())) == with_sweep


def test_a_null_in_another_file_removes_a_key(tiny_configuration):
    mapping = merge({**tiny_configuration, **sweep()}, sweep(space={"train.lr": None, "train.epochs": [1, 2]}))
    assert load(mapping).sweep.space == {"train.epochs": [1, 2]}


def test_numbers_that_yaml_reads_as_text_are_numbers(tiny_configuration):
    space = {"train.lr": ["1e-3", "2e-3"], "train.min_lr": {"low": "1e-6", "high": "1e-4", "log": True}}
    found = load({**tiny_configuration, **sweep(space=space, method="tpe", trials=2)}).sweep.space
    assert found == {"train.lr": [0.001, 0.002], "train.min_lr": Range(low=1e-6, high=1e-4, log=True)}


def test_a_range_of_steps_reaches_both_ends():
    assert Range(low=0.1, high=0.7, step=0.1).step == 0.1
    assert Range(low=16, high=64, step=16).is_whole


def test_a_range_of_integers_is_whole(tiny_configuration):
    assert Range(low=1, high=3).is_whole
    assert not Range(low=1, high=3, step=0.5).is_whole
    assert not Range(low=1.0, high=3).is_whole


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"experiment": "csa"},
            r"`sweep.experiment` is csa, which is none of the experiments that are trained \(contra",
        ),
        ({"space": {}}, "sweep.space"),
        ({"space": {"train.lr": 3}}, r"`train.lr` is 3; expected a list of values, or a mapping with low and high"),
        ({"space": {"train.lr": []}}, "sweep.space.train.lr"),
        ({"space": {"train.lr": [1.0, 1.0]}}, "space.train.lr has a value twice"),
        (
            {"space": {"dataset.name": ["a", "b"]}},
            "`dataset.name`; expected one that begins with `train.`, `student.` or",
        ),
        (
            {"space": {"experiments.contrastive.contrastive.rate": [1, 2]}},
            "experiment is `cusa`, but space has the key `experiments.contrastive.contrastive.rate` of another one; ",
        ),
        (
            {"experiment": "nope", "space": {"experiments.cusa.contrastive.rate": [1, 2]}},
            "experiment is `nope`, but space has the key `experiments.cusa.contrastive.rate` of another one; name one",
        ),
        ({"space": {"train.workers": [1, 2]}}, "`train.workers`, which changes nothing that is learned; leave it out"),
        ({"space": {"experiments.cusa.train.gpus": [1, 2]}}, "`experiments.cusa.train.gpus`, which changes nothing"),
        ({"space": {"train.select_on": ["val"]}}, "`train.select_on`"),
        (
            {"space": {"train.lr": RANGE}},
            "space.train.lr is a range, but a grid needs lists; give a list, or method: tpe",
        ),
        ({"trials": 3}, "a grid has all combinations; leave it out"),
        ({"method": "tpe"}, "trials is missing, which tpe needs; give the number of trials"),
        ({"method": "tpe", "trials": 0}, "sweep.trials"),
        ({"seeds": [1, 1]}, r"seeds \[1, 1\] repeats a seed"),
        (
            {"space": {"train.lr": RANGE | {"low": 1}}, "method": "tpe", "trials": 1},
            "low is 1 and high is 0.1; low has",
        ),
        ({"space": {"train.lr": RANGE | {"low": 0, "log": True}}}, "low is 0, which has no logarithm"),
        (
            {"space": {"train.lr": RANGE | {"log": True, "step": 0.1}}},
            "step has to be above 0, and is not possible beside",
        ),
        ({"space": {"train.lr": {"low": 1}}}, "`sweep.space.train.lr.high` is missing"),
        ({"space": {"train.lr": RANGE | {"hihg": 1}}}, "`sweep.space.train.lr.hihg` is unknown"),
        (
            {"space": {"train.lr": {"low": 16, "high": 64, "step": 31}}},
            "no whole number of steps of 31 leads to high, 64",
        ),
        ({"space": {"train.lr": {"low": 0.1, "high": 0.2, "step": 1}}}, "no whole number of steps of 1 leads to high"),
        ({"space": {"train.lr": [1, 1.0]}}, "space.train.lr has a value twice"),
        (
            {"space": {"train.lr": [0.1, 0.2], "experiments.cusa.train.lr": [0.3]}},
            "`train.lr` and `experiments.cusa.train.lr`, which set the same value",
        ),
        (
            {"space": {"experiments.cusa.uni_softlabel.rate": [1], "experiments.cusa.uni_softlabel": [None, {}]}},
            "`experiments.cusa.uni_softlabel` and `experiments.cusa.uni_softlabel.rate`, which set",
        ),
        ({"space": {f"train.key{n}": list(range(10)) for n in range(9)}}, "1,000,000,000 trials are too many"),
        ({"method": "random", "trials": 1_000_000}, "1,000,000 trials are too many, at most 10,000"),
        ({"draw_seed": 1}, "draw_seed is for random and tpe, and a grid draws nothing"),
        ({"parallel": 2}, "parallel is for tpe; the option --cores"),
        ({"pruning": {"warmup": 1.0}}, "sweep.pruning.warmup"),
    ],
    ids=lambda value: value.replace(" ", "-")[:40] if isinstance(value, str) else "",
)
def test_what_is_wrong_is_a_sentence(tiny_configuration, changes, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        load({**tiny_configuration, **sweep(**changes)})
