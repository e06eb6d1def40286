"""The exact ranks of right answers among all rows of an index, whatever its kind; ties count against the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cusa.metrics.scores import TIE, rounding_margin

if TYPE_CHECKING:
    from cusa.index.folder import SearchIndex

BLOCK = 16_384  # rows that are scored at once


def answer_ranks(index: SearchIndex, query: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of right answers int64 [r] as the model orders them, best first, and their ranks from 1, int64 [r].

    `query` is float32 [D], normalised. A rank is 1 + the wrong answers that score at least as high + the right ones
    before it, as in cusa.metrics. Scores that float32 cannot tell apart are compared in float64.
    """
    scores = np.empty(index.rows, np.float64)
    for start in range(0, index.rows, BLOCK):
        rows = np.arange(start, min(start + BLOCK, index.rows))
        scores[rows] = index.vectors(rows) @ query
    own = _exact_scores(index, right, query)
    scores[right] = -np.inf  # a right answer is not before another one
    margin = rounding_margin(len(query))
    wrong = np.empty(len(right), np.int64)
    for place, score in enumerate(own.tolist()):
        difference = scores - score
        close = np.flatnonzero(np.abs(difference) <= margin)
        tied = _exact_scores(index, close, query) >= score - TIE
        wrong[place] = np.count_nonzero(difference > margin) + np.count_nonzero(tied)
    order = np.lexsort((-own, wrong))
    return right[order], wrong[order] + np.arange(1, len(right) + 1)


def _exact_scores(index: SearchIndex, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Cosines of rows with the query, float64 [n]."""
    vectors, wanted = index.vectors(rows).astype(np.float64), query.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(wanted)
    return np.asarray(vectors @ wanted / np.where(lengths > 0, lengths, 1.0))
