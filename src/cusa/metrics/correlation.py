"""Correlation of text similarity with gold scores."""

from __future__ import annotations

import numpy as np

from cusa.metrics.scores import ExactScores, checked_embeddings


def similarity_correlation(first: np.ndarray, second: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Spearman and Pearson correlation x 100 of the cosine of paired embeddings [n, D] with gold scores [n]."""
    from scipy.stats import pearsonr, spearmanr

    first, second = checked_embeddings("first", first), checked_embeddings("second", second)
    gold = np.asarray(gold, dtype=np.float64)
    if not len(first) == len(second) == len(gold) >= 2:
        raise ValueError(
            f"expected as many first ({len(first)}) as second ({len(second)}) embeddings and gold scores "
            f"({len(gold)}), at least two"
        )
    cosine = ExactScores(first, second)(np.arange(len(first)), np.arange(len(second)))
    return {
        "spearman": 100 * float(spearmanr(cosine, gold).statistic),
        "pearson": 100 * float(pearsonr(cosine, gold).statistic),
    }
