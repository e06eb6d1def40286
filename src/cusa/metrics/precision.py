"""R@1, R-Precision and mAP@R, for queries that have several right answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cusa.metrics.ranks import Candidates, RightRanks, best_candidates, exact_right_ranks, right_ranks
from cusa.metrics.recall import positive_ranks, recalled
from cusa.metrics.scores import (
    COUNTED_BYTES,
    Embeddings,
    ExactScores,
    check_same_dimension,
    checked_embeddings,
    percent,
)

PRODUCT_BYTES = 64 << 20  # of scores that are computed at once
MANY = 4  # if every fourth row of the gallery is a candidate, the whole gallery is searched in float64


def extended_recall(image: np.ndarray, text: np.ndarray, positives: np.ndarray) -> dict[str, float]:
    """Retrieval with several right answers a query, as ECCV Caption scores it (Chun et al., ECCV 2022).

    `image` [n, D] and `text` [m, D] are embeddings. `positives` int [p, 2] lists the right (image, text) pairs; an
    image may have any number of texts and a text any number of images. A query without a positive is not scored.
    Returns i2t_r1, i2t_rprecision, i2t_map_at_r, t2i_r1, t2i_rprecision and t2i_map_at_r in percent: r1 is the share
    of queries whose first answer is a positive, rprecision the share of a query's R positives among the first R
    answers, and map_at_r the mean average precision at R (Musgrave et al., ECCV 2020). Ties count against the model.
    Raises ValueError if there is no positive pair.
    """
    if not np.size(positives):
        raise ValueError("there is no positive pair, so there is nothing to score")
    return percent(extended_outcomes(image, text, positives))


def extended_outcomes(
    image: np.ndarray | Embeddings,
    text: np.ndarray | Embeddings,
    of_image: np.ndarray,
    of_text: np.ndarray | None = None,
    recall_at: Sequence[int] = (1,),
) -> dict[str, np.ndarray]:
    """The values that `extended_recall` averages: float64 [n] for image queries, [m] for text queries, from 0 to 1.

    `of_image` int [p, 2] lists the right (image, text) pairs for image queries, `of_text` those for text queries;
    without `of_text`, both have the same. An answer with a negative number is right but not in the gallery: it counts
    and is never found. NaN stands for a query that has no right answer. `recall_at` asks for r{K} of other K too:
    whether a right answer is among the K best.
    """
    # Checked once, for both directions.
    image, text = checked_embeddings("image", image), checked_embeddings("text", text)
    of_image = np.asarray(of_image).reshape(-1, 2)
    of_text = of_image if of_text is None else np.asarray(of_text).reshape(-1, 2)
    sides = {"i2t": (image, text, of_image), "t2i": (text, image, of_text[:, ::-1])}
    outcomes = {
        f"{way}_{name}": values
        for way, (query, gallery, pairs) in sides.items()
        for name, values in precision_of_queries(query, gallery, pairs).items()
    }
    if further := [k for k in recall_at if k != 1]:
        outcomes |= recalled(*positive_ranks(image, text, of_image, of_text), further)
    return outcomes


def precision_of_queries(
    query: np.ndarray | Embeddings, gallery: np.ndarray | Embeddings, positives: np.ndarray
) -> dict[str, np.ndarray]:
    """r1, rprecision and map_at_r (see `extended_recall`) of each query, float64 [n] from 0 to 1.

    `positives` int [p, 2] lists the right (query, gallery) pairs; see `extended_outcomes` for negative numbers. NaN
    stands for a query that has none. Raises ValueError if a pair points outside.
    """
    query, gallery = checked_embeddings("query", query), checked_embeddings("gallery", gallery)
    check_same_dimension(query=query, gallery=gallery)
    pairs = _distinct(np.asarray(positives, dtype=np.int64).reshape(-1, 2))
    if len(pairs) and (pairs[0, 0] < 0 or pairs[-1, 0] >= len(query) or pairs[:, 1].max() >= len(gallery)):
        raise ValueError(f"positives point outside the {len(query)} queries and {len(gallery)} rows of the gallery")
    queries, first, count = np.unique(pairs[:, 0], return_index=True, return_counts=True)
    exact = ExactScores(query, gallery)
    outcomes = np.full((3, len(query)), np.nan)

    def score(start: int, scores: np.ndarray) -> None:
        block = slice(start, start + len(scores))
        relevant = count[block]
        members = pairs[first[block][0] : first[block][-1] + relevant[-1], 1]
        # Sorted, as numbers of cells of the block.
        cells = (np.repeat(np.arange(len(relevant)), relevant) * len(gallery) + members)[members >= 0]
        ranks = _ranks(scores, exact, queries[block], cells, relevant)
        outcomes[:, queries[block]] = [ranks.found(1, len(relevant)), *ranks.precision(relevant)]

    step, part = (max(1, size // (4 * len(gallery))) for size in (PRODUCT_BYTES, COUNTED_BYTES))
    # Memory that is used again costs less than new pages from the system for each block.
    memory = np.empty((min(step, len(queries)), len(gallery)), dtype=np.float32)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, len(queries), step):
            # The product uses every processor. Its rows are searched by threads, in parts that stay in the cache.
            asked = query.unit[queries[start : start + step]]
            scores = np.matmul(asked, gallery.unit.T, out=memory[: len(asked)])
            parts = range(0, len(scores), part)
            pieces = [scores[at : at + part] for at in parts]
            list(pool.map(score, (start + at for at in parts), pieces))
    return dict(zip(("r1", "rprecision", "map_at_r"), outcomes, strict=True))


def _distinct(pairs: np.ndarray) -> np.ndarray:
    """The distinct pairs int64 [p, 2], sorted; several times faster than numpy's `unique` of rows."""
    ordered = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    kept = np.ones(len(pairs), dtype=bool)
    kept[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    distinct: np.ndarray = ordered[kept]
    return distinct


def _ranks(
    scores: np.ndarray, exact: ExactScores, queries: np.ndarray, cells: np.ndarray, relevant: np.ndarray
) -> RightRanks:
    """The ranks of the right answers of `queries` int64 [b], which have float32 `scores` [b, m].

    `cells` int64 are the sorted places of right answers in `scores.ravel()`; `relevant` int64 [b] is their number.
    """
    rows, columns, values = best_candidates(scores, int(relevant.max()), exact.left.shape[1])
    if MANY * len(rows) > scores.size:
        right = np.zeros(scores.shape, dtype=bool)
        right.ravel()[cells] = True
        return exact_right_ranks(exact, queries, right, int(relevant.max()))
    right = _among(rows * scores.shape[1] + columns, cells)
    return right_ranks(Candidates(rows, columns, values, right), exact, queries, relevant)


def _among(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Whether each of `values` int64 [n] is one of `members` int64 [p], which are sorted."""
    if not len(members):
        return np.zeros(len(values), dtype=bool)
    found: np.ndarray = members[np.minimum(np.searchsorted(members, values), len(members) - 1)] == values
    return found
