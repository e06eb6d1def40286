"""The outcomes of a benchmark's queries, and the metrics as functions of them.

A confidence interval needs each metric on many resamples of the test data, so a benchmark describes a metric as a
statistic: a function of how often each unit was drawn. A unit is drawn or left out as a whole, because its queries are
not independent: an image with all its captions, a labelled query image, a pair of sentences. outcomes_file.py writes
and reads them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from cusa.metrics.correlation import undefined_correlation
from cusa.metrics.recall import FoldRanks, recalled

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Units:
    """The units that are drawn with replacement, and the unit that each query belongs to.

    Statistics whose units have one `name` within a benchmark are computed on the same draws; units of different names
    are drawn independently. `count` is the number of units; `of_query` is integer [n], from 0 to `count` - 1. Raises
    ValueError if it is not.
    """

    name: str
    count: int
    of_query: np.ndarray

    def __post_init__(self) -> None:
        if len(self.of_query) and not 0 <= self.of_query.min() <= self.of_query.max() < self.count:
            raise ValueError(f"a query belongs to none of the {self.count} units called {self.name}")

    @classmethod
    def of_each_query(cls, name: str, count: int) -> Units:
        """Each of `count` queries is a unit of its own."""
        return cls(name, count, np.arange(count))

    def equals(self, other: Units) -> bool:
        """Whether the queries belong to the same units, so that two runs can be compared on the same draws."""
        return (self.name, self.count) == (other.name, other.count) and np.array_equal(self.of_query, other.of_query)


class Draws:
    """How often each unit was drawn in each of b resamples: `counts` int32 [b, units].

    Statistics of several runs may need the same from the same draws, such as ranks of gold scores; `once` computes it
    for the first of them.
    """

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts
        self._computed: dict[bytes, Any] = {}

    def once(self, key: bytes, compute: Callable[[np.ndarray], T]) -> T:
        """`compute(counts)`, or what an earlier call with this key returned."""
        if key not in self._computed:
            self._computed[key] = compute(self.counts)
        result: T = self._computed[key]
        return result


@dataclass(frozen=True, eq=False)
class Statistic(ABC):
    """A metric as a function of how often each unit is drawn.

    `values` is float64 [n], one value per query. NaN stands for a query that has no right answer; no metric counts it.
    Raises ValueError if the queries are not those of `units`.
    """

    units: Units
    values: np.ndarray

    def __post_init__(self) -> None:
        if self.values.shape != self.units.of_query.shape:
            raise ValueError(
                f"{self.values.shape} values of queries, but {self.units.of_query.shape} queries have a unit"
            )

    @abstractmethod
    def sums(self) -> np.ndarray:
        """Sums over the queries of each unit, float64 [units, k]; a matrix product gives those of a resample."""

    @abstractmethod
    def resampled(self, totals: np.ndarray, draws: Draws) -> np.ndarray:
        """The metric on each of b resamples, float64 [b]; NaN if a resample does not define it.

        `totals` float64 [b, k] are the sums over the drawn units: `draws.counts @ self.sums()`.
        """

    def undefined(self) -> str | None:
        """Why the metric is not defined on the data; None if it is."""
        return "no query has a right answer" if np.isnan(self.values).all() else None

    def per_unit(self, values: np.ndarray) -> np.ndarray:
        """The sum of `values` [n] over the queries of each unit, float64 [units]."""
        return np.bincount(self.units.of_query, values, minlength=self.units.count)


class Mean(Statistic):
    """The mean over queries x 100. `values` are outcomes from 0 to 1."""

    def sums(self) -> np.ndarray:
        """Outcomes and number of the queries of each unit."""
        counted = ~np.isnan(self.values)
        return np.stack([self.per_unit(np.where(counted, self.values, 0.0)), self.per_unit(counted)], axis=1)

    def resampled(self, totals: np.ndarray, draws: Draws) -> np.ndarray:
        """A ratio, because resamples of images with unequal numbers of captions differ in their number of queries."""
        return _ratio(100 * totals[:, 0], totals[:, 1])


class Median(Statistic):
    """The median of `values`, which are ranks."""

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """The queries' ranks in rising order, and their units."""
        counted = np.flatnonzero(~np.isnan(self.values))
        order = counted[np.argsort(self.values[counted], kind="stable")]
        return self.values[order], self.units.of_query[order]

    @cached_property
    def _window(self) -> slice:
        """The places of the sorted ranks that hold the median of nearly every resample.

        The number of queries below the median varies between resamples by at most half the root of the number of units
        times the queries of a unit. Six times that are on each side.
        """
        queries = len(self._sorted[0])
        margin = int(3 * queries / np.sqrt(self.units.count)) + 1
        return slice(max(0, queries // 2 - margin), queries // 2 + margin)

    def sums(self) -> np.ndarray:
        """Queries before the window, and all queries, of each unit."""
        _, units = self._sorted
        before, all_queries = (
            np.bincount(part, minlength=self.units.count) for part in (units[: self._window.start], units)
        )
        return np.stack([before, all_queries], axis=1).astype(np.float64)

    def resampled(self, totals: np.ndarray, draws: Draws) -> np.ndarray:
        """The mean of the two middle ranks, where each rank is repeated as often as its unit was drawn."""
        if not len(self._sorted[0]):
            return np.full(len(totals), np.nan)
        before, size = totals.T.astype(np.int64)
        middle = np.stack([(size - 1) // 2, size // 2], axis=1)
        counts = draws.counts
        found, inside = self._at(middle, before, counts, self._window)
        if not inside.all():
            found[~inside], _ = self._at(
                middle[~inside], np.zeros((~inside).sum(), dtype=np.int64), counts[~inside], slice(None)
            )
        return np.where(size > 0, found.mean(axis=1), np.nan)

    def _at(
        self, places: np.ndarray, before: np.ndarray, counts: np.ndarray, window: slice
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ranks [b, 2] at `places` [b, 2] of each resample, and bool [b]: whether the window holds both."""
        ranks, units = (part[window] for part in self._sorted)
        # Integers, because numpy adds them up several times faster than floats.
        seen = np.cumsum(counts[:, units], axis=1, dtype=np.int32)
        at = np.stack([(seen <= place[:, None]).sum(axis=1) for place in (places - before[:, None]).T], axis=1)
        inside = (before <= places[:, 0]) & (at[:, 1] < len(ranks))
        return ranks[np.minimum(at, len(ranks) - 1)], inside


@dataclass(frozen=True, eq=False)
class Correlation(Statistic):
    """A correlation x 100 of `values`, which are cosines of pairs, with `gold`, float64 [n]."""

    gold: np.ndarray

    def undefined(self) -> str | None:
        """Why the metric is not defined on the data; None if it is."""
        return undefined_correlation(self.values, self.gold)


class Pearson(Correlation):
    """Pearson's correlation x 100."""

    def sums(self) -> np.ndarray:
        """Number of pairs, both scores, their squares and their product."""
        x, y = self.values - self.values.mean(), self.gold - self.gold.mean()
        return np.stack([self.per_unit(part) for part in (np.ones_like(x), x, y, x * x, y * y, x * y)], axis=1)

    def resampled(self, totals: np.ndarray, draws: Draws) -> np.ndarray:
        """NaN if all pairs of a resample have one score."""
        size, x, y, xx, yy, xy = totals.T
        # Rounding leaves a little of a variance that is zero.
        spread_x, spread_y = (
            np.where(square - total**2 / size > 1e-12 * square, square - total**2 / size, 0.0)
            for square, total in ((xx, x), (yy, y))
        )
        return _ratio(100 * (xy - x * y / size), np.sqrt(spread_x * spread_y))


class Spearman(Correlation):
    """Spearman's correlation x 100; equal scores share the mean of their ranks, computed again for each resample."""

    def sums(self) -> np.ndarray:
        """Empty: ranks cannot be summed."""
        return np.empty((self.units.count, 0))

    def resampled(self, totals: np.ndarray, draws: Draws) -> np.ndarray:
        """NaN if all pairs of a resample have one score."""
        weights, as_floats, weighted_gold, spread_gold = draws.once(self._key, self._gold_ranks)
        ranks = self._rank_values.of(weights)
        products = np.einsum("bn,bn->b", weighted_gold, ranks)
        spread = np.einsum("bn,bn,bn->b", as_floats, ranks, ranks)
        return _ratio(100 * products, np.sqrt(spread * spread_gold))

    def _gold_ranks(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Weights of the pairs as int32 and as float64, weighted ranks of gold scores, all [b, n], and their spread."""
        weights = np.take(counts, self.units.of_query, axis=1)
        ranks = self._rank_gold.of(weights)
        weighted = weights * ranks
        return weights, weights.astype(np.float64), weighted, np.einsum("bn,bn->b", weighted, ranks)

    @cached_property
    def _rank_values(self) -> _WeightedRanks:
        return _WeightedRanks(self.values)

    @cached_property
    def _rank_gold(self) -> _WeightedRanks:
        return _WeightedRanks(self.gold)

    @cached_property
    def _key(self) -> bytes:
        """Equal for runs whose pairs have the same units and gold scores."""
        return self.units.of_query.tobytes() + self.gold.tobytes()


class _WeightedRanks:
    """Ranks of fixed scores [n], where each score is repeated by its integer weight."""

    def __init__(self, scores: np.ndarray) -> None:
        self.order = np.argsort(scores, kind="stable")
        _, self.first, self.group = np.unique(scores[self.order], return_index=True, return_inverse=True)
        # The place of each score's group of equal scores, by row instead of by order.
        self.group_of_row = np.empty(len(scores), dtype=np.int64)
        self.group_of_row[self.order] = self.group

    def of(self, weights: np.ndarray) -> np.ndarray:
        """Twice each score's rank less the mean rank: int32 [b, n] -> float64 [b, n]."""
        held = np.take(weights, self.order, axis=1)
        if len(self.first) < len(self.order):
            held = np.add.reduceat(held, self.first, axis=1)
        # Integers, because numpy adds them up several times faster than floats.
        ranks = np.cumsum(held, axis=1, dtype=np.int32)
        total = ranks[:, -1:].copy()
        ranks *= 2
        ranks -= held
        ranks -= total
        return np.take(ranks, self.group_of_row, axis=1).astype(np.float64)


@dataclass(frozen=True)
class Combination:
    """The weighted sum of other statistics of the same benchmark, by their names: a sum or a mean of metrics."""

    weights: Mapping[str, float]

    @classmethod
    def mean(cls, names: Iterable[str]) -> Combination:
        """The mean of statistics."""
        names = list(names)
        return cls(dict.fromkeys(names, 1 / len(names)))


Statistics = Mapping[str, Statistic | Combination]


def undefined_reason(statistics: Statistics, name: str) -> str | None:
    """Why a metric is not defined on the data, as its statistic shows; None if it is, or has no statistic."""
    statistic = statistics.get(name)
    if isinstance(statistic, Combination):
        reasons = {part: undefined_reason(statistics, part) for part in statistic.weights}
        return next((f"it needs {part}, and {reason}" for part, reason in reasons.items() if reason), None)
    return None if statistic is None else statistic.undefined()


def means(per_query: Mapping[str, np.ndarray], units: Units) -> dict[str, Statistic | Combination]:
    """Each metric as the mean over queries of its outcomes (float64 [n] from 0 to 1, NaN for no right answer)."""
    return {name: Mean(units, values) for name, values in per_query.items()}


def both_ways(
    per_query: Mapping[str, np.ndarray], image_of_text: np.ndarray, n_images: int, name: str = "images"
) -> dict[str, Statistic | Combination]:
    """Means of outcomes between images and texts; the units are the images, each with its texts.

    `per_query` has the outcomes of image queries as i2t_... or {data}/i2t_..., float64 [n_images], and those of text
    queries as t2i_... or {data}/t2i_..., float64 [m]. `image_of_text` is integer [m].
    """
    images, texts = Units.of_each_query(name, n_images), Units(name, n_images, image_of_text)
    return {
        metric: Mean(images if metric.rpartition("/")[2].startswith("i2t_") else texts, values)
        for metric, values in per_query.items()
    }


def recall_statistics(
    i2t: np.ndarray, t2i: np.ndarray, image_of_text: np.ndarray, name: str = "images", prefix: str = ""
) -> dict[str, Statistic | Combination]:
    """Every metric of `summary_of_ranks`, called `{prefix}{metric}`, from the ranks of images [n] and texts [m]."""
    recalls = both_ways(recalled(i2t, t2i), image_of_text, len(i2t), name)
    statistics: dict[str, Statistic | Combination] = {f"{prefix}{metric}": each for metric, each in recalls.items()}
    six = list(statistics)
    statistics[f"{prefix}rsum"] = Combination(dict.fromkeys(six, 1.0))
    statistics[f"{prefix}r_mean"] = Combination.mean(six)
    images, texts = Units.of_each_query(name, len(i2t)), Units(name, len(i2t), image_of_text)
    statistics[f"{prefix}i2t_median_rank"] = Median(images, i2t.astype(np.float64))
    statistics[f"{prefix}t2i_median_rank"] = Median(texts, t2i.astype(np.float64))
    return statistics


def fold_statistics(folds: Sequence[FoldRanks], data: str) -> dict[str, Statistic | Combination]:
    """Every metric of `mean_of_folds`, called `{data}/{metric}`, and its parts of each fold.

    Each fold is a retrieval of its own, so images are drawn within each fold.
    """
    parts = [
        recall_statistics(*fold, name=f"{data}, fold {number}", prefix=f"{data}/fold {number}/")
        for number, fold in enumerate(folds, start=1)
    ]
    statistics = {name: each for part in parts for name, each in part.items()}
    for same in zip(*parts, strict=True):
        statistics[f"{data}/{same[0].rpartition('/')[2]}"] = Combination.mean(same)
    return statistics


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, NaN if it is not defined."""
    quotient = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient
