"""Stores values that several pairs share once, with each pair's row number."""

from __future__ import annotations

import numpy as np
from torch import Tensor

# The result of `distinct_rows`.
DistinctRows = tuple[np.ndarray, np.ndarray | None]


def distinct_rows(keys: np.ndarray) -> DistinctRows:
    """The positions of each distinct key's first occurrence, int64 [n], and each key's number among them, int64 [B].

    `keys` is [B], or [B, k] with keys of k numbers. Distinct keys stay in the order of their first occurrence. If all
    keys differ, the numbers are None.
    """
    axis = 0 if keys.ndim > 1 else None  # numpy converts rows to records, which takes time
    _, first, inverse = np.unique(keys, axis=axis, return_index=True, return_inverse=True)
    if len(first) == len(keys):
        return np.arange(len(keys)), None
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return first[order], number[inverse.reshape(-1)]


def of_pairs(rows: Tensor, row_of_pair: Tensor | None) -> Tensor:
    """The row of each pair, [B, ...], of rows [n, ...] that pairs share; None for `row_of_pair` is a row for each pair.

    A row's gradient is the sum of its pairs' gradients, in the order of the pairs on a CPU.
    """
    return rows if row_of_pair is None else rows.index_select(0, row_of_pair)
