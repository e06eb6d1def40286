"""The space of a sweep: its points, what they change, and which sweeps are the same."""

from __future__ import annotations

import pytest
from sweep_configurations import LR, swept

from cusa.errors import ConfigurationError
from cusa.sweep.space import configuration_at, corners, grid, nested, present_point, run_at, study_name, sweep_of

RANGE = {"low": 0.0001, "high": 0.01, "log": True}


def test_a_grid_has_all_combinations(tiny_configuration):
    space = {"train.lr": [0.001, 0.003], "train.feature_dropout": [0.0, 0.2, 0.4]}
    points = grid(sweep_of(swept(tiny_configuration, space)))
    assert len(points) == 6
    assert len({tuple(point.items()) for point in points}) == 6
    assert {"train.lr": 0.003, "train.feature_dropout": 0.4} in points


def test_the_corners_of_a_range_are_its_ends(tiny_configuration):
    space = {"train.lr": RANGE, "train.epochs": [1, 2, 3]}
    found = corners(sweep_of(swept(tiny_configuration, space, method="tpe", trials=2)))
    assert [point["train.lr"] for point in found if "train.lr" in point] == [0.0001, 0.01]
    assert [point["train.epochs"] for point in found if "train.epochs" in point] == [1, 2, 3]


def test_a_point_changes_its_keys_and_nothing_else(tiny_configuration):
    configuration = swept(tiny_configuration)
    point = {"train.lr": 0.005, "experiments.cusa.cross_softlabel.rate": 0.3, "experiments.cusa.train.epochs": 5}
    run = run_at(configuration, point, 7)
    assert (run.train.lr, run.losses.cross_softlabel.rate, run.train.epochs, run.seed) == (0.005, 0.3, 5, 7)
    before = configuration.run("cusa", 7).model_dump()
    before["train"] |= {"lr": 0.005, "epochs": 5}
    before["losses"]["cross_softlabel"]["rate"] = 0.3
    assert run.model_dump() == before
    assert configuration_at(configuration, point).run("contrastive", 7).train.epochs == 2


def test_a_loss_can_be_switched_off(tiny_configuration):
    run = run_at(swept(tiny_configuration), {"experiments.cusa.uni_softlabel": None}, 23)
    assert run.losses.uni_softlabel is None
    assert run.losses.cross_softlabel is not None


def test_values_that_contradict_each_other_are_a_sentence(tiny_configuration):
    with pytest.raises(ConfigurationError, match="min_lr 0.5 is greater than lr 0.001"):
        run_at(swept(tiny_configuration), {"train.min_lr": 0.5}, 23)


def test_the_present_values_are_a_point_if_they_lie_in_the_space(tiny_configuration):
    def present(space):
        return present_point(swept(tiny_configuration, space, method="random", trials=1))

    assert present({"train.lr": RANGE, "train.feature_dropout": {"low": 0.0, "high": 0.5}}) == {
        "train.lr": 0.001,
        "train.feature_dropout": 0.0,
    }
    assert present({"experiments.cusa.train.lr": [0.001, 0.1]}) == {"experiments.cusa.train.lr": 0.001}
    assert present({"train.lr": {"low": 0.002, "high": 0.01}}) is None
    assert present({"train.epochs": {"low": 1, "high": 9, "step": 2}}) is None  # 2 is not among 1, 3, 5, 7 and 9
    assert present({"train.epochs": [2, 4], "experiments.cusa.uni_softlabel.rate": [0.5]}) == {
        "train.epochs": 2,
        "experiments.cusa.uni_softlabel.rate": 0.5,
    }


def test_a_larger_grid_and_more_trials_are_the_same_sweep(tiny_configuration):
    assert study_name(swept(tiny_configuration)) == study_name(swept(tiny_configuration, {"train.lr": [0.1]}))
    tpe = {"space": {"train.lr": RANGE}, "method": "tpe"}
    few, many = (swept(tiny_configuration, **tpe, trials=trials) for trials in (2, 20))
    assert study_name(few) == study_name(many)
    assert study_name(few).startswith("cusa-tpe-")


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"epochs": 3, "batch_size": 8, "lr": 0.001, "min_lr": 0.0001}},
        {"seeds": [24]},
        {"sweep": {"experiment": "contrastive", "space": LR}},
        {"sweep": {"experiment": "cusa", "space": LR | {"train.epochs": [2, 3]}}},
        {"sweep": {"experiment": "cusa", "space": {"train.lr": RANGE}, "method": "tpe", "trials": 2}},
    ],
    ids=["recipe", "seeds", "experiment", "keys", "method"],
)
def test_what_all_trials_share_makes_another_sweep(tiny_configuration, changes):
    assert study_name(swept(tiny_configuration)) != study_name(
        swept(tiny_configuration | changes, **changes.get("sweep", {}))
    )


def test_the_values_of_the_swept_keys_and_operational_keys_do_not(tiny_configuration):
    train = {**tiny_configuration["train"], "lr": 0.02, "log_every": 7}
    assert study_name(swept(tiny_configuration)) == study_name(swept({**tiny_configuration, "train": train}))


def test_a_point_as_an_overlay():
    point = {"train.lr": 0.1, "train.epochs": 3, "experiments.cusa.uni_softlabel.rate": 0.5}
    assert nested(point) == {
        "train": {"lr": 0.1, "epochs": 3},
        "experiments": {"cusa": {"uni_softlabel": {"rate": 0.5}}},
    }
