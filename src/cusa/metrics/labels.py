"""Retrieval of items of the same label."""

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
    """Nearest-neighbour retrieval of the same label, by Euclidean distance of L2-normalised embeddings.

    `query` [n, D] has n labels, `gallery` [m, D] has m. Without a gallery, each query searches the other queries.
    Returns, in percent: r{k}, the share of queries that have their label among the k nearest; rprecision and map_at_r
    (see `extended_recall`). A query whose label does not occur in its gallery is a miss in r{k}, as in the published
    evaluation, and is left out of rprecision and map_at_r; if all are, these two are not returned. Ties count against
    the model. Raises ValueError if rows and labels differ in number.
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
    unit_query = unit_float32(checked_embeddings("query", query))
    unit_gallery = unit_query if alone else unit_float32(checked_embeddings("gallery", gallery))
    for name, unit, labels in (
        ("query", unit_query, query_labels),
        ("gallery", unit_gallery, gallery_labels),
    ):
        if labels.shape != (len(unit),):
            raise ValueError(
                f"{name} has {len(unit)} rows and labels of shape {labels.shape}; expected one label a row"
            )
    known, codes = np.unique(np.concatenate([query_labels, gallery_labels]), return_inverse=True)
    query_codes, gallery_codes = codes[: len(query_labels)], codes[len(query_labels) :]
    relevant = np.bincount(gallery_codes, minlength=len(known))[query_codes] - int(alone)

    # One more for the query itself, and TIE_SLACK more so that ties at the last place are seen.
    wanted = min(max(int(relevant.max()), *recall_at) + int(alone) + TIE_SLACK, len(unit_gallery))
    blocks: dict[str, list[np.ndarray]] = {}
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
            blocks.setdefault(name, []).append(values)
    outcomes = {name: np.concatenate(parts) for name, parts in blocks.items()}
    return {name: values for name, values in outcomes.items() if not np.isnan(values).all()}


def _label_outcomes(
    scores: np.ndarray, right: np.ndarray, relevant: np.ndarray, recall_at: Sequence[int]
) -> dict[str, np.ndarray]:
    """Outcomes of a block of queries from the `scores` of their neighbours, bool `right`, both [b, count].

    `relevant` [b] is the number of right answers in the gallery.
    """
    # By falling score; wrong answers come first among equal scores.
    order = np.lexsort((right, -scores), axis=1)
    right = np.take_along_axis(right, order, axis=1)
    outcomes: dict[str, np.ndarray] = {}
    for k in recall_at:
        outcomes[f"r{k}"] = np.asarray(right[:, :k].any(axis=1), dtype=np.float64)
    scored = relevant > 0
    right, relevant = right[scored], relevant[scored]
    hits = right & (np.arange(right.shape[1]) < relevant[:, None])
    precision = np.where(hits, np.cumsum(right, axis=1) / np.arange(1, right.shape[1] + 1), 0.0)
    for name, values in {"rprecision": hits.sum(axis=1), "map_at_r": precision.sum(axis=1)}.items():
        outcomes[name] = np.full(len(scored), np.nan)
        outcomes[name][scored] = values / relevant
    return outcomes


TIE_SLACK = 8
NEIGHBOUR_BYTES = 128 << 20
NEIGHBOUR_COST = 64  # bytes of all arrays together that scoring needs for one neighbour of one query
