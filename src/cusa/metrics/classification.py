"""Accuracy of a classifier, from the scores that it gives each class."""

from __future__ import annotations

import numpy as np

ACCURACY_AT = (1, 5)


def label_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The rank of each item's own class among all classes, int64 [n] from 1.

    `scores` [n, C] are those of each class, `labels` int [n] the numbers of the right ones. Ties count against the
    model: a class that scores exactly as high as the right one is ranked before it. A label that is negative is that of
    a class without a score, so it is ranked last, C + 1.
    """
    count = scores.shape[1]
    known = labels >= 0
    ranks = np.full(len(scores), count + 1, dtype=np.int64)
    own = np.take_along_axis(scores[known], labels[known, None], axis=1)
    ranks[known] = (scores[known] >= own).sum(axis=1)
    return ranks


def classified(ranks: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Whether each item's class is among the first k: acc1 and, if there are more classes, acc5; float64 [n], 0 or 1.

    `ranks` int [n] are those of `label_ranks`, `classes` is their number.
    """
    return {f"acc{k}": (ranks <= k).astype(np.float64) for k in ACCURACY_AT if k == 1 or classes > k}


def class_weights(labels: np.ndarray) -> np.ndarray:
    """Weights of items, float64 [n], of mean 1, by which every class counts the same, however many items it has.

    `labels` [n] are the items' classes. The mean of weighted outcomes is the mean over classes of their means.
    """
    _, codes, count = np.unique(labels, return_inverse=True, return_counts=True)
    weights: np.ndarray = len(labels) / (len(count) * count[codes])
    return weights
