"""Configurations of sweeps over the shapes, and results of made-up trials; shared by the tests here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cusa.config.configuration import Configuration, load
from cusa.sweep.study import SeedResult, Study, TrialResult

LR = {"train.lr": [0.001, 0.003]}


def swept(mapping: dict[str, Any], space: dict[str, Any] | None = None, **section: Any) -> Configuration:
    """The configuration with a sweep of `cusa`: a grid over the learning rate unless the arguments say otherwise."""
    sweep = {"experiment": "cusa", "space": space or LR} | section
    return load({**mapping, "sweep": sweep})


def result(name: str, number: int, *curves: list[float], epochs: int = 4, **changes: Any) -> TrialResult:
    """The result of a trial that has these r_means after its epochs, a curve a seed."""
    seeds = [
        SeedResult(
            seed=23 + position,
            r_mean=max(curve),
            selected_epoch=curve.index(max(curve)),
            curve=curve,
            metrics={"r_mean": max(curve)},
            seconds=1.0,
        )
        for position, curve in enumerate(curves)
    ]
    state = "finished" if all(len(curve) == epochs for curve in curves) else "stopped"
    values = {"train.lr": 0.001 * (number + 1)}
    given = {"trial": name, "number": number, "values": values, "state": state, "epochs": epochs, "seeds": seeds}
    return TrialResult(**(given | changes))


def study_of(folder: Path, *results: TrialResult) -> Study:
    """A study in which these trials have ended."""
    study = Study(folder)
    for each in results:
        study.trial(each.trial).begin(each.number, each.values)
        study.trial(each.trial).end(each)
    return study
