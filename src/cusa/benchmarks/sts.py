"""Semantic textual similarity: does the cosine of two sentences agree with a gold score?"""

from __future__ import annotations

import numpy as np

from cusa.annotations import SENTENCE_PAIRS, read_table
from cusa.benchmarks import Result, Run
from cusa.layout import DatasetFolder
from cusa.metrics import similarity_correlation

DATA = ("sentence_pairs",)
PROTOCOL = (
    "{head} of the text side; cosine of each pair of sentences, used as they are, against the gold score; Spearman and "
    "Pearson correlation x 100 over all pairs."
)


def evaluate(folder: DatasetFolder, run: Run) -> Result:
    """Correlation over the sentence pairs."""
    pairs = read_table(folder.annotations, SENTENCE_PAIRS)
    first, second = (pairs[column].to_numpy(zero_copy_only=False) for column in ("first", "second"))
    # Sorted and distinct, as they were embedded.
    distinct, where = np.unique(np.concatenate([first, second]), return_inverse=True)
    text = run.embeddings("sentence_pairs", "text_uni", len(distinct))
    gold = pairs["score"].to_numpy()
    metrics = similarity_correlation(text[where[: len(first)]], text[where[len(first) :]], gold)
    return Result(metrics, PROTOCOL.format(head=run.head_used("uni")), len(gold), len(distinct))
