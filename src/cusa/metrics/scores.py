"""Cosine scores: in float32 blocks, and in float64 where two of them are too close for float32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

BLOCK_BYTES = 32 << 20  # of scores that are computed at once
COUNTED_BYTES = 4 << 20  # of scores that one thread counts at once; they stay in the cache


def percent(per_query: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean over queries of each metric, x 100, from outcomes (float64 [n] from 0 to 1).

    NaN stands for a query that has no right answer; the mean leaves it out.
    """
    return {name: 100 * float(values[~np.isnan(values)].mean()) for name, values in per_query.items()}


class ExactScores:
    """Cosines of chosen pairs in float64, computed block by block.

    `left` [n, D] and `right` [m, D] are embeddings of any length.
    """

    def __init__(self, left: np.ndarray, right: np.ndarray) -> None:
        self.left, self.right = left, right
        self.left_norms, self.right_norms = row_norms(left), row_norms(right)

    def __call__(self, left_rows: np.ndarray, right_rows: np.ndarray) -> np.ndarray:
        """Cosines of rows of `left` with rows of `right`, pair by pair: int64 [n], int64 [n] -> float64 [n]."""
        scores = np.empty(len(left_rows))
        step = max(1, COUNTED_BYTES // (16 * self.left.shape[1]))
        for start in range(0, len(left_rows), step):
            left, right = left_rows[start : start + step], right_rows[start : start + step]
            products = np.einsum("ij,ij->i", self.left[left], self.right[right], dtype=np.float64)
            scores[start : start + step] = products / (self.left_norms[left] * self.right_norms[right])
        return scores


def row_norms(rows: np.ndarray) -> np.ndarray:
    """Euclidean length of each row, at least 1e-12: [n, D] -> float64 [n]."""
    norms: np.ndarray = np.maximum(np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64)), 1e-12)
    return norms


def rounding_bounds(scores: np.ndarray, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """A lower and an upper bound in float32 of float64 scores [n] between unit vectors of `dimension` values.

    The margin is many times the rounding error of a float32 product of such vectors.
    """
    margin = 2.0 * float(np.finfo(np.float32).eps) * max(4.0, float(np.sqrt(dimension)))
    return (scores - margin).astype(np.float32), (scores + margin).astype(np.float32)


def unit_float32(rows: np.ndarray) -> np.ndarray:
    """Each row divided by its Euclidean length: [n, D] -> float32 [n, D]."""
    unit: np.ndarray = rows * (1 / row_norms(rows)).astype(rows.dtype)[:, None]
    return unit.astype(np.float32, copy=False)


def checked_embeddings(name: str, embeddings: np.ndarray) -> np.ndarray:
    """Embeddings [n, D] as float32 or float64; `name` is for the message.

    Raises ValueError if they are empty, not of two dimensions or not finite.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.dtype not in (np.float32, np.float64):
        embeddings = embeddings.astype(np.float32)
    if embeddings.ndim != 2 or not len(embeddings):
        raise ValueError(f"{name} embeddings have shape {embeddings.shape}; expected [rows, dimensions]")
    if not np.isfinite(embeddings).all():
        raise ValueError(f"{name} embeddings contain values that are not finite; the model has probably diverged")
    return embeddings
