"""Nearest neighbours in mapped embeddings: exact ones, and those of a faiss index with re-ranked candidates."""

from __future__ import annotations

from typing import Any

import numpy as np

from cusa.gallery.store import Vectors
from cusa.index.meta import Kind, SearchSettings
from cusa.metrics.neighbours import import_faiss

# Exact cosines with so many rows take a few milliseconds. An approximate index is not faster, and may miss rows that a
# filter leaves.
EXACT_ROWS = 10_000
MOST_CANDIDATES = 2000  # beyond the results, that are compared by their embeddings
HELD_BYTES = 64 << 20  # of embeddings that are compared at once


def mapping_flag(kind: Kind) -> int:
    """The flag by which faiss.read_index maps an index of this kind, instead of reading it into memory."""
    faiss = import_faiss()
    return int(faiss.IO_FLAG_MMAP_IFC if kind in ("flat", "hnsw") else faiss.IO_FLAG_MMAP)


def lacking(queries: int, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The result if nothing is found: scores -inf, float32 [queries, top], and rows -1, int64 [queries, top]."""
    return np.full((queries, top), -np.inf, dtype=np.float32), np.full((queries, top), -1, dtype=np.int64)


def exact_nearest(vectors: Vectors, rows: np.ndarray, queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The `top` of `rows` (int64 [m]) that are nearest to each of `queries` [n, D], by exact inner products.

    Equal scores are in the order of the rows. Returns float32 [n, top] and int64 [n, top], with -inf and -1 behind m.
    """
    best_scores, best_rows = lacking(len(queries), top)
    step = max(1, HELD_BYTES // (4 * max(vectors.shape[1], len(queries))))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        scores = queries @ vectors[block].T
        scores = np.concatenate([best_scores, scores], axis=1)
        numbers = np.concatenate([best_rows, np.broadcast_to(block, (len(queries), len(block)))], axis=1)
        best_scores, best_rows = best_of(scores, numbers, top)
    return best_scores, best_rows


def best_of(scores: np.ndarray, rows: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The `top` highest scores of each line, best first, and their rows; equal ones by the number of the row."""
    if scores.shape[1] > 4 * top:
        chosen = np.argpartition(-scores, top - 1, axis=1)[:, :top]
        # Rows with the score of the last place may be left out; the ones with the lowest numbers are kept below.
        last = np.take_along_axis(scores, chosen, axis=1).min(axis=1, keepdims=True)
        width = int((scores >= last).sum(axis=1).max())
        if top < width < scores.shape[1]:
            chosen = np.argpartition(-scores, width - 1, axis=1)[:, :width]
        scores, rows = np.take_along_axis(scores, chosen, axis=1), np.take_along_axis(rows, chosen, axis=1)
    order = np.lexsort((rows, -scores), axis=1)[:, :top]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)


def faiss_nearest(
    index: Any,
    settings: SearchSettings,
    vectors: Vectors,
    queries: np.ndarray,
    top: int,
    bits: np.ndarray | None = None,
    share: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """The `top` nearest ids that a faiss index finds for each of `queries` float32 [n, D].

    `bits` are the ids that may be found, packed from the lowest bit on; `share` of the rows are among them, and if
    it is small, more lists or candidates are visited. With `settings.rerank`, the scores are exact cosines with
    `vectors`. Returns float32 [n, top] and int64 [n, top], with -inf and -1 if fewer are found.
    """
    parameters, kept = _parameters(index, settings, top, bits, max(share, 1e-3))
    count = top
    if settings.rerank is not None:  # the factor was measured for ten results; of many, fewer candidates suffice
        count = top + min((settings.rerank - 1) * max(top, 10), MOST_CANDIDATES)
        count = max(count, settings.rerank * 10)
    count = min(index.ntotal, count)
    scores, rows = index.search(queries, count, params=parameters)
    del kept
    if settings.rerank is not None:
        scores, rows = _reranked(vectors, queries, rows, top)
    if count < top:
        width = ((0, 0), (0, top - count))
        scores, rows = np.pad(scores, width), np.pad(rows, width, constant_values=-1)
    scores[rows < 0] = -np.inf
    return scores[:, :top], rows[:, :top]


def _parameters(
    index: Any, settings: SearchSettings, top: int, bits: np.ndarray | None, share: float
) -> tuple[Any, Any]:
    """Search parameters of faiss, and the selector that they point to."""
    faiss = import_faiss()
    selector = None if bits is None else faiss.IDSelectorBitmap(bits)
    chosen = {} if selector is None else {"sel": selector}
    if settings.nprobe is not None:
        lists = index.nlist
        return faiss.SearchParametersIVF(nprobe=min(lists, int(np.ceil(settings.nprobe / share))), **chosen), selector
    if settings.ef_search is not None:
        wanted = int(np.ceil(max(settings.ef_search, 2 * top) / share))
        return faiss.SearchParametersHNSW(efSearch=min(index.ntotal, wanted), **chosen), selector
    return (None if selector is None else faiss.SearchParameters(**chosen)), selector


def _reranked(vectors: Vectors, queries: np.ndarray, rows: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The `top` of the candidates `rows` int64 [n, c] (-1: none) by their exact inner products with `queries`."""
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    step = max(1, HELD_BYTES // (4 * vectors.shape[1] * rows.shape[1]))
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        candidates = vectors[np.maximum(rows[block], 0).ravel()].reshape(*rows[block].shape, -1)
        scores[block] = np.einsum("ncd,nd->nc", candidates, queries[block], optimize=True)
    scores[rows < 0] = -np.inf
    return best_of(scores, rows, min(top, rows.shape[1]))
