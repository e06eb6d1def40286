"""Exact nearest neighbours by inner product, in blocks: on a GPU where faiss is built with one."""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

FIRST_ROWS = 1024
BLOCK_ROWS = 2048
PIECE_ROWS = 512  # of a block, so that a piece stays in a processor's cache
HELD_BYTES = 512 << 20  # at most, by nearest_among


NOTHING, APART = -2.0, 4.0  # below every inner product of unit rows; more than any two differ


NEIGHBOUR_BYTES = 64  # that holding, and merging, one neighbour of one row takes


def nearest(queries: np.ndarray, gallery: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` rows of `gallery` with the highest inner products, best first: float32 [n, count], int64 [n, count].

    `queries` [n, D] and `gallery` [m, D] are float32, `count` is at most m.
    """
    import faiss

    if _on_gpu():
        resources = faiss.StandardGpuResources()
        scores, rows = faiss.knn_gpu(resources, queries, gallery, count, metric=faiss.METRIC_INNER_PRODUCT)
    else:
        scores, rows = faiss.knn(queries, gallery, count, faiss.METRIC_INNER_PRODUCT)
    return scores, rows


def halves_the_work(rows: int, count: int) -> bool:
    """Whether `nearest_among` is the faster search, and what it holds for all rows at once is small enough."""
    return rows >= 4 * FIRST_ROWS and rows * count * NEIGHBOUR_BYTES <= HELD_BYTES and not _on_gpu()


def nearest_among(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`nearest(rows, rows, count)` for half the products: each block of them serves its rows and its columns.

    Of equal scores at the last place, which are given is not defined, as in faiss. Needs at least FIRST_ROWS rows.
    """
    first = rows[:FIRST_ROWS]
    best = _Best(
        *(np.concatenate(both) for both in zip(nearest(first, rows, count), _padded(rows, count), strict=True))
    )
    blocks = [slice(start, start + BLOCK_ROWS) for start in range(FIRST_ROWS, len(rows), BLOCK_ROWS)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for number, block in enumerate(blocks):
            for other in blocks[number:]:
                # The product uses every processor by itself; comparing does so in pieces.
                products = rows[block] @ rows[other].T
                pieces = range(0, len(products), PIECE_ROWS)
                for found in pool.map(
                    lambda at, products=products, block=block, other=other: best.better(
                        products[at : at + PIECE_ROWS], block.start + at, other.start, mirrored=other is not block
                    ),
                    pieces,
                ):
                    best.waiting.append(found)
                if best.held() > best.scores.size // 2:
                    best.merge(pool)
        best.merge(pool)
    return best.scores, best.found.astype(np.int64)


def _padded(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For the rows after the first ones, their neighbours among those, and nothing where these are too few."""
    scores, found = nearest(rows[FIRST_ROWS:], rows[:FIRST_ROWS], min(count, FIRST_ROWS))
    width = ((0, 0), (0, count - scores.shape[1]))
    return np.pad(scores, width, constant_values=NOTHING), np.pad(found, width)


class _Best:
    """The best neighbours so far of each row, and candidates that were better than the last of them."""

    def __init__(self, scores: np.ndarray, found: np.ndarray) -> None:
        self.scores, self.found = scores, found.astype(np.int32)
        self.last = scores[:, -1].copy()
        self.waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def better(
        self, products: np.ndarray, row: int, column: int, mirrored: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Owner, neighbour and score of the `products` of rows from `row` and columns from `column` that enter."""
        height, width = products.shape
        above = products > self.last[row : row + height, None]
        if mirrored:
            above |= products > self.last[column : column + width]
        at = np.flatnonzero(above)
        scores = products.ravel()[at]
        rows, columns = np.divmod(at, width)
        rows, columns = (rows + row).astype(np.int32), (columns + column).astype(np.int32)
        mine = scores > self.last[rows]
        if not mirrored:
            return rows[mine], columns[mine], scores[mine]
        theirs = scores > self.last[columns]
        owners = np.concatenate([rows[mine], columns[theirs]])
        others = np.concatenate([columns[mine], rows[theirs]])
        scores = np.concatenate([scores[mine], scores[theirs]])
        return owners, others, scores

    def held(self) -> int:
        return sum(len(owners) for owners, _, _ in self.waiting)

    def merge(self, pool: ThreadPoolExecutor) -> None:
        """Let the waiting in, in as many parts of the rows as there are processors."""
        if not self.held():
            return
        owners, others, scores = (np.concatenate(parts) for parts in zip(*self.waiting, strict=True))
        self.waiting = []
        bounds = np.linspace(owners.min(), owners.max() + 1, len(os.sched_getaffinity(0)) + 1).astype(np.int64)
        parts = [(owners >= low) & (owners < high) for low, high in itertools.pairwise(bounds)]
        list(pool.map(lambda part: self._let_in(owners[part], others[part], scores[part]), parts))

    def _let_in(self, owners: np.ndarray, others: np.ndarray, scores: np.ndarray) -> None:
        entering = np.bincount(owners, minlength=len(self.scores))
        rows = np.flatnonzero(entering)
        count = self.scores.shape[1]
        owners = np.concatenate([np.repeat(rows, count), owners])
        others = np.concatenate([self.found[rows].ravel(), others.astype(np.int32)])
        scores = np.concatenate([self.scores[rows].ravel(), scores])
        # One sort of one number: rows apart by more than inner products can differ, best first within each.
        order = np.argsort(APART * owners - scores.astype(np.float64))
        starts = np.cumsum(entering[rows] + count) - entering[rows] - count
        chosen = order[starts[:, None] + np.arange(count)]
        self.scores[rows], self.found[rows] = scores[chosen], others[chosen]
        self.last[rows] = self.scores[rows, -1]


def _on_gpu() -> bool:
    import faiss

    return bool(getattr(faiss, "get_num_gpus", lambda: 0)())
