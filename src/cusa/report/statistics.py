"""Mean and spread over seeds, and bootstrap intervals of differences between experiments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cusa.benchmarks.outcomes import Combination, Draws, Mean, Statistic, Statistics, undefined_reason

RESAMPLES = 2000  # the ends of an interval vary by about 3 % of its half-width with the seed
COVERAGE = 0.95
BLOCK_BYTES = 1 << 20  # of the resamples that are computed at once; so few that arrays stay in the cache
SMALLEST_BLOCK = 16  # resamples
Key = tuple[str, str]  # an experiment and a statistic


def mean_and_spread(values: Sequence[float]) -> Mapping[str, float | None]:
    """Mean and sample standard deviation (0 for a single value, None for no value)."""
    if not values:
        return {"mean": None, "std": None}
    array = np.asarray(values, dtype=np.float64)
    return {"mean": float(array.mean()), "std": float(array.std(ddof=1)) if len(array) > 1 else 0.0}


def difference_intervals(
    runs: Mapping[str, Sequence[Statistics]], reference: str, resamples: int = RESAMPLES
) -> dict[Key, tuple[float, float]]:
    """95 % intervals of the differences to the experiment `reference`, by (experiment, metric).

    `runs` gives, for each experiment, the statistics of one benchmark, one mapping a seed. All runs are computed on the
    same draws of units with replacement (a paired bootstrap, Efron's percentile method). On each resample, a metric is
    the mean over the seeds of an experiment whose data define it. Resamples that do not define the metric are left out.
    A metric has no interval if one of the runs does not have its statistic, or has it of other units.
    """
    comparable = {name: _comparable(seeds, runs.get(reference, [])) for name, seeds in runs.items()}
    values = _on_resamples(comparable, resamples)
    intervals = {}
    for experiment, statistics in comparable.items():
        for name in statistics if experiment != reference else ():
            first, second = (_value(one, name, comparable, values) for one in (reference, experiment))
            if first is not None and second is not None and not np.isnan(second - first).all():
                intervals[experiment, name] = _interval(second - first)
    return intervals


def metric_intervals(statistics: Statistics, resamples: int = RESAMPLES) -> dict[str, tuple[float, float]]:
    """95 % intervals of the metrics of one run, by metric, from the statistics of one benchmark.

    The resamples are those of `difference_intervals`. A metric that no resample defines has no interval.
    """
    comparable = {"": _comparable([statistics], [statistics])}
    values = _on_resamples(comparable, resamples)
    found = {name: _value("", name, comparable, values) for name in comparable[""]}
    return {name: _interval(value) for name, value in found.items() if value is not None and not np.isnan(value).all()}


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def _on_resamples(
    comparable: Mapping[str, Mapping[str, Sequence[Statistic | Combination]]], resamples: int
) -> dict[Key, np.ndarray]:
    """Each statistic of each experiment on each resample, float64 [resamples]; all draw the same units."""
    leaves: dict[tuple[str, int], dict[Key, Sequence[Statistic]]] = {}
    for experiment, statistics in comparable.items():
        for name, seeds in statistics.items():
            if leaf := [each for each in seeds if isinstance(each, Statistic)]:
                leaves.setdefault((leaf[0].units.name, leaf[0].units.count), {})[experiment, name] = leaf
    values: dict[Key, np.ndarray] = {}
    for of_same_units in leaves.values():
        values |= _resampled(of_same_units, resamples)
    return values


def draws(units: str, count: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each of `count` units is drawn in each resample, int32 [b, count], in blocks of resamples.

    A resample draws `count` units with replacement. `units` is their name: it decides the draws.
    """
    generator = np.random.default_rng([0, *units.encode()])
    step = max(SMALLEST_BLOCK, BLOCK_BYTES // (8 * count))
    for start in range(0, resamples, step):
        block = min(step, resamples - start)
        drawn = generator.integers(0, count, size=(block, count))
        drawn += count * np.arange(block)[:, None]
        yield np.bincount(drawn.ravel(), minlength=block * count).reshape(block, count).astype(np.int32)


def _comparable(
    seeds: Sequence[Statistics], reference: Sequence[Statistics]
) -> dict[str, list[Statistic | Combination]]:
    """The statistics of an experiment, by name and seed, that are of the same units as the reference's.

    A seed that does not define a metric is left out of it, as in the mean; a combination needs all seeds.
    """
    statistics = {}
    for name, wanted in (reference[0] if reference else {}).items():
        of_seeds = [each[name] for each in seeds if name in each and _same_kind(each[name], wanted)]
        if len(of_seeds) < len(seeds):
            continue
        defined = [one for one, each in zip(of_seeds, seeds, strict=True) if undefined_reason(each, name) is None]
        if len(defined) == len(seeds) or (defined and isinstance(wanted, Statistic)):
            statistics[name] = _merged(defined)
    return statistics


def _same_kind(first: Statistic | Combination, second: Statistic | Combination) -> bool:
    """Whether two runs' statistics are of one kind and of the same units, or combine the same parts."""
    if isinstance(first, Statistic) and isinstance(second, Statistic):
        return type(first) is type(second) and first.units.equals(second.units)
    return first == second


def _merged(seeds: list[Statistic | Combination]) -> list[Statistic | Combination]:
    """One statistic for all seeds: a mean, of the seeds' mean outcomes, or a combination. Others stay one for each."""
    if isinstance(seeds[0], Combination):
        return seeds[:1]
    leaves = [each for each in seeds if isinstance(each, Mean)]
    return [Mean(leaves[0].units, np.mean([each.values for each in leaves], axis=0))] if leaves else seeds


def _resampled(leaves: Mapping[Key, Sequence[Statistic]], resamples: int) -> dict[Key, np.ndarray]:
    """The mean over seeds of each statistic on each resample, float64 [resamples]; all are of the same set of units."""
    units = next(iter(leaves.values()))[0].units
    columns = _Columns()
    places = {key: [columns.add(each.sums()) for each in seeds] for key, seeds in leaves.items()}
    sums = columns.matrix(units.count)
    blocks: dict[Key, list[np.ndarray]] = {key: [] for key in leaves}
    for counts in draws(units.name, units.count, resamples):
        drawn, totals = Draws(counts), counts.astype(np.float64) @ sums
        for key, seeds in leaves.items():
            values = [each.resampled(totals[:, at], drawn) for each, at in zip(seeds, places[key], strict=True)]
            blocks[key].append(np.mean(values, axis=0))
    return {key: np.concatenate(each) for key, each in blocks.items()}


class _Columns:
    """The distinct columns of a matrix. Many statistics need the same column, such as the number of queries."""

    def __init__(self) -> None:
        self.columns: list[np.ndarray] = []
        self.place: dict[bytes, int] = {}

    def add(self, sums: np.ndarray) -> list[int]:
        """The places of the columns of `sums` [units, k] in the matrix."""
        places = []
        for column in np.ascontiguousarray(sums.T):
            if (content := column.tobytes()) not in self.place:
                self.place[content] = len(self.columns)
                self.columns.append(column)
            places.append(self.place[content])
        return places

    def matrix(self, rows: int) -> np.ndarray:
        """float64 [rows, columns]."""
        return np.stack(self.columns, axis=1) if self.columns else np.empty((rows, 0))


def _value(
    experiment: str,
    name: str,
    comparable: Mapping[str, Mapping[str, Sequence[Statistic | Combination]]],
    values: Mapping[Key, np.ndarray],
) -> np.ndarray | None:
    """A statistic or combination on each resample, float64 [resamples]; None if a part is missing."""
    statistic = comparable[experiment].get(name, [None])[0]
    if not isinstance(statistic, Combination):
        return values.get((experiment, name))
    total: np.ndarray | None = None
    for part, weight in statistic.weights.items():
        value = _value(experiment, part, comparable, values)
        if value is None:
            return None
        total = weight * value if total is None else total + weight * value
    return total
