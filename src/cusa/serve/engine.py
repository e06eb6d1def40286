"""One version of an index, with the model that answers its queries; many queries are answered together.

An engine never changes. When its index is rebuilt, another engine takes its place. Requests that have begun finish on
the old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cusa.errors import ConfigurationError
from cusa.search.filters import OWN_COLUMNS, rows_where
from cusa.search.query import Query
from cusa.search.searcher import Searcher
from cusa.serve.ranking import answer_ranks
from cusa.serve.right_answers import RightAnswers

KEPT_FILTERS = 64
MOST_CHOICES = 200  # values of a column that a reader can choose from
EXAMPLES = 12
ON_THE_DISK = ("path", "offset", "size")  # columns with the path of a picture on the disk, which clients must not see
# Up to this number of rows, results include the ranks of right answers; for more rows, a client asks for the ranks.
RANKED_WITH_RESULTS = 5_000

Where = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, eq=False)
class Question:
    """One query as the queue of a model holds it. `top` 0 asks for its vector and right answers alone."""

    query: Query
    top: int
    where: Where = ()


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The rows that a search returns, int64 [k], best first, their scores, float32 [k], and their table columns.

    `total` is the number of rows that pass the filters. `right` has the rows of the right answers, None if the data do
    not know them, and `ranks` the rank of each, None if they were not computed. `vector` is that of the query, and
    `unknown_texts` are its texts that the model does not know.
    """

    engine: Engine
    rows: np.ndarray
    scores: np.ndarray | None
    total: int
    vector: np.ndarray | None = None
    right: np.ndarray | None = None
    ranks: np.ndarray | None = None
    items: list[dict[str, Any]] = field(default_factory=list)
    unknown_texts: Sequence[str] = ()

    def ranked(self) -> SearchResult:
        """The same with the ranks of the right answers, which takes a pass over all vectors."""
        if self.right is None or self.vector is None or self.ranks is not None:
            return self
        right, ranks = answer_ranks(self.engine.index, self.vector, self.right)
        return replace(self, right=right, ranks=ranks)


class Engine:
    """An open index, its model, its items, and the captions that it knows."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher, self.index, self.model = searcher, searcher.index, searcher.model
        self.rows, self.fingerprint = self.index.rows, self.index.fingerprint
        self.items: pa.Table = self.index.items
        self.groups = self.index.groups
        duplicates = self.index.duplicates
        self._near = frozenset(duplicates["row"].filter(pc.equal(duplicates["kind"], "near")).to_pylist())
        self.right_answers = RightAnswers(self.items["captions"])
        self.choices = _choices(self.items)
        self.examples = _examples(self.items["captions"])
        # Width and height of the pictures that were measured; 0 for the others.
        self.sizes = np.zeros((self.rows, 2), np.int32)
        self._shown = [name for name in self.items.column_names if name not in ON_THE_DISK]
        self.allowed = lru_cache(KEPT_FILTERS)(self._allowed)

    def answer(self, questions: Sequence[Question]) -> list[SearchResult]:
        """The answers to questions of many clients. Texts and pictures of all of them are encoded together."""
        queries = [question.query for question in questions]
        vectors, unknown = self.searcher.query_vectors(queries), self.searcher.unknown_texts(queries)
        groups: dict[Where, list[int]] = {}
        for place, question in enumerate(questions):
            if question.top:
                groups.setdefault(question.where, []).append(place)
        best = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(questions)
        for where, places in groups.items():
            # One more if a query names a row, because that row is left out.
            top = max(questions[place].top + (questions[place].query.like is not None) for place in places)
            scores, rows = self.index.nearest(vectors[places], min(top, self.rows), self.allowed(where)[0])
            for n, place in enumerate(places):
                best[place] = _wanted(questions[place], rows[n], scores[n])
        items = iter(self.described(np.concatenate([rows for rows, _ in best])))
        return [
            replace(self._result(question, vector, rows, scores, [next(items) for _ in rows]), unknown_texts=texts)
            for question, vector, (rows, scores), texts in zip(questions, vectors, best, unknown, strict=True)
        ]

    def first(self, top: int, where: Where) -> SearchResult:
        """The first rows that pass the filters, without a query."""
        mask, total = self.allowed(where)
        rows = np.arange(min(top, self.rows)) if mask is None else np.flatnonzero(mask)[:top]
        return SearchResult(self, rows, None, total, items=self.described(rows))

    def one(self, row: int) -> SearchResult:
        """One row."""
        rows = np.array([row])
        return SearchResult(self, rows, None, self.rows, items=self.described(rows))

    def described(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """The columns of some rows, without the paths of their pictures on the disk."""
        taken: list[dict[str, Any]] = self.items.select(self._shown).take(pa.array(rows, pa.int64())).to_pylist()
        return taken

    def row_of(self, item: str) -> int | None:
        """The row of an item; None if the index does not have it."""
        row: int = pc.index(self.items["item"], item).as_py()
        return None if row < 0 else row

    def kind(self, row: int, other: int) -> str:
        """`same` if two rows of one group are the same picture, `near` if they are near-duplicates."""
        return "near" if row in self._near or other in self._near else "same"

    def _result(
        self, question: Question, vector: np.ndarray, rows: np.ndarray, scores: np.ndarray, items: list[dict[str, Any]]
    ) -> SearchResult:
        total = self.allowed(question.where)[1]
        result = SearchResult(self, rows, scores, total, vector, self._right(question.query), None, items)
        return result.ranked() if question.top and self.rows <= RANKED_WITH_RESULTS else result

    def _right(self, query: Query) -> np.ndarray | None:
        """The rows of the right answers to a query; None if the data know none, or it is more than a text."""
        if query.text is None or query.image is not None or query.like is not None or query.exclude:
            return None
        rows = self.right_answers.rows(query.text)
        return rows if len(rows) else None

    def _allowed(self, where: Where) -> tuple[np.ndarray | None, int]:
        """The rows that pass the filters (None: all) and their number. Raises ConfigurationError for a wrong filter."""
        if not where:
            return None, self.rows
        if hidden := [name for name, _ in where if name in OWN_COLUMNS]:
            raise ConfigurationError(f"The column {hidden[0]!r} is not there to filter by.")
        mask = rows_where(self.items, {name: list(values) for name, values in where})
        return mask, int(mask.sum())


def _wanted(question: Question, rows: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best of one question: rows that exist, without the one that it names."""
    keep = rows >= 0
    if question.query.like is not None:
        keep &= rows != question.query.like
    kept = np.flatnonzero(keep)[: question.top]
    return rows[kept], scores[kept]


def _choices(items: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """The values of each column with few different ones, most frequent first, and how often they occur."""
    choices = {}
    for name in items.column_names:
        column = items[name]
        if name in OWN_COLUMNS or pa.types.is_nested(column.type):
            continue
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        counts = [pair for pair in pc.value_counts(column).to_pylist() if pair["values"] is not None]
        if 1 < len(counts) <= min(MOST_CHOICES, items.num_rows - 1):
            counts.sort(key=lambda pair: (-pair["counts"], str(pair["values"])))
            choices[name] = [{"value": _as_text(pair["values"]), "count": pair["counts"]} for pair in counts]
    return choices


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _examples(captions: pa.ChunkedArray) -> list[str]:
    """Captions of rows that are evenly spread, the shortest first: they make good first queries."""
    places = np.unique(np.linspace(0, max(0, len(captions) - 1), min(len(captions), 4 * EXAMPLES)).astype(np.int64))
    texts = {cell[0] for cell in captions.take(pa.array(places)).to_pylist() if cell}
    return sorted(texts, key=lambda text: (len(text), text))[:EXAMPLES]
