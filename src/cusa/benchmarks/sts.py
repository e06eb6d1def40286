"""Semantic textual similarity: does the cosine of two sentences agree with a gold score?"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cusa.annotations.sentence_pairs import TASKS
from cusa.annotations.tables import SENTENCE_PAIRS, read_table
from cusa.benchmarks.benchmark import Result
from cusa.config.benchmarks import SentenceSimilarity
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.metrics.correlation import similarity_correlation
from cusa.runs.record import RunFolder

SETTINGS = SentenceSimilarity
ACROSS_MODALITIES = False
PROTOCOL = (
    "{head} of the text side; cosine of each pair of sentences, used as they are, against the gold score; Spearman and "
    "Pearson correlation x 100 over all pairs of a task together. For tasks of several subsets also the mean over "
    "subsets and the mean weighted by their pairs, as SentEval defines them. Pairs without a gold score are left out."
)


def data(provides: frozenset[str], settings: SentenceSimilarity) -> tuple[str, ...]:
    """The data set's own sentence pairs where it has some, and the named ones that are there."""
    return (*(("sentence_pairs",) if "sentence_pairs" in provides else ()), *settings.available())


def evaluate(folder: DatasetFolder, run: RunFolder, settings: SentenceSimilarity) -> Result:
    """Correlations; `{task}/...` for SentEval's tasks and for named pairs."""
    metrics: dict[str, float] = {}
    sizes: dict[str, tuple[int, int]] = {}
    distinct = 0
    places = {"sentence_pairs": folder} if (folder.annotations / SENTENCE_PAIRS).is_file() else {}
    places |= {name: folder.benchmark_data(name) for name in settings.available()}
    for name, place in places.items():
        pairs = read_table(place.annotations, SENTENCE_PAIRS)
        first, second = (pairs[column].to_numpy(zero_copy_only=False) for column in ("first", "second"))
        # Sorted and distinct, as they were embedded.
        texts, where = np.unique(np.concatenate([first, second]), return_inverse=True)
        text = run.embeddings(name, "text_uni", len(texts))
        distinct += len(texts)
        for task, subsets in _tasks(pairs).items():
            prefix = "" if place is folder else f"{task or name}/"
            rows = np.concatenate(list(subsets.values()))
            sizes[prefix.rstrip("/")] = (len(rows), len(np.unique(where[np.r_[rows, rows + len(first)]])))
            scores = pairs["score"].to_numpy()
            scored = {
                subset: similarity_correlation(text[where[members]], text[where[members + len(first)]], scores[members])
                for subset, members in [("", rows), *(subsets.items() if len(subsets) > 1 else ())]
            }
            metrics |= {f"{prefix}{metric}": value for metric, value in scored.pop("").items()}
            if scored:
                weights = [len(subsets[subset]) for subset in scored]
                for metric in ("spearman", "pearson"):
                    values = [each[metric] for each in scored.values()]
                    metrics[f"{prefix}{metric}_mean"] = float(np.mean(values))
                    metrics[f"{prefix}{metric}_weighted_mean"] = float(np.average(values, weights=weights))
    if not sizes:
        raise DataError(
            f"{folder.annotations} has no sentence pairs and none that benchmarks.sts names are there; `cusa datasets` "
            "says where to get them."
        )
    if all(task in sizes for task in TASKS):
        metrics["average/spearman"] = float(np.mean([metrics[f"{task}/spearman"] for task in TASKS]))
    pairs_scored = sum(size[0] for size in sizes.values())
    sizes.pop("", None)
    published = {f"{task}/spearman": ("sts_spearman", task) for task in TASKS}
    published["average/spearman"] = ("sts_spearman", "avg")
    protocol = PROTOCOL.format(head=run.head_used("uni"))
    return Result(metrics, protocol, pairs_scored, distinct, sizes, published_as=published)


def _tasks(pairs: pa.Table) -> dict[str, dict[str, np.ndarray]]:
    """Row numbers by task and subset, both in the order of the table; one nameless task where there are none."""
    if "task" not in pairs.column_names:
        return {"": {"": np.arange(len(pairs))}}
    tasks, subsets = (pairs[column].to_numpy(zero_copy_only=False) for column in ("task", "subset"))
    found: dict[str, dict[str, np.ndarray]] = {}
    for task in dict.fromkeys(tasks):
        mine = tasks == task
        found[task] = {name: np.flatnonzero(mine & (subsets == name)) for name in dict.fromkeys(subsets[mine])}
    return found
