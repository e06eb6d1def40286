"""The linear classifier of a probe: a logistic regression, whose strength held-out embeddings choose."""

from __future__ import annotations

import logging
import warnings

import numpy as np

from cusa.metrics.classification import label_ranks
from cusa.metrics.scores import unit_float32

log = logging.getLogger(__name__)
# Of scikit-learn's C; the regularisation is weaker the larger it is.
STRENGTHS = tuple(10.0**power for power in range(-4, 3))
MOST_STEPS = 1000
HELD_OUT = 5  # every fifth image of a class chooses the strength


def class_scores(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, float]:
    """The scores that a logistic regression gives each class, float64 [m, C], and the C that was chosen.

    It learns from `train` [n, D], whose classes `labels` int64 [n] are numbers from 0 to C - 1, and scores `test`
    [m, D]. Rows are divided by their length and multiplied by the root of D, so that a number is about 1. The C of
    STRENGTHS is the one with the highest accuracy on every fifth image of each class, the smallest of equal ones; the
    classifier then learns from all images. Raises ValueError if there are fewer than two classes.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError("a classifier needs images of at least two classes to learn from")
    scale = np.sqrt(train.shape[1])
    rows, others = (unit_float32(np.asarray(part)).astype(np.float64) * scale for part in (train, test))
    chosen = _strength(rows, labels)
    return _fitted_scores(rows, labels, others, chosen), chosen


def _strength(rows: np.ndarray, labels: np.ndarray) -> float:
    held_out = _place_in_class(labels) % HELD_OUT == HELD_OUT - 1
    if not held_out.any():
        return 1.0
    learned = np.unique(labels[~held_out])  # all classes: the first images of each are kept
    right = np.searchsorted(learned, labels[held_out])
    correct = [
        int((label_ranks(_fitted_scores(rows[~held_out], labels[~held_out], rows[held_out], each), right) == 1).sum())
        for each in STRENGTHS
    ]
    return STRENGTHS[int(np.argmax(correct))]


def _place_in_class(labels: np.ndarray) -> np.ndarray:
    """How many earlier items are of the same class, int64 [n]."""
    order = np.argsort(labels, kind="stable")
    _, first, count = np.unique(labels[order], return_index=True, return_counts=True)
    place = np.empty(len(labels), dtype=np.int64)
    place[order] = np.arange(len(labels)) - np.repeat(first, count)
    return place


def _fitted_scores(rows: np.ndarray, labels: np.ndarray, test: np.ndarray, strength: float) -> np.ndarray:
    """Scores of each class for `test`, by a classifier that has learned `rows`: float64 [m, C]."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model = LogisticRegression(C=strength, max_iter=MOST_STEPS).fit(rows, labels)
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        log.warning("the logistic regression with C = %g has not converged in %d steps", strength, MOST_STEPS)
    scores: np.ndarray = model.decision_function(test)
    # Of two classes, scikit-learn gives the score of the second alone.
    return np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
