"""Semantic textual similarity: the correlation of the cosine of two sentences with a gold score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from cusa.annotations.sentence_pairs import TASKS
from cusa.annotations.tables import SENTENCE_PAIRS, read_table
from cusa.benchmarks.benchmark import Result
from cusa.benchmarks.outcomes import Combination, Pearson, Spearman, Statistic, Units
from cusa.benchmarks.queries import Items, Queries
from cusa.config.benchmarks import SentenceSimilarity
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.metrics.correlation import correlations, pair_cosines
from cusa.runs.record import RunFolder

SETTINGS = SentenceSimilarity
ACROSS_MODALITIES = False
PROTOCOL = (
    "{head} of the text side; cosine of each pair of sentences, used as they are, against the gold score; Spearman and "
    "Pearson correlation x 100 over all pairs of a task together. For tasks of several subsets also the mean over "
    "subsets and the mean weighted by their pairs, as SentEval defines them. Pairs without a gold score are left out."
)


def data(provides: frozenset[str], settings: SentenceSimilarity) -> tuple[str, ...]:
    """The data set's own sentence pairs, if it has any, and the named ones that exist."""
    return (*(("sentence_pairs",) if "sentence_pairs" in provides else ()), *settings.available())


def queries(folder: DatasetFolder, metric: str) -> Queries | None:
    """The pairs of sentences of the data set's own table; there are none for other tasks."""
    if "/" in metric:
        return None
    pairs = read_table(folder.annotations, SENTENCE_PAIRS)
    (subsets,) = _tasks(pairs).values()
    rows = np.concatenate(list(subsets.values()))
    first, second = (pairs[column].to_pylist() for column in ("first", "second"))
    texts = [f"{first[row]} \N{EN DASH} {second[row]}" for row in rows]
    return Queries(Items(folder, "sentence_pairs", "", "text_uni", len(texts), rows, texts), None)


def evaluate(folder: DatasetFolder, run: RunFolder, settings: SentenceSimilarity) -> Result:
    """Correlations; those of SentEval's tasks and of named pairs are called `{task}/...`.

    Raises DataError if there are no sentence pairs, or embeddings are missing.
    """
    scores = _Scores()
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
            gold = pairs["score"].to_numpy()
            if not (finite := np.isfinite(gold)).all():
                raise DataError(
                    f"{place.annotations / SENTENCE_PAIRS}: the score of {int((~finite).sum()):,} of {len(gold):,} "
                    f"pairs is not a finite number, for instance in row {int(finite.argmin())}. Mend the file that it "
                    "was made of, then delete this one."
                )
            cosine = pair_cosines(text[where[rows]], text[where[rows + len(first)]])
            scores.add(prefix, cosine, gold[rows], list(map(len, subsets.values())))
    if not sizes:
        raise DataError(
            f"{folder.annotations} has no sentence pairs, and none of those that benchmarks.sts names exist; "
            "`cusa datasets` says where to get them."
        )
    if all(task in sizes for task in TASKS):
        averaged = [f"{task}/spearman" for task in TASKS]
        scores.metrics["average/spearman"] = float(np.mean([scores.metrics[name] for name in averaged]))
        scores.statistics["average/spearman"] = Combination.mean(averaged)
    pairs_scored = sum(size[0] for size in sizes.values())
    sizes.pop("", None)
    published = {f"{task}/spearman": ("sts_spearman", task) for task in TASKS}
    published["average/spearman"] = ("sts_spearman", "avg")
    return Result(
        metrics=scores.metrics,
        protocol=PROTOCOL.format(head=run.head_used("uni")),
        n_queries=pairs_scored,
        n_gallery=distinct,
        sizes=sizes,
        statistics=scores.statistics,
        published_as=published,
    )


class _Scores:
    """Metrics and statistics of tasks."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.statistics: dict[str, Statistic | Combination] = {}

    def add(self, prefix: str, cosine: np.ndarray, gold: np.ndarray, sizes: Sequence[int]) -> None:
        """Score one task, whose metrics are called `{prefix}{metric}`.

        `cosine` and `gold` [n] are the pairs' scores, subset by subset; `sizes` are the subsets' numbers of pairs.
        """
        self.metrics |= {f"{prefix}{metric}": value for metric, value in correlations(cosine, gold).items()}
        self._describe(prefix, cosine, gold)
        if len(sizes) == 1:
            return
        ends = np.cumsum(sizes)
        parts = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        of_subsets = [correlations(cosine[part], gold[part]) for part in parts]
        for number, part in enumerate(parts, start=1):
            self._describe(f"{prefix}subset {number}/", cosine[part], gold[part])
        for metric in ("spearman", "pearson"):
            values = [each[metric] for each in of_subsets]
            self.metrics[f"{prefix}{metric}_mean"] = float(np.mean(values))
            self.metrics[f"{prefix}{metric}_weighted_mean"] = float(np.average(values, weights=sizes))
            names = [f"{prefix}subset {number}/{metric}" for number in range(1, len(parts) + 1)]
            weights = [size / sum(sizes) for size in sizes]
            self.statistics[f"{prefix}{metric}_mean"] = Combination.mean(names)
            self.statistics[f"{prefix}{metric}_weighted_mean"] = Combination(dict(zip(names, weights, strict=True)))

    def _describe(self, prefix: str, cosine: np.ndarray, gold: np.ndarray) -> None:
        """Add the statistics of one set of pairs; each pair is a unit."""
        units = Units.of_each_query(prefix or "sentence pairs", len(cosine))
        self.statistics[f"{prefix}spearman"] = Spearman(units, cosine, gold)
        self.statistics[f"{prefix}pearson"] = Pearson(units, cosine, gold)


def _tasks(pairs: pa.Table) -> dict[str, dict[str, np.ndarray]]:
    """Row numbers, int64, by task and subset, both in the order of the table.

    A table without tasks has one task and one subset, both called "".
    """
    if "task" not in pairs.column_names:
        return {"": {"": np.arange(len(pairs))}}
    tasks, subsets = (pairs[column].to_numpy(zero_copy_only=False) for column in ("task", "subset"))
    rows: dict[str, dict[str, np.ndarray]] = {}
    for task in dict.fromkeys(tasks):
        mine = tasks == task
        rows[task] = {name: np.flatnonzero(mine & (subsets == name)) for name in dict.fromkeys(subsets[mine])}
    return rows
