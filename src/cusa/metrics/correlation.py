"""Correlation of the similarity of texts with gold scores."""

from __future__ import annotations

import numpy as np

from cusa.metrics.scores import ExactScores, checked_embeddings


def similarity_correlation(first: np.ndarray, second: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Correlation of the cosines of pairs with their gold scores.

    `first` and `second` [n, D] are the embeddings of the two texts of each pair, `gold` [n] the scores. Returns
    spearman and pearson, each x 100. Raises ValueError if the lengths differ or there are fewer than two pairs.
    """
    return correlations(pair_cosines(first, second), gold)


def pair_cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The cosine of each row of `first` [n, D] with the same row of `second` [n, D], float64 [n].

    Raises ValueError if the lengths differ.
    """
    first, second = checked_embeddings("first", first), checked_embeddings("second", second)
    if len(first) != len(second):
        raise ValueError(f"expected as many first ({len(first)}) as second ({len(second)}) embeddings")
    return ExactScores(first, second)(np.arange(len(first)), np.arange(len(second)))


def correlations(cosine: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """spearman and pearson of cosines [n] with gold scores [n], each x 100.

    Raises ValueError if the lengths differ or there are fewer than two pairs.
    """
    from scipy.stats import pearsonr, spearmanr

    gold = np.asarray(gold, dtype=np.float64)
    if not len(cosine) == len(gold) >= 2:
        raise ValueError(f"expected as many gold scores ({len(gold)}) as pairs ({len(cosine)}), at least two")
    return {
        "spearman": 100 * float(spearmanr(cosine, gold).statistic),
        "pearson": 100 * float(pearsonr(cosine, gold).statistic),
    }
