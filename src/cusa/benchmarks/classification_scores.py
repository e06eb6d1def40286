"""Metrics and statistics of the benchmarks that classify images."""

from __future__ import annotations

import numpy as np

from cusa.benchmarks.benchmark import Result
from cusa.benchmarks.outcomes import Combination, Statistic, Units, means
from cusa.metrics.classification import class_weights, classified
from cusa.metrics.scores import percent


class ClassificationScores:
    """Collects the scores of several data sets."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.statistics: dict[str, Statistic | Combination] = {}
        self.sizes: dict[str, tuple[int, int]] = {}

    def add(self, prefix: str, ranks: np.ndarray, labels: np.ndarray, classes: int) -> None:
        """Score one data set, whose metrics are called `{prefix}{metric}`.

        `ranks` int64 [n] are those of the images' own classes, `labels` [n] their labels; `classes` is the number of
        classes that were to choose from.
        """
        units = Units.of_each_query(prefix.rstrip("/") or "labelled images", len(ranks))
        hits = classified(ranks, classes)
        hits["mean_per_class_recall"] = class_weights(labels) * hits["acc1"]
        outcomes = {f"{prefix}{name}": values for name, values in hits.items()}
        self.metrics |= percent(outcomes)
        self.statistics |= means(outcomes, units)
        self.sizes[prefix.rstrip("/")] = (len(ranks), classes)

    def result(self, protocol: str) -> Result:
        """The result over all data sets, with the mean of their acc1 if there are several."""
        if len(self.sizes) > 1:
            averaged = [f"{name}/acc1".lstrip("/") for name in self.sizes]
            self.metrics["average/acc1"] = float(np.mean([self.metrics[name] for name in averaged]))
            self.statistics["average/acc1"] = Combination.mean(averaged)
        images, classes = (sum(size[side] for size in self.sizes.values()) for side in (0, 1))
        return Result(
            metrics=self.metrics,
            protocol=protocol,
            n_queries=images,
            n_gallery=classes,
            sizes=self.sizes,
            statistics=self.statistics,
        )
