"""Writing and reading the statistics of a benchmark, as {benchmark}.queries.npz."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cusa.benchmarks.outcomes import (
    Combination,
    Correlation,
    Mean,
    Median,
    Pearson,
    Spearman,
    Statistic,
    Statistics,
    Units,
)
from cusa.common.files import array_damage, atomic_file, made_again

KINDS: Mapping[str, type[Statistic]] = {kind.__name__: kind for kind in (Mean, Median, Pearson, Spearman)}
# The array of a file that describes its statistics, as JSON. Files of earlier releases do not have it.
CONTENT = "statistics"


def save(path: str | Path, statistics: Statistics) -> None:
    """Write statistics as npz. The array called as a metric holds the value of each query."""
    arrays: dict[str, Any] = {}
    names: dict[int, str] = {}

    def stored(array: np.ndarray, name: str) -> str:
        """The name under which the file has an array; each is written once."""
        if id(array) not in names:
            names[id(array)], arrays[name] = name, array
        return names[id(array)]

    content: dict[str, Any] = {}
    for name, each in statistics.items():
        if isinstance(each, Combination):
            content[name] = {"kind": "Combination", "weights": dict(each.weights)}
            continue
        content[name] = {
            "kind": type(each).__name__,
            "units": {"name": each.units.name, "count": each.units.count},
            "values": stored(each.values, name),
            "unit_of_query": stored(each.units.of_query, f"{name}.unit"),
        }
        if isinstance(each, Correlation):
            content[name]["gold"] = stored(each.gold, f"{name}.gold")
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **(arrays | {CONTENT: np.array(json.dumps(content))}))


def load(path: str | Path) -> Statistics:
    """Read what `save` wrote. Empty if an earlier release wrote the file: it does not say which unit a query has.

    Raises DataError if the file is damaged.
    """
    with array_damage(path, made_again(path)):
        return _load(path)


def _load(path: str | Path) -> Statistics:
    with np.load(path, allow_pickle=False) as arrays:
        if CONTENT not in arrays:
            return {}
        content = json.loads(str(arrays[CONTENT]))
        used = {each[key] for each in content.values() for key in ("values", "unit_of_query", "gold") if key in each}
        loaded = {name: arrays[name] for name in used}
    statistics: dict[str, Statistic | Combination] = {}
    for name, each in content.items():
        if each["kind"] == "Combination":
            statistics[name] = Combination(each["weights"])
            continue
        units = Units(each["units"]["name"], each["units"]["count"], loaded[each["unit_of_query"]])
        gold = (loaded[each["gold"]],) if "gold" in each else ()
        statistics[name] = KINDS[each["kind"]](units, loaded[each["values"]], *gold)
    return statistics
