"""Ranks of right answers among the candidates of each query; ties count against the model.

float32 scores decide if they are far enough apart, and exact ones in float64 if they are not, so the ranks equal
those of a naive float64 computation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cusa.metrics.scores import TIE, ExactScores, rounding_margin

SHIFT = 4.0  # more than any two cosines differ, so that one sort serves all queries
GROUPS_FOR_EACH = 4


@dataclass(frozen=True)
class Candidates:
    """Gallery rows that may be among the best of their queries.

    `queries` int64 [c] numbers the query of each, from 0 and rising; `columns` int64 [c] are their rows in the gallery,
    `scores` float32 [c] their cosines, best first within a query, and `right` bool [c] says which are right answers.
    """

    queries: np.ndarray
    columns: np.ndarray
    scores: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class RightRanks:
    """The right answers among candidates, int64 [r] each: their query, their place among its right answers, their rank.

    Places and ranks count from 1. They are sorted by query and rank.
    """

    queries: np.ndarray
    places: np.ndarray
    ranks: np.ndarray

    def found(self, k: int, count: int) -> np.ndarray:
        """Whether each of `count` queries has a right answer among its first `k`: float64 [count], 0 or 1."""
        return (np.bincount(self.queries[self.ranks <= k], minlength=count) > 0).astype(np.float64)

    def precision(self, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """R-Precision and average precision at R of each query, float64 [b]; NaN if it has no right answer.

        `relevant` int64 [b] is R, the number of right answers of each query; those that are not candidates are misses.
        """
        starts = np.cumsum(relevant) - relevant
        hit = self.ranks <= relevant[self.queries]
        hits, precision = np.zeros((2, int(relevant.sum())))
        at = (starts[self.queries] + self.places - 1)[hit]
        hits[at], precision[at] = 1.0, self.places[hit] / self.ranks[hit]
        scored = relevant > 0
        outcomes = np.full((2, len(relevant)), np.nan)
        for outcome, values in zip(outcomes, (hits, precision), strict=True):
            outcome[scored] = np.add.reduceat(values, starts[scored]) / relevant[scored] if scored.any() else []
        return outcomes[0], outcomes[1]


def best_candidates(
    scores: np.ndarray, count: np.ndarray | int, dimension: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and values of those `scores` [b, m] that can be among the best `count` of their rows.

    Every score that is exactly as high as one of them is among them, in spite of float32 rounding, so the ranks of
    right answers up to `count` are right. Best first within a row. `dimension` is that of the embeddings.
    """
    floors = _floors(scores, int(np.max(count)) + 1) - np.float32(4 * rounding_margin(dimension))
    # numpy's nonzero is forty times faster in one dimension than in two.
    found = np.flatnonzero(scores >= floors[:, None])
    rows, values = found // scores.shape[1], scores.ravel()[found]
    order = np.argsort(SHIFT * rows - values.astype(np.float64))
    return rows[order], (found - rows * scores.shape[1])[order], values[order]


def right_ranks(candidates: Candidates, exact: ExactScores, left_rows: np.ndarray, limit: np.ndarray) -> RightRanks:
    """The rank of each right answer: 1 + the wrong answers that score at least as high + the right ones before it.

    `exact` gives exact scores, `left_rows` int64 [b] the row of each query in `exact.left`. Ranks above `limit`
    int64 [b] are only known to be above it.
    """
    queries, right = candidates.queries, candidates.right
    margin = 2 * rounding_margin(exact.left.shape[1])
    key = SHIFT * queries - candidates.scores.astype(np.float64)
    wrong_before = _counted(~right)
    own = np.flatnonzero(right)
    start = np.searchsorted(queries, queries[own])
    # Candidates before `first` score higher for certain, those from `last` on lower.
    first, last = np.searchsorted(key, key[own] - margin), np.searchsorted(key, key[own] + margin, side="right")
    wrong = wrong_before[last] - wrong_before[start]
    close = (wrong_before[last] > wrong_before[first]) & (first - start < limit[queries[own]])
    if close.any():
        wrong[close] = _exactly(candidates, exact, left_rows, own[close], start[close], first[close], last[close])
    return _ranked(queries[own], wrong)


def _exactly(
    candidates: Candidates,
    exact: ExactScores,
    left_rows: np.ndarray,
    own: np.ndarray,
    start: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
) -> np.ndarray:
    """The number of wrong candidates that score at least as high as the right ones `own` int64 [r], by exact scores.

    Their queries begin at `start`. What lies between `first` and `last` is too close for float32.
    """
    queries, right = candidates.queries, candidates.right
    change = np.bincount(first, minlength=len(queries) + 1) - np.bincount(last, minlength=len(queries) + 1)
    near = np.cumsum(change[:-1]) > 0
    chosen = np.flatnonzero(near)
    scores = exact(left_rows[queries[chosen]], candidates.columns[chosen])
    wrong = ~right[chosen]
    above = _wrong_above(queries[chosen[wrong]], scores[wrong], queries[own], scores[np.searchsorted(chosen, own)])
    far_before = _counted(~right & ~near)
    counted: np.ndarray = above + far_before[first] - far_before[start]
    return counted


def exact_right_ranks(
    exact: ExactScores, left_rows: np.ndarray, right: np.ndarray, limit: int, alone: bool = False
) -> RightRanks:
    """`right_ranks` of queries that have too many candidates: by exact scores with the whole gallery.

    `right` bool [b, m] says which rows of the gallery are right answers of each query. `alone` says that the queries
    are their own gallery, so that none finds itself. Ranks above `limit` may be left out.
    """
    scores = exact.matrix(left_rows)
    if alone:
        scores[np.arange(len(left_rows)), left_rows] = -np.inf
    of_wrong = np.where(right, -np.inf, scores)
    last = max(scores.shape[1] - limit, 0)
    floors = np.partition(of_wrong, last, axis=1)[:, last, None]
    # As many wrong answers as `limit` score at least as high as the others. Above the floor are fewer than `limit`.
    queries, columns = np.nonzero(right & (scores > floors + TIE))
    wrong_queries, wrong_columns = np.nonzero(of_wrong > floors)
    wrong = _wrong_above(wrong_queries, scores[wrong_queries, wrong_columns], queries, scores[queries, columns])
    return _ranked(queries, wrong)


def _wrong_above(
    wrong_queries: np.ndarray, wrong_scores: np.ndarray, queries: np.ndarray, scores: np.ndarray
) -> np.ndarray:
    """The number of wrong answers to the same query that score at least as high as each right answer, int64 [r].

    `wrong_queries` and `wrong_scores` [w] are of the wrong answers, `queries` and `scores` [r] of the right ones, both
    sorted by query.
    """
    # Sorted together: each right answer after the wrong ones that score at least as high.
    reached = np.concatenate([wrong_scores, scores - TIE])
    is_right = np.arange(len(reached)) >= len(wrong_scores)
    order = np.lexsort((is_right, -reached, np.concatenate([wrong_queries, queries])))
    above = np.empty(len(order), dtype=np.int64)
    above[order] = np.cumsum(~is_right[order])
    counted: np.ndarray = above[is_right] - np.searchsorted(wrong_queries, queries)
    return counted


def _ranked(queries: np.ndarray, wrong: np.ndarray) -> RightRanks:
    """Places and ranks of right answers from the number of wrong ones before each; `queries` is sorted."""
    # A right answer with more wrong ones before it comes later.
    order = np.lexsort((wrong, queries))
    places = np.arange(len(queries)) - np.searchsorted(queries, queries) + 1
    return RightRanks(queries, places, places + wrong[order])


def _counted(members: np.ndarray) -> np.ndarray:
    """How many of the first 0, 1, ..., c are members: bool [c] -> int64 [c + 1]."""
    return np.concatenate([[0], np.cumsum(members)])


def _floors(scores: np.ndarray, count: int) -> np.ndarray:
    """A value for each row that at least `count` of its scores reach, and not many more; -infinity in short rows.

    It is the `count`-th highest of the maxima of GROUPS_FOR_EACH x `count` groups of columns. Maxima are several times
    faster than a partition of the row.
    """
    groups = GROUPS_FOR_EACH * count
    size = scores.shape[1] // groups
    if size < 2:
        return np.full(len(scores), -np.inf, dtype=np.float32)
    maxima = scores[:, : groups * size].reshape(len(scores), size, groups).max(axis=1)
    floors: np.ndarray = np.partition(maxima, groups - count, axis=1)[:, groups - count]
    return floors
