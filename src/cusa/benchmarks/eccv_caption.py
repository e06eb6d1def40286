"""Retrieval with extended positives, scored like ECCV Caption (Chun et al., ECCV 2022): every right answer counts."""

from __future__ import annotations

import numpy as np

from cusa.annotations import EXTENDED_POSITIVES, IMAGES, read_table, split_rows
from cusa.benchmarks import Result, Run
from cusa.layout import DatasetFolder
from cusa.metrics import extended_recall

DATA = ("test", "extended_positives")
PROTOCOL = (
    "{head}; queries are the distinct captions of extended_positives.parquet and the test images that have any, right "
    "answers all that the table lists. R@1, R-Precision and mAP@R. Ties count against the model."
)


def evaluate(folder: DatasetFolder, run: Run) -> Result:
    """Recall over a many-to-many ground truth."""
    table = read_table(folder.annotations, EXTENDED_POSITIVES)
    image_rows = split_rows(read_table(folder.annotations, IMAGES, ["split"]), "test")
    # Sorted and distinct, as they were embedded.
    texts, text_of_pair = np.unique(table["cleaned"].to_numpy(zero_copy_only=False), return_inverse=True)
    image = run.embeddings("test", "image_cross", len(image_rows))
    text = run.embeddings("extended_positives", "text_cross", len(texts))
    positives = np.stack([table["image"].to_numpy() - image_rows[0], text_of_pair], axis=1)
    metrics = extended_recall(image, text, positives)
    return Result(metrics, PROTOCOL.format(head=run.head_used("cross")), len(text), len(image))
