"""R@1, R-Precision and mAP@R, for queries that have several right answers."""

from __future__ import annotations

import numpy as np

from cusa.metrics.scores import BLOCK_BYTES, checked_embeddings, percent, unit_float32


def extended_recall(image: np.ndarray, text: np.ndarray, positives: np.ndarray) -> dict[str, float]:
    """Retrieval with several right answers a query, as ECCV Caption scores it (Chun et al., ECCV 2022).

    `image` [n, D] and `text` [m, D] are embeddings. `positives` int [p, 2] lists the right (image, text) pairs; an
    image may have any number of texts and a text any number of images. A query without a positive is not scored.
    Returns i2t_r1, i2t_rprecision, i2t_map_at_r, t2i_r1, t2i_rprecision and t2i_map_at_r in percent: r1 is the share
    of queries whose first answer is a positive, rprecision the share of a query's R positives among the first R
    answers, and map_at_r the mean average precision at R (Musgrave et al., ECCV 2020). Ties count against the model.
    Raises ValueError if there is no positive pair.
    """
    return percent(extended_outcomes(image, text, positives))


def extended_outcomes(
    image: np.ndarray, text: np.ndarray, of_image: np.ndarray, of_text: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The values that `extended_recall` averages: float64 [n] for image queries, [m] for text queries, from 0 to 1.

    `of_image` int [p, 2] lists the right (image, text) pairs for image queries, `of_text` those for text queries;
    without `of_text`, both have the same. NaN stands for a query that has no right answer.
    """
    of_image = np.asarray(of_image).reshape(-1, 2)
    of_text = of_image if of_text is None else np.asarray(of_text).reshape(-1, 2)
    sides = {"i2t": (image, text, of_image), "t2i": (text, image, of_text[:, ::-1])}
    return {
        f"{way}_{name}": values
        for way, (query, gallery, pairs) in sides.items()
        for name, values in precision_of_queries(query, gallery, pairs).items()
    }


def precision_of_queries(query: np.ndarray, gallery: np.ndarray, positives: np.ndarray) -> dict[str, np.ndarray]:
    """r1, rprecision and map_at_r (see `extended_recall`) of each query, float64 [n] from 0 to 1.

    `positives` int [p, 2] lists the right (query, gallery) pairs. NaN stands for a query that has none. Raises
    ValueError if there is no pair at all.
    """
    query, gallery = checked_embeddings("query", query), checked_embeddings("gallery", gallery)
    pairs = np.unique(np.asarray(positives, dtype=np.int64).reshape(-1, 2), axis=0)
    if not len(pairs):
        raise ValueError("there is no positive pair, so there is nothing to score")
    queries, first, count = np.unique(pairs[:, 0], return_index=True, return_counts=True)
    unit_query, unit_gallery = unit_float32(query), unit_float32(gallery)
    outcomes = np.full((3, len(query)), np.nan)
    step = max(1, BLOCK_BYTES // (4 * len(gallery)))
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        relevant = count[block]
        scores = unit_query[queries[block]] @ unit_gallery.T
        members = pairs[first[block][0] : first[block][-1] + relevant[-1], 1]
        outcomes[:, queries[block]] = _precision(scores, members, relevant)
    return dict(zip(("r1", "rprecision", "map_at_r"), outcomes, strict=True))


GROUPS_FOR_EACH = 4


def _precision(scores: np.ndarray, members: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """r1, R-Precision and AP@R [3, rows] of scores [rows, m].

    `relevant` [rows] is the number of right answers of each row; `members` [sum of relevant] are their columns, row by
    row.
    """
    rows = np.repeat(np.arange(len(scores)), relevant)
    # Each row's right answers, best first, at places 1, 2, ... of the row.
    own = scores[rows, members]
    own = own[np.lexsort((-own, rows))]
    starts = np.cumsum(relevant) - relevant
    place = np.arange(len(own)) - np.repeat(starts, relevant) + 1
    # The number of right answers that score at least as high as each: the place of the last of a run of equal scores.
    last = np.r_[(own[1:] != own[:-1]) | (rows[1:] != rows[:-1]), True]
    ends = np.flatnonzero(last)
    own_as_high = place[ends[np.searchsorted(ends, np.arange(len(own)))]]
    # An answer below the best 2R + 1 has a rank above R, so only the best 2R + 1 are sorted. Each row is shifted above
    # the row before it, so that one sort serves all rows.
    found = np.flatnonzero(scores >= _floors(scores, 2 * int(relevant.max()) + 1)[:, None])
    row_of_found = found // scores.shape[1]
    best = scores.ravel()[found].astype(np.float64) + 4.0 * row_of_found
    best.sort()
    bounds = np.searchsorted(row_of_found, np.arange(len(scores) + 1))
    lower = np.searchsorted(best, own.astype(np.float64) + 4.0 * rows)
    as_high = bounds[rows + 1] - np.maximum(lower, bounds[rows])
    ranks = as_high - own_as_high + place
    hit = ranks <= relevant[rows]
    hits = np.add.reduceat(hit.astype(np.float64), starts)
    precision = np.add.reduceat(np.where(hit, place / ranks, 0.0), starts)
    return np.stack([ranks[starts] == 1, hits / relevant, precision / relevant])


def _floors(scores: np.ndarray, count: int) -> np.ndarray:
    """A value for each row that at least `count` of its scores reach, and not many more; -infinity in short rows.

    It is the `count`-th highest of the maxima of GROUPS_FOR_EACH x `count` groups of columns. Maxima are several times
    faster than a partition of the row.
    """
    groups = GROUPS_FOR_EACH * count
    size = scores.shape[1] // groups
    if size < 2:
        return np.full(len(scores), -np.inf)
    maxima = scores[:, : groups * size].reshape(len(scores), size, groups).max(axis=1)
    floors: np.ndarray = np.partition(maxima, groups - count, axis=1)[:, groups - count]
    return floors
