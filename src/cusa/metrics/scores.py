"""Cosine scores: in float32 blocks, and in float64 if two of them are too close for float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

BLOCK_BYTES = 32 << 20  # of scores that are computed at once
COUNTED_BYTES = 4 << 20  # of scores that one thread counts at once; they stay in the cache
CACHED_BYTES = 2 << 20  # of rows that are copied to float64 at once
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


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings that are checked, and what every metric needs of them; `checked_embeddings` makes them.

    `rows` [n, D] are float32 or float64; their squares are numbers that float64 holds. `norms` float64 [n] are their
    Euclidean lengths, 1 for a row of zeros.
    """

    rows: np.ndarray
    norms: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dimension(self) -> int:
        """D, the number of values of a row."""
        return int(self.rows.shape[1])

    @cached_property
    def unit(self) -> np.ndarray:
        """The rows with length 1, float32 [n, D]; a row of zeros stays zero. Computed once."""
        return _divided(self.rows, self.norms)


class ExactScores:
    """Cosines of chosen pairs of `left` and `right` embeddings in float64, computed block by block."""

    def __init__(self, left: Embeddings, right: Embeddings) -> None:
        self.left, self.left_norms = left.rows, left.norms
        self.right, self.right_norms = right.rows, right.norms

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


def _at_least_one_value(lengths: np.ndarray) -> np.ndarray:
    """The lengths [n] by which rows are divided: 1 for a row of zeros."""
    return np.where(lengths > 0, lengths, 1.0)


def _lengths(rows: np.ndarray) -> np.ndarray:
    """Euclidean length of each row, as far as float64 has its square: [n, D] -> float64 [n].

    It is not finite if the row is not, or if its square overflows.
    """
    squares = np.empty(len(rows))
    # Blocks in float64 that stay in the cache are three times faster than a sum in float64 of float32 rows.
    block = np.empty((max(1, min(len(rows), CACHED_BYTES // (8 * rows.shape[1]))), rows.shape[1]))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for start in range(0, len(rows), len(block)):
            part = block[: len(rows) - start]
            np.copyto(part, rows[start : start + len(block)])
            np.vecdot(part, part, out=squares[start : start + len(block)])
        lengths: np.ndarray = np.sqrt(squares)
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


def unit_float32(rows: np.ndarray) -> np.ndarray:
    """Each row divided by its Euclidean length: [n, D] -> float32 [n, D]. A row of zeros stays zero."""
    return _divided(*_usual(rows, _lengths(rows)))


def unit_float64(rows: np.ndarray) -> np.ndarray:
    """Each row divided by its Euclidean length: [n, D] -> float64 [n, D]. A row of zeros stays zero."""
    rows = rows.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def _divided(rows: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Each row [n, D] divided by its norm [n], float32 [n, D]."""
    unit: np.ndarray = rows * (1 / norms).astype(rows.dtype)[:, None]
    return unit.astype(np.float32, copy=False)


def _usual(rows: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [n, D] of usual lengths and their norms, from rows that have these `_lengths` [n].

    Very short and very long rows are multiplied by a power of two, which changes no cosine: the squares of very long
    rows overflow, and those of very short ones vanish.
    """
    odd = np.flatnonzero((lengths < USUAL_LENGTHS[0]) | (lengths > USUAL_LENGTHS[1]))
    if not len(odd):
        return rows, _at_least_one_value(lengths)
    scaled, lengths = np.array(rows), np.array(lengths)
    _, exponents = np.frexp(np.abs(rows[odd]).max(axis=1))
    scaled[odd] = np.ldexp(rows[odd], -exponents[:, None])
    lengths[odd] = _lengths(scaled[odd])
    return scaled, _at_least_one_value(lengths)


def checked_embeddings(name: str, embeddings: np.ndarray | Embeddings) -> Embeddings:
    """Checked embeddings from an array [n, D]; those that are checked already stay. `name` is for the message.

    Raises ValueError if they are empty, not of two dimensions or not finite.
    """
    if isinstance(embeddings, Embeddings):
        return embeddings
    embeddings = np.asarray(embeddings)
    if embeddings.dtype not in (np.float32, np.float64):
        embeddings = embeddings.astype(np.float32)
    if embeddings.ndim != 2 or not embeddings.size:
        raise ValueError(
            f"{name} embeddings have shape {embeddings.shape}; expected [rows, dimensions], at least one of each"
        )
    lengths = _lengths(embeddings)
    odd = np.flatnonzero(~np.isfinite(lengths))  # every row that is not finite, and finite ones that are very long
    if len(wrong := odd[~np.isfinite(embeddings[odd]).all(axis=1)]):
        raise ValueError(
            f"{name} embeddings contain values that are not finite, in {len(wrong):,} of {len(embeddings):,} "
            f"rows (the first is row {int(wrong[0])}); the model has probably diverged"
        )
    return Embeddings(*_usual(embeddings, lengths))


def check_same_dimension(**embeddings: Embeddings) -> None:
    """Raise ValueError if two kinds of embeddings, each given by its name, differ in their number of dimensions."""
    (one, first), (other, second) = embeddings.items()
    if first.dimension != second.dimension:
        raise ValueError(
            f"{one} embeddings have {first.dimension} dimensions, {other} embeddings {second.dimension}; "
            "expected as many"
        )
