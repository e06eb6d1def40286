"""Retrieval scored on the user's own judgements, as ECCV Caption scores it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cusa.annotations.tables import JUDGED_PAIRS, SplitTables, distinct_texts, read_table
from cusa.benchmarks.benchmark import Result
from cusa.benchmarks.outcomes import both_ways
from cusa.layout import DatasetFolder
from cusa.metrics.precision import extended_outcomes
from cusa.metrics.recall import with_slashes
from cusa.metrics.scores import percent
from cusa.runs.record import RunFolder

PROTOCOL = (
    "{head}; queries are the captions and the test images that judged_pairs.parquet names; right answers are those "
    "that it calls right, and an image's own captions unless it calls them wrong. Captions search all test images, "
    "images all distinct captions of the test split and of the table. R@{at}, R-Precision and mAP@R. Ties count "
    "against the model."
)


def score_judgements(folder: DatasetFolder, run: RunFolder, recall_at: Sequence[int] = (1,)) -> Result:
    """R@K of `recall_at`, R-Precision and mAP@R on judged_pairs.parquet. Raises DataError if embeddings are missing."""
    tables = SplitTables.open(folder, "test", captions=["cleaned"])
    judged = read_table(folder.annotations, JUDGED_PAIRS)
    image = run.embeddings("test", "image_cross", len(tables.image_rows))
    own = run.embeddings("test", "text_cross", len(tables.caption_rows))
    others = distinct_texts(folder, "judged_pairs")
    of_table = run.embeddings("judged_pairs", "text_cross", len(others))
    # Captions that are equal after the clean-up are one text; that of the test split stands first.
    captions = tables.captions["cleaned"].to_numpy(zero_copy_only=False)
    _, first, text_of = np.unique(np.concatenate([captions, others]), return_index=True, return_inverse=True)
    text = np.concatenate([own, of_table])[first]

    image_of_pair = tables.image_positions(judged["image"].to_numpy())
    cleaned = judged["cleaned"].to_numpy(zero_copy_only=False)
    text_of_pair = text_of[len(captions) + np.searchsorted(np.array(others, dtype=object), cleaned)]
    is_right = judged["right"].to_numpy(zero_copy_only=False)
    pairs = np.stack([image_of_pair, text_of_pair], axis=1)
    listed = np.stack([tables.image_of_caption, text_of[: len(captions)]], axis=1)
    right = _without(np.unique(np.concatenate([listed, pairs[is_right]]), axis=0), pairs[~is_right])
    per_query = extended_outcomes(
        image,
        text,
        right[np.isin(right[:, 0], image_of_pair)],
        right[np.isin(right[:, 1], text_of_pair)],
        recall_at,
    )
    # A text may be of several images; it is drawn with the first of them, and one of the table alone with its first.
    of_text = np.empty(len(text), dtype=np.int64)
    for places in (pairs, listed):
        of_text[places[::-1, 1]] = places[::-1, 0]
    return Result(
        metrics=percent(per_query),
        protocol=PROTOCOL.format(head=run.head_used("cross"), at=with_slashes(recall_at)),
        n_queries=len(np.unique(text_of_pair)),
        n_gallery=len(image),
        statistics=both_ways(per_query, of_text, len(image)),
    )


def _without(pairs: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The pairs int64 [p, 2] that are none of `others` int64 [q, 2]."""
    width = 1 + max(int(part[:, 1].max(initial=0)) for part in (pairs, others))
    keys, left_out = (part[:, 0] * width + part[:, 1] for part in (pairs, others))
    kept: np.ndarray = pairs[~np.isin(keys, left_out)]
    return kept
