"""The queries that one model answers and another does not, for each benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from cusa.benchmarks import outcomes_file
from cusa.benchmarks.outcomes import Correlation, Mean, Statistic, Statistics
from cusa.benchmarks.queries import Items, Queries
from cusa.benchmarks.registry import BENCHMARKS, queries_of
from cusa.config.report import Gallery
from cusa.layout import DatasetFolder
from cusa.report.gallery import GALLERY_SEED, Pictures, nearest_positions
from cusa.runs.record import RunFolder
from cusa.shards.reading import INDEX

EXAMPLES = 4  # of the queries that only one of two models answers
RETRIEVED = 3  # items that are shown for a query and a model
NEAR = 0.1  # a pair's rank by the model is this share of all pairs, or less, from its rank by the gold scores
FOLD = "fold "
FIRST = ("r1", "acc1")  # ends of the names of metrics that count first answers
WAYS = {"i2t_": "images search texts", "t2i_": "texts search images"}


@dataclass(frozen=True)
class RetrievedItem:
    """A picture, as a data URL with its title, or a text, that a model retrieved."""

    text: str
    thumbnail: str | None


@dataclass(frozen=True)
class Example:
    """A query that only the model `answered_by` answers, and what each model retrieves, best first."""

    text: str
    thumbnail: str | None
    answered_by: str
    retrieved: dict[str, list[RetrievedItem]]


@dataclass(frozen=True)
class Disagreement:
    """Counts of the queries that two models answer (each alone, both, neither), with examples that only one answers."""

    title: str
    criterion: str
    models: tuple[str, str]
    only: tuple[int, int]
    both: int
    neither: int
    examples: list[Example]


def disagreements(folder: DatasetFolder, models: Mapping[str, RunFolder], gallery: Gallery) -> list[Disagreement]:
    """The disagreements of the first model with each other one, for each benchmark and way of asking.

    A query is answered if its outcome is 1, in the first metric of which all outcomes are 0 or 1: R@1. Examples are
    drawn with a fixed seed; there are none if the gallery has no queries at all. Raises DataError if the outcomes or
    the tables are damaged.
    """
    if not models:
        return []
    first, *others = models
    compared = [Pair(folder, (first, other), (models[first], models[other])) for other in others]
    wanted = EXAMPLES if gallery.text_queries or gallery.image_queries else 0
    return [each for pair in compared for each in pair.disagreements(wanted)]


class Pair:
    """Two models that are compared."""

    def __init__(self, folder: DatasetFolder, names: tuple[str, str], runs: tuple[RunFolder, RunFolder]) -> None:
        self.folder, self.names, self.runs = folder, names, runs

    def disagreements(self, examples: int) -> Iterator[Disagreement]:
        """One for each benchmark and way of asking."""
        scored = [{path.name for path in (run.folder / "benchmarks").glob("*.queries.npz")} for run in self.runs]
        for file in sorted(scored[0] & scored[1]):
            statistics = [outcomes_file.load(run.folder / "benchmarks" / file) for run in self.runs]
            for name in compared_metrics(statistics[0]):
                one, two = (each.get(name) for each in statistics)
                if isinstance(one, Statistic) and isinstance(two, Statistic) and one.units.equals(two.units):
                    yield self._disagreement(file.removesuffix(".queries.npz"), name, (one, two), examples)

    def _disagreement(
        self, benchmark: str, metric: str, pair: tuple[Statistic, Statistic], wanted: int
    ) -> Disagreement:
        counted = ~(np.isnan(pair[0].values) | np.isnan(pair[1].values))
        one, two = (answered(each) & counted for each in pair)
        alone = (one & ~two, two & ~one)
        return Disagreement(
            title=title_of(benchmark, metric),
            criterion=criterion_of(pair[0], metric),
            models=self.names,
            only=(int(alone[0].sum()), int(alone[1].sum())),
            both=int((one & two).sum()),
            neither=int((counted & ~one & ~two).sum()),
            examples=list(self._examples(benchmark, metric, alone, wanted)) if wanted else [],
        )

    def _examples(
        self, benchmark: str, metric: str, alone: tuple[np.ndarray, np.ndarray], wanted: int
    ) -> Iterator[Example]:
        """Some queries of each model that the other does not answer, if the benchmark lists its queries."""
        known = benchmark in BENCHMARKS.names()  # without those of Python files
        queries = queries_of(benchmark, self.folder, metric) if known else None
        if queries is None or len(queries.items.rows) != len(alone[0]) or not _can_be_shown(queries):
            return
        generator = np.random.default_rng(GALLERY_SEED)
        chosen = [np.sort(generator.permutation(np.flatnonzero(mask))[:wanted]) for mask in alone]
        asked = np.concatenate(chosen)
        shown = _Shown(queries.items)
        retrieved = {
            name: _retrieved(run, queries, asked) for name, run in zip(self.names, self.runs, strict=True) if len(asked)
        }
        for place, query in enumerate(asked.tolist()):
            text, thumbnail = shown.of(query)
            answered_by = self.names[0] if place < len(chosen[0]) else self.names[1]
            yield Example(text, thumbnail, answered_by, {name: each[place] for name, each in retrieved.items() if each})


def compared_metrics(statistics: Statistics) -> list[str]:
    """For each data set and way of asking, the first metric whose outcomes are all 0 or 1, or the first correlation.

    Folds and subsets ask the same queries again, and are left out.
    """
    chosen: dict[tuple[str, str, int], str] = {}
    for name, each in statistics.items():
        prefix, _, metric = name.rpartition("/")
        if not isinstance(each, Statistic) or prefix.rpartition("/")[2].startswith((FOLD, "subset ")):
            continue
        counted = each.values[~np.isnan(each.values)]
        decided = isinstance(each, Mean) and len(counted) > 0 and bool(np.isin(counted, (0.0, 1.0)).all())
        if decided or isinstance(each, Correlation):
            chosen.setdefault((prefix, metric[:4] if metric[:4] in WAYS else "", len(each.values)), name)
    return list(chosen.values())


def answered(statistic: Statistic) -> np.ndarray:
    """Whether each query is answered, bool [n]; for a correlation, whether a pair's rank is near its gold rank."""
    if isinstance(statistic, Correlation):
        distance = np.abs(rankdata(statistic.values) - rankdata(statistic.gold))
        near: np.ndarray = distance <= NEAR * len(statistic.values)
        return near
    right: np.ndarray = statistic.values == 1.0
    return right


def title_of(benchmark: str, metric: str) -> str:
    """The benchmark, the data set and the way of asking, for readers."""
    prefix, _, name = metric.rpartition("/")
    way = WAYS.get(name[:4])
    return ": ".join(filter(None, (" ".join(filter(None, (benchmark, prefix))), way)))


def criterion_of(statistic: Statistic, metric: str) -> str:
    """When a query counts as answered, for readers."""
    if isinstance(statistic, Correlation):
        return f"the rank of a pair is within {NEAR:.0%} of all pairs from its rank by the gold scores"
    name = metric.rpartition("/")[2]
    return f"its first answer is right ({name})" if name.endswith(FIRST) else f"its outcome in {name} is 1"


def _retrieved(run: RunFolder, queries: Queries, asked: np.ndarray) -> list[list[RetrievedItem]]:
    """The items that a model retrieves for each of the queries `asked`; empty without a gallery or its embeddings."""
    gallery = queries.gallery
    if gallery is None or not all(_path(run, items).is_file() for items in (queries.items, gallery)):
        return []
    questions = run.embeddings(queries.items.data, queries.items.array, queries.items.count)[queries.items.rows[asked]]
    embeddings = run.embeddings(gallery.data, gallery.array, gallery.count)
    if len(gallery.rows) < gallery.count:
        embeddings = embeddings[gallery.rows]
    rankings = nearest_positions(questions, embeddings, RETRIEVED + queries.with_itself)
    shown = _Shown(gallery)
    return [
        [RetrievedItem(*shown.of(place)) for place in ranking.tolist() if not (queries.with_itself and place == own)][
            :RETRIEVED
        ]
        for own, ranking in zip(asked.tolist(), rankings, strict=True)
    ]


def _can_be_shown(queries: Queries) -> bool:
    """Whether the pictures of queries and gallery exist: scoring needs only features, so the shards may be gone."""
    pictures = [each for each in (queries.items, queries.gallery) if each is not None and each.texts is None]
    return all((each.folder.shards(each.split) / INDEX).is_file() for each in pictures)


def _path(run: RunFolder, items: Items) -> Path:
    return run.folder / "embeddings" / items.data / f"{items.array}.npy"


class _Shown:
    """The texts, or the titles and thumbnails, of items by their number."""

    def __init__(self, items: Items) -> None:
        self.items = items
        self.pictures = Pictures.of(items.folder, items.split) if items.texts is None else None

    def of(self, number: int) -> tuple[str, str | None]:
        """Text and thumbnail of an item."""
        if self.items.texts is not None:
            return self.items.texts[number], None
        assert self.pictures is not None
        position = int(self.items.rows[number])
        return self.pictures.title(position), self.pictures.thumbnail(position)
