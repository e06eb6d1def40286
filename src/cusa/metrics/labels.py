"""Retrieval of items of the same label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cusa.metrics.neighbours import halves_the_work, nearest, nearest_among
from cusa.metrics.ranks import Candidates, RightRanks, exact_right_ranks, right_ranks
from cusa.metrics.scores import (
    BLOCK_BYTES,
    Embeddings,
    ExactScores,
    check_same_dimension,
    checked_embeddings,
    percent,
    rounding_margin,
)

# More neighbours than needed are asked for. If those at the last place score nearly the same, more may follow.
SLACK = 8
NEIGHBOUR_BYTES = 128 << 20
NEIGHBOUR_COST = 96  # bytes of all arrays together that scoring needs for one neighbour of one query


def nearest_label_recall(
    query: np.ndarray,
    query_labels: Sequence[object] | np.ndarray,
    gallery: np.ndarray | None = None,
    gallery_labels: Sequence[object] | np.ndarray | None = None,
    recall_at: Sequence[int] = (1, 2, 4, 8),
) -> dict[str, float]:
    """Nearest-neighbour retrieval of the same label, by Euclidean distance of L2-normalised embeddings.

    `query` [n, D] has n labels, `gallery` [m, D] has m. Without a gallery, each query searches the other queries.
    Returns, in percent: r{k}, the share of queries that have their label among the k nearest; rprecision and map_at_r
    (see `extended_recall`). A query whose label does not occur in its gallery is a miss in r{k}, as in the published
    evaluation, and is left out of rprecision and map_at_r; if all are, these two are NaN. One image alone has
    nothing to search, so all are NaN. Ties count against the model. Raises ValueError if rows and labels differ in
    number.
    """
    return percent(label_found(query, query_labels, gallery, gallery_labels, recall_at))


def label_found(
    query: np.ndarray,
    query_labels: Sequence[object] | np.ndarray,
    gallery: np.ndarray | None = None,
    gallery_labels: Sequence[object] | np.ndarray | None = None,
    recall_at: Sequence[int] = (1, 2, 4, 8),
) -> dict[str, np.ndarray]:
    """The values that `nearest_label_recall` averages: float64 [n] from 0 to 1 in the order of the queries.

    NaN stands for a query that is left out. Queries are searched in blocks, so that memory stays below about 600 MB
    beside the embeddings.
    """
    query_labels, alone = np.asarray(query_labels), gallery is None
    if gallery is None or gallery_labels is None:
        gallery, gallery_labels = query, query_labels
    gallery_labels = np.asarray(gallery_labels)
    asked = checked_embeddings("query", query)
    searched = asked if alone else checked_embeddings("gallery", gallery)
    check_same_dimension(query=asked, gallery=searched)
    for name, rows, labels in (("query", asked, query_labels), ("gallery", searched, gallery_labels)):
        if labels.shape != (len(rows),):
            raise ValueError(
                f"{name} has {len(rows)} rows and labels of shape {labels.shape}; expected one label per row"
            )
    if alone and len(query) == 1:
        return {name: np.array([np.nan]) for name in (*(f"r{k}" for k in recall_at), "rprecision", "map_at_r")}
    codes = np.unique(np.concatenate([query_labels, gallery_labels]), return_inverse=True)[1]
    search = _Search(asked, searched, codes[: len(query_labels)], codes[len(query_labels) :], alone, max(recall_at))
    outcomes = {f"r{k}": np.zeros(len(query)) for k in recall_at}
    outcomes |= {name: np.full(len(query), np.nan) for name in ("rprecision", "map_at_r")}
    for queries, ranks in search.blocks():
        for k in recall_at:
            outcomes[f"r{k}"][queries] = ranks.found(k, len(queries))
        both = ranks.precision(search.relevant[queries])
        outcomes["rprecision"][queries], outcomes["map_at_r"][queries] = both
    return outcomes


class _Search:
    """The ranks of the right answers of every query. `alone` says that the queries are their own gallery."""

    def __init__(
        self,
        query: Embeddings,
        gallery: Embeddings,
        query_codes: np.ndarray,
        gallery_codes: np.ndarray,
        alone: bool,
        deepest: int,
    ) -> None:
        self.alone, self.query_codes, self.gallery_codes = alone, query_codes, gallery_codes
        self.exact = ExactScores(query, gallery)
        self.query, self.gallery = query.unit, gallery.unit
        sizes = np.bincount(gallery_codes, minlength=int(query_codes.max()) + 1)
        self.relevant = sizes[query_codes] - int(alone)
        self.limit = np.maximum(self.relevant, deepest)  # of the ranks that a metric looks at
        # One more for the query itself.
        self.wanted = min(int(self.limit.max()) + int(alone) + SLACK, len(gallery))

    def blocks(self) -> Iterator[tuple[np.ndarray, RightRanks]]:
        """Queries, int64 [b], and the ranks of their right answers, block by block; each query is in one block."""
        fast = self.alone and halves_the_work(len(self.query), self.wanted)
        among = nearest_among(self.query, self.wanted) if fast else None
        step = max(1, NEIGHBOUR_BYTES // (NEIGHBOUR_COST * self.wanted))
        for start in range(0, len(self.query), step):
            queries = np.arange(start, min(start + step, len(self.query)))
            if among is None:
                scores, columns = nearest(self.query[queries], self.gallery, self.wanted)
            else:
                scores, columns = among[0][queries], among[1][queries]
            others = columns != queries[:, None] if self.alone else np.ones(columns.shape, dtype=bool)
            enough = self._reaches(scores, others, self.limit[queries])
            # numpy's nonzero is forty times faster in one dimension than in two.
            at = np.flatnonzero(others & enough[:, None])
            rows = (np.cumsum(enough) - 1)[at // self.wanted]
            yield queries[enough], self._ranks(queries[enough], rows, columns.ravel()[at], scores.ravel()[at])
            yield from self._searched_whole(queries[~enough])

    def _reaches(self, scores: np.ndarray, others: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """Whether the neighbours of each query, with `scores` [b, wanted], decide all ranks up to its limit, bool [b].

        They do if at least `limit` of them score higher, for certain, than all other items.
        """
        if self.wanted == len(self.gallery):
            return np.ones(len(scores), dtype=bool)
        margin = np.float32(4 * rounding_margin(self.query.shape[1]))
        certain: np.ndarray = ((scores > scores[:, -1:] + margin) & others).sum(axis=1)
        return certain >= limit

    def _searched_whole(self, queries: np.ndarray) -> Iterator[tuple[np.ndarray, RightRanks]]:
        """The same for queries whose neighbours tie with what was not asked for: they search the whole gallery."""
        step = max(1, BLOCK_BYTES // len(self.gallery))
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            right = self.gallery_codes == self.query_codes[block, None]
            if self.alone:
                right[np.arange(len(block)), block] = False
            yield block, exact_right_ranks(self.exact, block, right, int(self.limit[block].max()), self.alone)

    def _ranks(self, queries: np.ndarray, rows: np.ndarray, columns: np.ndarray, scores: np.ndarray) -> RightRanks:
        """The ranks of the right answers of `queries` among candidates, which belong to `queries[rows]`."""
        right = self.gallery_codes[columns] == self.query_codes[queries[rows]]
        return right_ranks(Candidates(rows, columns, scores, right), self.exact, queries, self.limit[queries])
