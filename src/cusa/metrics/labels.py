"""Retrieval of the same class among labelled items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cusa.metrics.neighbours import halves_the_work, nearest, nearest_among
from cusa.metrics.scores import checked_embeddings, percent, unit_float32


def nearest_label_recall(
    query: np.ndarray,
    query_labels: Sequence[object] | np.ndarray,
    gallery: np.ndarray | None = None,
    gallery_labels: Sequence[object] | np.ndarray | None = None,
    recall_at: Sequence[int] = (1, 2, 4, 8),
) -> dict[str, float]:
    """Nearest-neighbour retrieval of the same label by Euclidean distance of normalised embeddings.

    `query` [n, D] with n labels; without a gallery each query searches all the others. Returns r{k} (some of the k
    nearest has the query's label), rprecision and map_at_r in percent, over the queries whose label occurs in
    their gallery at all, left out where there is none; the others count as misses in r{k}, as in the published
    evaluation.
    """
    return percent(label_found(query, query_labels, gallery, gallery_labels, recall_at))


def label_found(
    query: np.ndarray,
    query_labels: Sequence[object] | np.ndarray,
    gallery: np.ndarray | None = None,
    gallery_labels: Sequence[object] | np.ndarray | None = None,
    recall_at: Sequence[int] = (1, 2, 4, 8),
) -> dict[str, np.ndarray]:
    """What `nearest_label_recall` means over, of each query: float64 from 0 to 1, in the order of the queries.

    The search goes a block of queries at a time: beside the embeddings, memory stays below some 600 MB.
    """
    query_labels, alone = np.asarray(query_labels), gallery is None
    if gallery is None or gallery_labels is None:
        gallery, gallery_labels = query, query_labels
    gallery_labels = np.asarray(gallery_labels)
    unit_query = unit_float32(checked_embeddings("query", query))
    unit_gallery = unit_query if alone else unit_float32(checked_embeddings("gallery", gallery))
    for name, unit, labels in (
        ("query", unit_query, query_labels),
        ("gallery", unit_gallery, gallery_labels),
    ):
        if labels.shape != (len(unit),):
            raise ValueError(f"{name} has {len(unit)} rows and labels of shape {labels.shape}; expected one each")
    known, codes = np.unique(np.concatenate([query_labels, gallery_labels]), return_inverse=True)
    query_codes, gallery_codes = codes[: len(query_labels)], codes[len(query_labels) :]
    relevant = np.bincount(gallery_codes, minlength=len(known))[query_codes] - int(alone)

    # One more for the query itself, and some slack so that ties at the border are seen.
    wanted = min(max(int(relevant.max()), *recall_at) + int(alone) + TIE_SLACK, len(unit_gallery))
    found: dict[str, list[np.ndarray]] = {}
    among = nearest_among(unit_query, wanted) if alone and halves_the_work(len(unit_query), wanted) else None
    step = max(1, NEIGHBOUR_BYTES // (NEIGHBOUR_COST * wanted))
    for start in range(0, len(unit_query), step):
        block = slice(start, start + step)
        if among is None:
            scores, rows = nearest(unit_query[block], unit_gallery, wanted)
        else:
            scores, rows = among[0][block], among[1][block]
        scores = scores.astype(np.float64)
        if alone:
            scores[rows == np.arange(start, start + len(rows))[:, None]] = -np.inf
        right = (gallery_codes[rows] == query_codes[block, None]) & np.isfinite(scores)
        for name, values in _label_outcomes(scores, right, relevant[block], recall_at).items():
            found.setdefault(name, []).append(values)
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: values for name, values in joined.items() if len(values)}


def _label_outcomes(
    scores: np.ndarray, right: np.ndarray, relevant: np.ndarray, recall_at: Sequence[int]
) -> dict[str, np.ndarray]:
    # Stable order by falling score, and wrong answers first where scores are equal.
    order = np.lexsort((right, -scores), axis=1)
    right = np.take_along_axis(right, order, axis=1)
    outcomes: dict[str, np.ndarray] = {}
    for k in recall_at:
        outcomes[f"r{k}"] = np.asarray(right[:, :k].any(axis=1), dtype=np.float64)
    right, relevant = right[relevant > 0], relevant[relevant > 0]
    hits = right & (np.arange(right.shape[1]) < relevant[:, None])
    precision = np.where(hits, np.cumsum(right, axis=1) / np.arange(1, right.shape[1] + 1), 0.0)
    outcomes["rprecision"] = np.asarray(hits.sum(axis=1) / relevant)
    outcomes["map_at_r"] = np.asarray(precision.sum(axis=1) / relevant)
    return outcomes


TIE_SLACK = 8
NEIGHBOUR_BYTES = 128 << 20
NEIGHBOUR_COST = 64  # bytes that scoring takes for one neighbour of one query, all arrays together
