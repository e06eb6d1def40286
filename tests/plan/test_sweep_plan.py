"""The plan of a sweep: its trials, their files, and what is refused before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cusa.config import load
from cusa.errors import ConfigurationError
from cusa.plan import Plan, SweepPlan
from cusa.plan.recorded_jobs import RecordedJobs
from cusa.sweep.space import run_at

SPACE = {"train.lr": [0.001, 0.003]}
DRAWN = {"method": "tpe", "trials": 4}


def plan(mapping: dict, space: dict | None = None, **section: object) -> SweepPlan:
    sweep = {"experiment": "cusa", "space": space or SPACE} | section
    return SweepPlan(Plan(load({**mapping, "sweep": sweep})))


def test_without_the_section_there_is_nothing(tiny_configuration):
    found = SweepPlan(Plan(load(tiny_configuration)))
    found.check()
    assert (found.study, found.points, found.results(), found.summary_files(), found.inputs()) == (None, {}, [], [], [])
    assert (found.figures, found.report_option) == ([], "")


def test_the_trials_of_a_grid_keep_their_names_in_a_larger_grid(tiny_configuration):
    few, many = plan(tiny_configuration), plan(tiny_configuration, {"train.lr": [0.0005, 0.001, 0.003, 0.01]})
    assert (len(few.points), len(many.points)) == (2, 4)
    assert set(few.results()) < set(many.results())
    assert [json.loads(few.point_json(name)) for name in few.points] == [{"train.lr": 0.001}, {"train.lr": 0.003}]


def test_drawn_trials_have_numbers_and_wait_for_those_they_learn_from(tiny_configuration):
    one, two = plan(tiny_configuration, **DRAWN), plan(tiny_configuration, **DRAWN, parallel=2)
    assert list(one.points) == ["0000", "0001", "0002", "0003"]
    assert one.point_json("0001") == "null"
    assert [one.earlier(name) for name in one.points] == [[], *([path] for path in one.results()[:3])]
    assert [two.earlier(name) for name in two.points] == [[], [], *([path] for path in two.results()[:2])]
    random = plan(tiny_configuration, method="random", trials=3)
    assert [random.earlier(name) for name in random.points] == [[], [], []]


def test_a_trial_that_is_there_has_waited_for_what_it_waited_for(tiny_configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = plan(tiny_configuration, **DRAWN)
    results, second = found.results(), list(found.points)[1]
    jobs = RecordedJobs(lambda output: None, lambda output: ["captions.parquet"])
    assert found.waited_for(second, jobs) == results[:1]
    Path(results[1]).parent.mkdir(parents=True)
    Path(results[1]).touch()
    assert found.waited_for(second, jobs) == []  # as when `parallel` was larger


def test_a_trial_reads_what_its_experiment_reads(tiny_configuration):
    found = plan(tiny_configuration)
    assert found.inputs() == found.plan.training_inputs("cusa")
    assert found.report_option == f" --sweep {found.study.folder}/trials.parquet"
    assert [path.rsplit("/", 1)[1] for path in found.summary_files()] == ["trials.parquet", "trials.md", "best.yaml"]


def test_the_configuration_of_the_jobs_makes_the_same_trainings(tiny_configuration):
    found = plan(tiny_configuration)
    short = load(json.loads(found.configuration_json()))
    for point in found.points.values():
        assert run_at(short, point, 23) == run_at(found.configuration, point, 23)


def test_a_sentence_counts_trials_and_seeds(tiny_configuration):
    assert plan(tiny_configuration).sentence() == "2 trials of cusa (grid, 1 key), each trained with 1 seed"
    space = SPACE | {"train.epochs": [1, 2]}
    assert plan(tiny_configuration, space, seeds=[1, 2]).sentence().startswith("4 trials of cusa (grid, 2 keys), each")


@pytest.mark.parametrize(
    ("space", "section", "sentence"),
    [
        (
            {"train.lr": [0.001, 0.00001]},
            {},
            r"with train.lr: 1e-05: Configuration key `train`: min_lr 0.0001 is greater",
        ),
        ({"train.lr": {"low": -1.0, "high": 1.0}}, DRAWN, r"with train.lr: -1.0: .*`train.lr` is -1.0"),
        ({"train.learning": [1, 2]}, {}, r"with train.learning: 1: .*`train.learning` is unknown"),
        ({"train.lr": [0.001, "fast"]}, DRAWN, r"with train.lr: fast: .*`train.lr` is 'fast'"),
        (
            {"train.min_lr": [0.0001, 0.5], "train.lr": [0.001, 1.0]},
            {},
            r"with train.min_lr: 0.5, train.lr: 0.001: .*min_lr 0.5 is greater than lr 0.001",
        ),
    ],
    ids=["contradiction", "end-of-a-range", "unknown-key", "wrong-type", "two-keys"],
)
def test_values_that_cannot_be_tried_are_refused_with_their_key(tiny_configuration, space, section, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        plan(tiny_configuration, space, **section).check()


def test_drawn_values_that_contradict_each_other_are_left_to_the_trial(tiny_configuration):
    plan(tiny_configuration, {"train.min_lr": [0.0001, 0.0005], "train.lr": [0.001, 0.0002]}, **DRAWN).check()


def test_a_key_that_the_experiment_sets_itself_is_refused(tiny_configuration):
    own = {**tiny_configuration["experiments"]["cusa"], "train": {"lr": 0.01}}
    mapping = {**tiny_configuration, "experiments": {**tiny_configuration["experiments"], "cusa": own}}
    with pytest.raises(ConfigurationError, match=r"train.lr` changes nothing, .*write `experiments.cusa.train.lr`"):
        plan(mapping).check()
    plan(mapping, {"experiments.cusa.train.lr": [0.001, 0.002]}).check()


def test_a_model_whose_features_nothing_makes_is_refused(tiny_configuration, tiny_vision, tiny_sentences):
    towers = {
        "image": {"name": str(tiny_vision), "trainable": False},
        "text": {"name": str(tiny_sentences), "trainable": False},
    }
    mapping = {**tiny_configuration, "student": {"name": None, "towers": {**towers, "dimension": 12}}}
    plan(mapping, {"student.towers.dimension": [8, 12]}).check()
    with pytest.raises(ConfigurationError, match=r"the training reads .*experiment cusa does not read.*of its own"):
        plan(mapping, {"student.towers.image.image_size": [32, 64]}).check()


def test_without_optuna_the_methods_that_need_it_are_refused(tiny_configuration, monkeypatch):
    monkeypatch.setattr("cusa.plan.sweep.find_spec", lambda name: None)
    plan(tiny_configuration).check()
    with pytest.raises(ConfigurationError, match=r"`sweep.method` is tpe, which needs .*pip install 'cusa\[sweep\]'"):
        plan(tiny_configuration, **DRAWN).check()
