"""Drawn values: in the space, new, the same for the same trials; and Optuna's own storage."""

from __future__ import annotations

import pytest
from sweep_configurations import result, study_of, swept

from cusa.sweep.sampling import next_values, write_storage
from cusa.sweep.space import sweep_of
from cusa.sweep.study import Study

pytest.importorskip("optuna")

SPACE = {
    "train.lr": {"low": 0.0001, "high": 0.01, "log": True},
    "train.epochs": {"low": 2, "high": 10, "step": 4},
    "train.feature_dropout": {"low": 0.0, "high": 0.5, "step": 0.25},
    "experiments.cusa.uni_softlabel": [None, {"rate": 0.5}, {"rate": 1.0}],
}


def sweep_by(mapping, method, space=None, **section):
    return sweep_of(swept(mapping, space or SPACE, method=method, trials=50, **section))


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_values_lie_in_the_space_and_differ(tiny_configuration, tmp_path, method):
    sweep, study = sweep_by(tiny_configuration, method), Study(tmp_path)
    drawn = []
    for number in range(14):
        values = next_values(sweep, study, number)
        study.trial(f"{number:04d}").begin(number, values)
        study.trial(f"{number:04d}").end(result(f"{number:04d}", number, [float(number)] * 4, values=values))
        drawn.append(values)
        assert list(values) == list(SPACE)
        assert 0.0001 <= values["train.lr"] <= 0.01
        assert values["train.epochs"] in (2, 6, 10)
        assert isinstance(values["train.epochs"], int)
        assert values["train.feature_dropout"] in (0.0, 0.25, 0.5)
        assert values["experiments.cusa.uni_softlabel"] in (None, {"rate": 0.5}, {"rate": 1.0})
    assert len({repr(values) for values in drawn}) == 14


def test_the_same_trials_give_the_same_values_in_another_process(tiny_configuration, tmp_path):
    sweep = sweep_by(tiny_configuration, "tpe")
    assert next_values(sweep, Study(tmp_path), 3) == next_values(sweep, Study(tmp_path), 3)
    assert next_values(sweep, Study(tmp_path), 3) != next_values(sweep, Study(tmp_path), 4)
    other = sweep_by(tiny_configuration, "tpe", draw_seed=1)
    assert next_values(sweep, Study(tmp_path), 3) != next_values(other, Study(tmp_path), 3)


def test_tpe_draws_where_earlier_trials_were_good(tiny_configuration, tmp_path):
    """Of 30 trials those near a dropout of 0.6 were the best: the next draws are nearer to it than chance is."""
    space = {"train.feature_dropout": {"low": 0.0, "high": 0.9}}
    tried = [number / 30 * 0.9 for number in range(30)]
    results = [
        result(f"{number:04d}", number, [90 - 100 * abs(value - 0.6)] * 4, values={"train.feature_dropout": value})
        for number, value in enumerate(tried)
    ]
    study = study_of(tmp_path, *results)
    distances = {}
    for method in ("tpe", "random"):
        sweep = sweep_by(tiny_configuration, method, space)
        drawn = [next_values(sweep, study, 30 + number)["train.feature_dropout"] for number in range(12)]
        distances[method] = sum(abs(value - 0.6) for value in drawn) / len(drawn)
    assert distances["tpe"] < 0.15 < distances["random"]


def test_a_space_that_is_used_up_repeats_values(tiny_configuration, tmp_path):
    space = {"train.epochs": [2, 3]}
    study = study_of(
        tmp_path,
        result("0000", 0, [1.0] * 4, values={"train.epochs": 2}),
        result("0001", 1, [1.0] * 4, values={"train.epochs": 3}),
    )
    assert next_values(sweep_by(tiny_configuration, "tpe", space), study, 2)["train.epochs"] in (2, 3)


def test_optuna_reads_the_storage(tiny_configuration, tmp_path):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    space = {"train.lr": {"low": 0.0001, "high": 0.01}}
    sweep = sweep_by(tiny_configuration, "tpe", space)
    impossible = result("0002", 2, state="impossible")
    study = study_of(tmp_path / "s", result("0000", 0, [1.0, 2.0, 5.0, 3.0]), result("0001", 1, [1.0]), impossible)
    study.trial("0003").begin(3, {"train.lr": 0.005})
    for _ in range(2):  # it is written anew after each trial
        write_storage(sweep, study)
    backend = JournalFileBackend(str(study.folder / "optuna.journal"))
    read = optuna.load_study(study_name="s", storage=JournalStorage(backend))
    assert [trial.state.name for trial in read.trials] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert read.best_value == 5.0
    assert read.best_params == {"train.lr": 0.001}
    assert read.trials[0].intermediate_values == {0: 1.0, 1: 2.0, 2: 5.0, 3: 3.0}
    assert sorted(path.name for path in study.folder.iterdir()) == ["optuna.journal", "trials"]
