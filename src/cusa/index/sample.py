"""Queries that an index is measured with, and their exact nearest rows.

Rows that serve as queries are not in the index while it is measured, so they show how well a new picture finds its
neighbours. In a contrastive model, texts lie in another region than pictures, farther from all of them. An index can
have a high recall for one and a low one for the other, so text queries are a separate sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cusa.gallery.store import Vectors
from cusa.index.galleries import blocks
from cusa.index.searching import best_of, lacking

TOP = 10  # of recall@10
TIE = 1e-5  # cosines that differ by less are equal: rounding of float32 decides on their order
ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Sample:
    """Queries float32 [n, D], and the exact cosine of the row at each of their first TOP ranks, float32 [n, TOP]."""

    name: str
    queries: np.ndarray
    exact: np.ndarray

    def recall(self, scores: np.ndarray) -> np.ndarray:
        """The share of the nearest TOP rows among those that were found, by their exact scores: [n, TOP] -> [n].

        A row whose cosine equals that of the last of the nearest rows counts as one of them.
        """
        places = np.isfinite(self.exact)
        last = np.where(places, self.exact, np.inf).min(axis=1)
        found = (scores >= last[:, None] - TIE).sum(axis=1)
        counts = places.sum(axis=1)
        return np.asarray(np.minimum(found, counts) / np.maximum(counts, 1))


def exact_samples(vectors: Vectors, rows: np.ndarray, queries: dict[str, np.ndarray]) -> list[Sample]:
    """Samples of the given names and queries, whose nearest rows are among `rows` of `vectors`, in one pass."""
    together = np.concatenate(list(queries.values()))
    scores, numbers = lacking(len(together), TOP)
    for block_rows, block in blocks(vectors, rows):
        for start in range(0, len(block), ROWS_AT_ONCE):
            piece = slice(start, start + ROWS_AT_ONCE)
            products = together @ block[piece].T
            chosen = np.argpartition(-products, min(TOP, products.shape[1]) - 1, axis=1)[:, :TOP]
            scores = np.concatenate([scores, np.take_along_axis(products, chosen, axis=1)], axis=1)
            numbers = np.concatenate([numbers, block_rows[piece][chosen]], axis=1)
            scores, numbers = best_of(scores, numbers, TOP)
    bounds = np.cumsum([0, *map(len, queries.values())])
    return [
        Sample(name, values, scores[start:stop])
        for (name, values), start, stop in zip(queries.items(), bounds, bounds[1:], strict=False)
    ]
