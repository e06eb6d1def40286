"""The result of a benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from cusa.benchmarks.outcomes import Statistics, undefined_reason


@dataclass(frozen=True, kw_only=True)
class Result:
    """The metrics of one run on one benchmark, and the statistics for comparing them with another run's.

    `metrics` are in percent, except ranks, whose names end in `_rank`. If a benchmark scores several data sets, a
    metric is called `{data}/{metric}`. `protocol` is a sentence for readers. `n_queries` and `n_gallery` are the
    numbers of queries and of the items that they search; `sizes` gives both for each data set. A metric that the data
    do not define is NaN; `undefined` gives its reason if the statistics do not show it. `statistics` describes
    metrics by the outcomes of their queries, so that the summary can give intervals; a metric without one has none.
    `published_as` gives the benchmark and the metric by which the paper's tables call a metric.
    """

    metrics: Mapping[str, float]
    protocol: str
    n_queries: int
    n_gallery: int
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=dict)
    published_as: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    undefined: Mapping[str, str] = field(default_factory=dict)

    def reasons(self) -> dict[str, str]:
        """The reason for each metric that is not a finite number: from `undefined`, or from its statistic."""
        lacking = [name for name, value in self.metrics.items() if not math.isfinite(value)]
        return {
            name: self.undefined.get(name)
            or undefined_reason(self.statistics, name)
            or f"the benchmark computed {self.metrics[name]}"
            for name in lacking
        }
