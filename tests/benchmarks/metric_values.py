"""Metrics computed from what a benchmark writes for intervals."""

from __future__ import annotations

import numpy as np

from cusa.benchmarks import outcomes


def value_on_the_data(statistics: outcomes.Statistics, name: str) -> float:
    """A statistic where each unit is drawn once, which is the metric."""
    statistic = statistics[name]
    if isinstance(statistic, outcomes.Combination):
        return sum(weight * value_on_the_data(statistics, part) for part, weight in statistic.weights.items())
    once = np.ones((1, statistic.units.count), dtype=np.int32)
    return statistic.resampled(once @ statistic.sums(), outcomes.Draws(once))[0]
