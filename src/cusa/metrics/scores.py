"""Cosine scores: in float32 blocks, and in float64 where two of them are too close for float32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

BLOCK_BYTES = 32 << 20  # of scores that are computed at once
COUNTED_BYTES = 4 << 20  # of scores that one thread counts at once; they stay in the cache
TIE = 1e-12  # cosines that differ by no more are equal; the difference is float64 rounding
USUAL_LENGTHS = (1e-12, 1e12)  # float32 can divide rows of such lengths by their length
TILE = 1024  # rows and columns of a float64 product of matrices
PRODUCT_PAYS = 16  # a product of matrices computes so many pairs in the time that one pair takes by itself


def percent(per_query: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean over queries of each metric, x 100, from outcomes (float64 [n] from 0 to 1).

    NaN stands for a query that has no right answer; the mean leaves it out. The mean of no query is NaN.
    """
    counted = {name: values[~np.isnan(values)] for name, values in per_query.items()}
    return {name: 100 * float(values.mean()) if len(values) else float("nan") for name, values in counted.items()}


class ExactScores:
    """Cosines of chosen pairs in float64, computed block by block.

    `left` [n, D] and `right` [m, D] are checked embeddings.
    """

    def __init__(self, left: np.ndarray, right: np.ndarray) -> None:
        self.left, self.right = left, right
        self.left_norms = row_norms(left)
        self.right_norms = self.left_norms if right is left else row_norms(right)

    def __call__(self, left_rows: np.ndarray, right_rows: np.ndarray) -> np.ndarray:
        """Cosines of rows of `left` with rows of `right`, pair by pair: int64 [n], int64 [n] -> float64 [n].

        Equal pairs of rows may differ by float64 rounding, which is far below TIE.
        """
        if len(left_rows) >= TILE:
            lefts, at_left = np.unique(left_rows, return_inverse=True)
            rights, at_right = np.unique(right_rows, return_inverse=True)
            if len(lefts) * len(rights) <= PRODUCT_PAYS * len(left_rows):
                return self._by_products(lefts, at_left, rights, at_right)
        scores = np.empty(len(left_rows))
        step = max(1, COUNTED_BYTES // (16 * self.left.shape[1]))
        for start in range(0, len(left_rows), step):
            left, right = left_rows[start : start + step], right_rows[start : start + step]
            products = np.einsum("ij,ij->i", self.left[left], self.right[right], dtype=np.float64)
            scores[start : start + step] = products / (self.left_norms[left] * self.right_norms[right])
        return scores

    def matrix(self, left_rows: np.ndarray) -> np.ndarray:
        """Cosines of rows of `left` with every row of `right`: int64 [b] -> float64 [b, m]."""
        scores = np.empty((len(left_rows), len(self.right)))
        left = self._unit_left(left_rows)
        for start in range(0, len(self.right), TILE):
            tile = np.arange(start, min(start + TILE, len(self.right)))
            np.matmul(left, self._unit_right(tile).T, out=scores[:, tile[0] : tile[-1] + 1])
        return scores

    def _by_products(
        self, lefts: np.ndarray, at_left: np.ndarray, rights: np.ndarray, at_right: np.ndarray
    ) -> np.ndarray:
        """The same for pairs that are many of the pairs of `lefts` with `rights`: all pairs, tile by tile."""
        across = -(-len(rights) // TILE)
        tile = at_left // TILE * across + at_right // TILE
        order = np.argsort(tile, kind="stable")
        numbers, starts = np.unique(tile[order], return_index=True)
        scores = np.empty(len(tile))
        for number, pairs in zip(numbers, np.split(order, starts[1:]), strict=True):
            low_left, low_right = number // across * TILE, number % across * TILE
            left = self._unit_left(lefts[low_left : low_left + TILE])
            right = self._unit_right(rights[low_right : low_right + TILE])
            scores[pairs] = (left @ right.T)[at_left[pairs] - low_left, at_right[pairs] - low_right]
        return scores

    def _unit_left(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.left[rows] / self.left_norms[rows, None])

    def _unit_right(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.right[rows] / self.right_norms[rows, None])


def row_norms(rows: np.ndarray) -> np.ndarray:
    """Euclidean length of each row, 1 for a row of zeros: [n, D] -> float64 [n]."""
    lengths = _lengths(rows)
    return np.where(lengths > 0, lengths, 1.0)


def _lengths(rows: np.ndarray) -> np.ndarray:
    """Euclidean length of each row, as far as float64 has its square: [n, D] -> float64 [n]."""
    with np.errstate(over="ignore", under="ignore"):
        lengths: np.ndarray = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return lengths


def rounding_margin(dimension: int) -> float:
    """More than a float32 product of unit vectors of `dimension` values differs from the exact one.

    It is many times the rounding error.
    """
    return 2.0 * float(np.finfo(np.float32).eps) * max(4.0, float(np.sqrt(dimension)))


def rounding_bounds(scores: np.ndarray, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """A lower and an upper bound in float32 of float64 scores [n] between unit vectors of `dimension` values."""
    margin = rounding_margin(dimension)
    return (scores - margin).astype(np.float32), (scores + margin).astype(np.float32)


def unit_float32(rows: np.ndarray, norms: np.ndarray | None = None) -> np.ndarray:
    """Each row divided by its Euclidean length: [n, D] -> float32 [n, D]. A row of zeros stays zero.

    `norms` are the `row_norms` of checked embeddings, where they are known already.
    """
    if norms is None:
        rows = usual_lengths(rows)
        norms = row_norms(rows)
    unit: np.ndarray = rows * (1 / norms).astype(rows.dtype)[:, None]
    return unit.astype(np.float32, copy=False)


def usual_lengths(rows: np.ndarray) -> np.ndarray:
    """Rows [n, D] with very short and very long ones multiplied by a power of two, which changes no cosine.

    The squares of very long rows overflow, and those of very short ones vanish.
    """
    lengths = _lengths(rows)
    odd = np.flatnonzero((lengths < USUAL_LENGTHS[0]) | (lengths > USUAL_LENGTHS[1]))
    if not len(odd):
        return rows
    scaled = np.array(rows)
    _, exponents = np.frexp(np.abs(rows[odd]).max(axis=1))
    scaled[odd] = np.ldexp(rows[odd], -exponents[:, None])
    return scaled


def checked_embeddings(name: str, embeddings: np.ndarray) -> np.ndarray:
    """Embeddings [n, D] as float32 or float64, with rows of usual lengths; `name` is for the message.

    Raises ValueError if they are empty, not of two dimensions or not finite.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.dtype not in (np.float32, np.float64):
        embeddings = embeddings.astype(np.float32)
    if embeddings.ndim != 2 or not embeddings.size:
        raise ValueError(
            f"{name} embeddings have shape {embeddings.shape}; expected [rows, dimensions], at least one of each"
        )
    if not (finite := np.isfinite(embeddings).all(axis=1)).all():
        raise ValueError(
            f"{name} embeddings contain values that are not finite, in {int((~finite).sum()):,} of {len(finite):,} "
            f"rows (the first is row {int(finite.argmin())}); the model has probably diverged"
        )
    return usual_lengths(embeddings)


def check_same_dimension(**embeddings: np.ndarray) -> None:
    """Raise ValueError if two arrays of embeddings, each given by its name, differ in their number of dimensions."""
    (one, first), (other, second) = embeddings.items()
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{one} embeddings have {first.shape[1]} dimensions, {other} embeddings {second.shape[1]}; expected as many"
        )
