"""Exact nearest neighbours by inner product, in blocks; on a GPU if faiss has one."""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from cusa.errors import ConfigurationError

FIRST_ROWS = 1024
BLOCK_ROWS = 2048
PIECE_ROWS = 512  # of a block, so that a piece stays in a processor's cache
HELD_BYTES = 512 << 20  # the most memory that nearest_among uses
NEIGHBOUR_BYTES = 64  # that it needs for one neighbour of one row, merging included
NOTHING = -2.0  # a score below every inner product of unit rows
APART = 4.0  # more than any two inner products of unit rows differ


def import_faiss() -> Any:
    """The module faiss. Raises ConfigurationError, which says what to install, if it cannot be imported."""
    try:
        import faiss
    except ImportError as error:
        raise ConfigurationError(
            f"faiss cannot be imported ({error}), but nearest neighbours need it. Run pip install 'cusa[cpu]', or pip "
            "install 'cusa[gpu]' on a machine with an NVIDIA GPU; never both, because both are the module faiss."
        ) from None
    return faiss


def nearest(queries: np.ndarray, gallery: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and row numbers of the `count` rows of `gallery` with the highest inner products, best first.

    `queries` [n, D] and `gallery` [m, D] are float32; `count` is at most m. Returns float32 [n, count] and int64
    [n, count].
    """
    faiss = import_faiss()
    if _on_gpu():
        resources = faiss.StandardGpuResources()
        scores, rows = faiss.knn_gpu(resources, queries, gallery, count, metric=faiss.METRIC_INNER_PRODUCT)
    else:
        scores, rows = faiss.knn(queries, gallery, count, faiss.METRIC_INNER_PRODUCT)
    return scores, rows


def halves_the_work(rows: int, count: int) -> bool:
    """Whether `nearest_among` is faster than `nearest` for so many rows and neighbours, and its memory suffices."""
    return rows >= 4 * FIRST_ROWS and rows * count * NEIGHBOUR_BYTES <= HELD_BYTES and not _on_gpu()


def nearest_among(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`nearest(rows, rows, count)` with half the products: each block of products serves its rows and its columns.

    `rows` [n, D] is float32 of unit rows, n at least FIRST_ROWS. If several rows have the score of the last place, it
    is not defined which of them are returned, as in faiss.
    """
    first = rows[:FIRST_ROWS]
    best = _Best(
        *(np.concatenate(both) for both in zip(nearest(first, rows, count), _padded(rows, count), strict=True))
    )
    blocks = [slice(start, start + BLOCK_ROWS) for start in range(FIRST_ROWS, len(rows), BLOCK_ROWS)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for number, block in enumerate(blocks):
            for other in blocks[number:]:
                # The matrix product uses every processor. Products are compared by threads, in pieces.
                products = rows[block] @ rows[other].T
                pieces = range(0, len(products), PIECE_ROWS)
                for candidates in pool.map(
                    lambda at, products=products, block=block, other=other: best.better(
                        products[at : at + PIECE_ROWS], block.start + at, other.start, mirrored=other is not block
                    ),
                    pieces,
                ):
                    best.waiting.append(candidates)
                if best.held() > best.scores.size // 2:
                    best.merge(pool)
        best.merge(pool)
    return best.scores, best.neighbours.astype(np.int64)


def _padded(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours of the later rows among the first FIRST_ROWS; NOTHING fills up rows that have fewer than `count`."""
    scores, neighbours = nearest(rows[FIRST_ROWS:], rows[:FIRST_ROWS], min(count, FIRST_ROWS))
    width = ((0, 0), (0, count - scores.shape[1]))
    return np.pad(scores, width, constant_values=NOTHING), np.pad(neighbours, width)


class _Best:
    """The best neighbours of each row so far, and waiting candidates that score higher than the last of them."""

    def __init__(self, scores: np.ndarray, neighbours: np.ndarray) -> None:
        self.scores, self.neighbours = scores, neighbours.astype(np.int32)
        self.last = scores[:, -1].copy()
        self.waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def better(
        self, products: np.ndarray, row: int, column: int, mirrored: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Owners, neighbours and scores of those `products` [b, c] that score higher than an owner's last neighbour.

        `row` and `column` are the numbers of the first row and the first column. If `mirrored`, columns are owners too.
        """
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
        """The number of waiting candidates."""
        return sum(len(owners) for owners, _, _ in self.waiting)

    def merge(self, pool: ThreadPoolExecutor) -> None:
        """Merge the waiting candidates, in as many parts of the rows as there are processors."""
        if not self.held():
            return
        owners, others, scores = (np.concatenate(parts) for parts in zip(*self.waiting, strict=True))
        self.waiting = []
        bounds = np.linspace(owners.min(), owners.max() + 1, len(os.sched_getaffinity(0)) + 1).astype(np.int64)
        parts = [(owners >= low) & (owners < high) for low, high in itertools.pairwise(bounds)]
        list(pool.map(lambda part: self._merge_part(owners[part], others[part], scores[part]), parts))

    def _merge_part(self, owners: np.ndarray, others: np.ndarray, scores: np.ndarray) -> None:
        entering = np.bincount(owners, minlength=len(self.scores))
        rows = np.flatnonzero(entering)
        count = self.scores.shape[1]
        owners = np.concatenate([np.repeat(rows, count), owners])
        others = np.concatenate([self.neighbours[rows].ravel(), others.astype(np.int32)])
        scores = np.concatenate([self.scores[rows].ravel(), scores])
        # One sort for all rows: keys of different rows differ by more than scores can; within a row, the best is first.
        order = np.argsort(APART * owners - scores.astype(np.float64))
        starts = np.cumsum(entering[rows] + count) - entering[rows] - count
        chosen = order[starts[:, None] + np.arange(count)]
        self.scores[rows], self.neighbours[rows] = scores[chosen], others[chosen]
        self.last[rows] = self.scores[rows, -1]


def _on_gpu() -> bool:
    return bool(getattr(import_faiss(), "get_num_gpus", lambda: 0)())
