"""Correlation of the similarity of texts with gold scores."""

from __future__ import annotations

import numpy as np

from cusa.metrics.scores import TIE, ExactScores, check_same_dimension, checked_embeddings


def similarity_correlation(first: np.ndarray, second: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Correlation of the cosines of pairs with their gold scores.

    `first` and `second` [n, D] are the embeddings of the two texts of each pair, `gold` [n] the scores. Returns
    spearman and pearson, each x 100; NaN if they are not defined (see `undefined_correlation`). Cosines that differ
    by no more than float64 rounding are equal (see `pair_cosines`), and equal ones share the mean of their ranks.
    Raises ValueError if the lengths differ, or a gold score is not finite.
    """
    return correlations(pair_cosines(first, second), gold)


def pair_cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The cosine of each row of `first` [n, D] with the same row of `second` [n, D], float64 [n].

    Cosines that differ by no more than TIE are equal on paper, so they are made equal: the cosine of two equal texts is
    exactly 1. Raises ValueError if the lengths differ.
    """
    left, right = checked_embeddings("first", first), checked_embeddings("second", second)
    if len(left) != len(right):
        raise ValueError(f"expected as many first ({len(left)}) as second ({len(right)}) embeddings")
    check_same_dimension(first=left, second=right)
    scores = ExactScores(left, right)
    return _with_ties(scores(np.arange(len(first)), np.arange(len(second))))


def _with_ties(cosines: np.ndarray) -> np.ndarray:
    """The same cosines [n], where each run of them without a gap above TIE has the value of its largest; 1 at the top.

    Rounding to some decimals would not do: equal cosines may lie on both sides of a step.
    """
    order = np.argsort(-cosines, kind="stable")
    falling = np.minimum(cosines[order], 1.0)
    if falling[0] >= 1.0 - TIE:
        falling[0] = 1.0
    leads = np.concatenate([[True], falling[:-1] - falling[1:] > TIE])
    tied: np.ndarray = np.empty_like(falling)
    tied[order] = falling[leads][np.cumsum(leads) - 1]
    return tied


def undefined_correlation(cosines: np.ndarray, gold: np.ndarray) -> str | None:
    """Why the correlation of cosines [n] with gold scores [n] is not defined; None if it is."""
    if len(gold) < 2:
        return f"a correlation needs at least two pairs, and there are {len(gold)}"
    if (gold == gold[0]).all():
        return f"all {len(gold):,} gold scores are {gold[0]:g}"
    if (cosines == cosines[0]).all():
        return f"the model gives all {len(cosines):,} pairs the cosine {cosines[0]:g}"
    return None


def correlations(cosine: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """spearman and pearson of cosines [n] with gold scores [n], each x 100; NaN if they are not defined.

    Raises ValueError if the lengths differ, or a gold score is not finite.
    """
    from scipy.stats import pearsonr, spearmanr

    gold = np.asarray(gold, dtype=np.float64)
    if len(cosine) != len(gold):
        raise ValueError(f"expected as many gold scores ({len(gold)}) as pairs ({len(cosine)})")
    if not (finite := np.isfinite(gold)).all():
        raise ValueError(f"{int((~finite).sum())} of {len(gold)} gold scores are not finite numbers")
    if undefined_correlation(cosine, gold) is not None:
        return {"spearman": float("nan"), "pearson": float("nan")}
    return {
        "spearman": 100 * float(spearmanr(cosine, gold).statistic),
        "pearson": 100 * float(pearsonr(cosine, gold).statistic),
    }
