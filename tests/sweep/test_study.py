"""The folder of a sweep: which trial is the best, whose weights remain, and damaged files."""

from __future__ import annotations

import pytest
from sweep_configurations import result, study_of

from cusa.errors import DataError
from cusa.sweep.study import Study, best_of


def test_the_best_is_the_highest_mean_of_trials_that_were_trained_to_their_end():
    a, b, c = result("a", 0, [10.0] * 4, [20.0] * 4), result("b", 1, [16.0] * 4, [16.0] * 4), result("c", 2, [99.0])
    assert (a.score, b.score, c.score) == (15.0, 16.0, 99.0)
    assert best_of([a, b, c]) == b
    assert best_of([c]) is None


def test_of_equal_trials_the_earliest_is_the_best():
    equal = [result("z", 0, [10.0] * 4), result("a", 1, [10.0] * 4)]
    assert best_of(reversed(equal)) == equal[0]


def test_results_are_read_in_the_order_in_which_trials_began(tmp_path):
    written = [result("z", 0, [1.0] * 4), result("a", 1, [2.0] * 4)]
    study = study_of(tmp_path, *reversed(written))
    study.trial("running").begin(2, {"train.lr": 0.1})
    assert study.results == written
    assert [folder.name for folder in study.begun] == ["z", "a", "running"]


def test_only_the_best_keeps_its_weights(tmp_path):
    study = study_of(tmp_path, result("a", 0, [1.0] * 4), result("b", 1, [3.0] * 4), result("c", 2, [2.0] * 4))
    weights = {}
    for name in ("a", "b", "c", "running"):
        weights[name] = study.trial(name).run(23) / "best.safetensors"
        weights[name].parent.mkdir(parents=True)
        weights[name].touch()
    study.keep_best_weights()
    assert {name for name, path in weights.items() if path.exists()} == {"b", "running"}


def test_a_damaged_result_is_a_sentence(tmp_path):
    study = study_of(tmp_path, result("a", 0, [1.0] * 4))
    (tmp_path / "trials/a/trial.json").write_text('{"trial": "a", "number": 0, "values": {}}')
    with pytest.raises(DataError, match=r"trial.json is not the result of a trial: key `state`.*Delete the file"):
        _ = study.results


def test_a_folder_without_trials_has_no_results(tmp_path):
    assert Study(tmp_path / "none").results == []
