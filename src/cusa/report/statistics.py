"""Mean and spread over seeds, and bootstrap intervals of differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cusa.metrics.scores import BLOCK_BYTES


def mean_and_spread(values: Sequence[float]) -> Mapping[str, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    array = np.asarray(values, dtype=np.float64)
    return {"mean": float(array.mean()), "std": float(array.std(ddof=1)) if len(array) > 1 else 0.0}


def paired_interval(
    first: np.ndarray, second: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """`second` - `first` in mean over queries, and its 95 % bootstrap interval, all x 100.

    `first` and `second` [n] are what each of the same n queries contributes. Queries are drawn with replacement, both
    runs' outcomes together (Efron's percentile method).
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(f"outcomes of shapes {first.shape} and {second.shape} are not of the same queries")
    differences, counts = np.unique(second.astype(np.float64) - first.astype(np.float64), return_counts=True)
    # Differences take few values, so drawing how often each comes up is drawing the queries.
    generator, total = np.random.default_rng(seed), int(counts.sum())
    step = max(1, BLOCK_BYTES // (8 * len(counts)))
    means = [
        generator.multinomial(total, counts / total, min(step, resamples - start)) @ differences / total
        for start in range(0, resamples, step)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return 100 * float(differences @ counts / total), 100 * float(low), 100 * float(high)
