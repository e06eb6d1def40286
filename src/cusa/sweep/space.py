"""The space of a sweep: its points, and the configuration at a point.

A point is a mapping from keys of the complete configuration, such as `train.lr`, to their values.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from cusa.config.configuration import Configuration, load
from cusa.config.experiments import RunConfiguration
from cusa.config.section import Section
from cusa.config.sweep import Range, Sweep
from cusa.config.training import OPERATIONAL

Point = Mapping[str, Any]
DIGITS = 8  # hexadecimal digits of a digest that names a folder


def sweep_of(configuration: Configuration) -> Sweep:
    """The section `sweep` of a configuration that has one."""
    assert configuration.sweep is not None
    return configuration.sweep


def seeds_of(configuration: Configuration) -> list[int]:
    """The seeds that every trial is trained with."""
    return sweep_of(configuration).seeds or configuration.seeds[:1]


def grid(sweep: Sweep) -> list[dict[str, Any]]:
    """All combinations of the lists of a grid, the last key varying first."""
    lists = [values if isinstance(values, list) else [] for values in sweep.space.values()]
    return [dict(zip(sweep.space, values, strict=True)) for values in itertools.product(*lists)]


def corners(sweep: Sweep) -> list[dict[str, Any]]:
    """For each key every value of its list, or both ends of its range, each as a point of this key alone."""
    ends = {
        key: [values.low, values.high] if isinstance(values, Range) else values for key, values in sweep.space.items()
    }
    return [{key: value} for key, values in ends.items() for value in values]


def configuration_at(configuration: Configuration, point: Point) -> Configuration:
    """The configuration with the values of a point, without the sections that no training reads: `sweep` and `report`.

    Raises ConfigurationError if these values are wrong or contradict others.
    """
    mapping = json.loads(configuration.model_dump_json(exclude={"sweep", "report"}))
    for key, value in point.items():
        _set(mapping, key.split("."), deepcopy(value))
    return load(mapping)


def run_at(configuration: Configuration, point: Point, seed: int) -> RunConfiguration:
    """The configuration of the training of one trial with one seed. Raises ConfigurationError as configuration_at."""
    return configuration_at(configuration, point).run(sweep_of(configuration).experiment, seed)


def nested(point: Point) -> dict[str, Any]:
    """The values of a point as the mapping of an overlay."""
    mapping: dict[str, Any] = {}
    for key, value in point.items():
        _set(mapping, key.split("."), deepcopy(value))
    return mapping


def present_point(configuration: Configuration) -> dict[str, Any] | None:
    """The values that the configuration has now, if all of them lie in the space; None if one does not."""
    sweep = sweep_of(configuration)
    point = {}
    for key, values in sweep.space.items():
        value = _get(configuration, key.split("."))
        if value is None and key.startswith(f"experiments.{sweep.experiment}.train."):
            value = _get(configuration, key.split(".")[2:])  # the common recipe, which the experiment does not change
        if isinstance(value, Section):
            value = json.loads(value.model_dump_json())
        if not _lies_in(value, values):
            return None
        point[key] = value
    return point


def study_name(configuration: Configuration, as_written: bool = False) -> str:
    """The name of the folder of a sweep: the experiment, the method, and a digest of what all trials share.

    So a changed recipe, student or space makes another sweep, and the trials of each remain. A grid with more values of
    the same keys, or another method with more trials, is the same sweep. Other devices are the same sweep if the number
    of processes is the same. `as_written` gives the name of an earlier release, in which devices counted.
    """
    sweep = sweep_of(configuration)
    run = configuration.run(sweep.experiment, seeds_of(configuration)[0])
    shared: dict[str, Any] = run.model_dump(mode="json", exclude={"train": set(OPERATIONAL), "seed": True})
    if not as_written:
        shared["train"] |= {"gpus": 0, "cpu_processes": run.train.processes, "nodes": 1}
    for key in sweep.space:
        _remove(shared, _path_in_run(key, sweep.experiment))
    space = sorted(sweep.space) if sweep.method == "grid" else sweep.model_dump(mode="json")["space"]
    drawn = None if sweep.method == "grid" else sweep.draw_seed
    return f"{sweep.experiment}-{sweep.method}-{digest([shared, space, drawn, seeds_of(configuration)])}"


def digest(content: Any) -> str:
    """Some digits of the SHA-256 of JSON with sorted keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:DIGITS]


def _path_in_run(key: str, experiment: str) -> list[str]:
    """The path of a key of the complete configuration in the configuration of a run."""
    parts = key.removeprefix(f"experiments.{experiment}.").split(".")
    return parts if parts[0] in ("train", "student") else ["losses", *parts]


def _lies_in(value: Any, values: list[Any] | Range) -> bool:
    if isinstance(values, list):
        return value in values
    if isinstance(value, bool) or not isinstance(value, int if values.is_whole else int | float):
        return False
    steps = 0.0 if values.step is None else (value - values.low) / values.step
    return values.low <= value <= values.high and math.isclose(steps, round(steps), abs_tol=1e-9)


def _set(mapping: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set a value below `keys`. A value on the way that is not a mapping is replaced by one."""
    for key in keys[:-1]:
        if not isinstance(mapping.get(key), dict):
            mapping[key] = {}
        mapping = mapping[key]
    mapping[keys[-1]] = value


def _get(content: Any, keys: list[str]) -> Any:
    """The value below `keys` in mappings and sections; None if there is none."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else getattr(content, key, None)
    return content


def _remove(mapping: Any, keys: list[str]) -> None:
    inner = _get(mapping, keys[:-1])
    if isinstance(inner, dict):
        inner.pop(keys[-1], None)
