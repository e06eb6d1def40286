"""Searching an index with texts, pictures, and rows of the index itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from cusa.errors import ConfigurationError, DataError
from cusa.gallery.items import FIELDS
from cusa.index.folder import SearchIndex
from cusa.model.interface import checked_head
from cusa.search.query import Query

if TYPE_CHECKING:
    from cusa.common.compute import Precision
    from cusa.model.interface import RetrievalModel
    from cusa.search.filters import Where

TOP = 10
GROWTH = 4  # factor by which more neighbours are requested if too many were left out


@dataclass(frozen=True)
class Hit:
    """An item that was found.

    `score` is its cosine with the query, from -1 to 1; an index that compresses vectors gives it approximately.
    `path` is the file that holds its picture, absolute: `size` bytes from `offset` on; all of it if these are None.
    `duplicate_of` is the row of a better hit that is the same picture, or nearly; None if there is none. `columns`
    has the values of the columns that came from the user's data.
    """

    row: int
    item: str
    score: float
    captions: tuple[str, ...] = ()
    path: str | None = None
    offset: int | None = None
    size: int | None = None
    duplicate_of: int | None = None
    columns: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The hit as a mapping that JSON can hold; dates and times are in the format of ISO 8601."""
        plain = {name: _plain(value) for name, value in self.columns.items()}
        return asdict(self) | {"captions": list(self.captions), "columns": plain}


class Searcher:
    """Answers queries from one index. Safe to use from several threads.

    The model is loaded for the first query that needs it; a query that only names rows of the index does not.
    """

    def __init__(self, index: SearchIndex, load_model: Callable[[], RetrievalModel]) -> None:
        self.index, self._load_model = index, load_model
        self._model: RetrievalModel | None = None
        self._lock = Lock()

    @classmethod
    def open(
        cls,
        folder: str | Path,
        model: str | Path | RetrievalModel | None = None,
        device: str | None = None,
        precision: Precision | None = None,
    ) -> Searcher:
        """The searcher of an INDEX folder, which `cusa index` wrote.

        `model` is a run folder, an exported folder, or a model that is loaded already; None takes the one that the
        index names. Its weights must be those that embedded the gallery. Raises DataError if the index is missing or
        damaged.
        """
        index = SearchIndex.open(folder)
        if model is not None and not isinstance(model, str | Path):
            loaded = model
            return cls(index, lambda: loaded)
        named = index.model if model is None else Path(model)

        def load_model() -> RetrievalModel:
            import cusa

            if model is None and not named.is_dir():
                raise DataError(
                    f"{folder}: the index names the model {named}, which does not exist; give the folder of the same "
                    "model with --model."
                )
            return cusa.load(named, device, precision)

        return cls(index, load_model)

    @property
    def model(self) -> RetrievalModel:
        """The model that embeds queries, loaded at the first call.

        Raises ConfigurationError if its weights are not those that embedded the gallery.
        """
        with self._lock:
            if self._model is None:
                model = self._load_model()
                if model.weights_sha256 != self.index.model_sha256:
                    raise ConfigurationError(
                        f"The model {model.folder} has the weights {model.weights_sha256[:12]}, but the items of "
                        f"{self.index.folder} were embedded by the weights {self.index.model_sha256[:12]}; embeddings "
                        f"of different models cannot be compared. Search with {self.index.model} or an export of it, "
                        "or run `cusa embed` and `cusa index` again."
                    )
                self._model = model
            return self._model

    def check(self, query: Query) -> None:
        """Raise ConfigurationError if this index cannot answer a query. No model is loaded."""
        if query.like is not None and not 0 <= query.like < self.index.rows:
            raise ConfigurationError(
                f"There is no row {query.like}; the index has the rows 0 to {self.index.rows - 1}."
            )
        if self.index.head != "uni":
            return
        if self.index.modality == "image" and query.texts:
            raise ConfigurationError(
                "The gallery was embedded with the head `uni`, which compares pictures with pictures; texts cannot "
                "search it. Embed it again with --head cross."
            )
        if self.index.modality == "text" and query.image is not None:
            raise ConfigurationError(
                "The gallery was embedded with the head `uni`, which compares texts with texts; pictures cannot search "
                "it. Embed it again with --head cross."
            )

    def query_vectors(self, queries: Sequence[Query]) -> np.ndarray:
        """The vectors that are searched for, float32 [n, D], normalised, in the order of `queries`.

        All texts are encoded in one call of the model, and all pictures in another. Every part is encoded by the head
        that the gallery was embedded with, because vectors of different heads cannot be compared: a picture that
        searches pictures embedded for texts (`cross`) is encoded by `cross` too. Raises ConfigurationError for a query
        that this index cannot answer, DataError for texts without a word and pictures that cannot be read.
        """
        for query in queries:
            self.check(query)
        head = checked_head(self.index.head)
        texts = list(dict.fromkeys(text for query in queries for text in query.texts))
        pictures = [query.image for query in queries if query.image is not None]
        of_text = dict(zip(texts, self.model.encode_text(texts, head=head), strict=True)) if texts else {}
        of_picture = iter(self.model.encode_image(pictures, head=head) if pictures else ())
        vectors = np.empty((len(queries), self.index.dimension), dtype=np.float32)
        for place, query in enumerate(queries):
            text = None if query.text is None else of_text[query.text]
            picture = next(of_picture) if query.image is not None else None
            if query.like is not None:
                picture = self.index.vector(query.like)
            excluded = np.array([of_text[each] for each in query.exclude], dtype=np.float32)
            vectors[place] = query.vector(text, picture, excluded)
        return vectors

    def unknown_texts(self, queries: Sequence[Query]) -> list[list[str]]:
        """The texts of each query that the model does not know, those to exclude included, in the order of `queries`.

        The model has no word for such a text, so its embedding means nothing; see `knows` of RetrievalModel. A model
        without this method knows every text. Raises DataError for texts without a word.
        """
        texts = list(dict.fromkeys(text for query in queries for text in query.texts))
        knows = getattr(self.model, "knows", None) if texts else None
        if knows is None:
            return [[] for _ in queries]
        unknown = {text for text, known in zip(texts, knows(texts), strict=True) if not known}
        return [[text for text in dict.fromkeys(query.texts) if text in unknown] for query in queries]

    def search(
        self, queries: Sequence[Query], top: int = TOP, where: Where | None = None, collapse: bool = False
    ) -> list[list[Hit]]:
        """The `top` best items of each query, best first; see `query_vectors` and `hits`."""
        own_rows = [query.like for query in queries]
        return self.hits(self.query_vectors(queries), top, where, collapse, own_rows)

    def hits(
        self,
        vectors: np.ndarray,
        top: int = TOP,
        where: Where | None = None,
        collapse: bool = False,
        own_rows: Sequence[int | None] | None = None,
    ) -> list[list[Hit]]:
        """The `top` items nearest to each vector, float32 [n, D], best first; fewer if the index holds fewer.

        `where` are conditions as `rows_where` reads them. `collapse` leaves out hits that are the same as a better one,
        or nearly. `own_rows` has, for each vector, a row that is not to be found, or None. Raises ConfigurationError
        for a filter that does not fit the items.
        """
        if top < 1:
            raise ConfigurationError(f"top is {top}; expected a number of hits from 1 on.")
        rows = self.index.rows
        allowed = None
        if where:
            from cusa.search.filters import rows_where  # pyarrow.compute takes a tenth of a second

            allowed = rows_where(self.index.items, where)
        if rows == 0:
            return [[] for _ in vectors]
        found: list[list[Hit]] = [[] for _ in vectors]
        own_rows = [None] * len(vectors) if own_rows is None else own_rows
        open_places, asked = list(range(len(vectors))), min(rows, top + any(row is not None for row in own_rows))
        while open_places:
            scores, neighbours = self.index.nearest(vectors[open_places], asked, allowed)
            again = []
            for place, line, near in zip(open_places, scores.tolist(), neighbours.tolist(), strict=True):
                own = own_rows[place]
                pairs = [(score, row) for score, row in zip(line, near, strict=True) if row >= 0 and row != own]
                found[place] = self._kept(pairs, top, collapse)
                if len(found[place]) < top and near[-1] >= 0 and asked < rows:
                    again.append(place)
            open_places, asked = again, min(rows, asked * GROWTH)
        return found

    def row_of(self, item: str) -> int:
        """The row of an item by its name. Raises ConfigurationError if the index has no such item."""
        import pyarrow.compute as pc

        row = int(pc.index(self.index.items["item"], item).as_py())
        if row < 0:
            raise ConfigurationError(f"The index has no item {item!r}; give an item as the hits show it, or its row.")
        return row

    def _kept(self, pairs: list[tuple[float, int]], top: int, collapse: bool) -> list[Hit]:
        groups = self.index.groups
        first: dict[int, int] = {}
        kept: list[tuple[float, int, int | None]] = []
        for score, row in pairs:
            best = first.setdefault(int(groups[row]), row)
            if best == row or not collapse:
                kept.append((score, row, None if best == row else best))
            if len(kept) == top:
                break
        return [self._hit(score, row, better) for score, row, better in kept]

    def _hit(self, score: float, row: int, duplicate_of: int | None) -> Hit:
        items = self.index.items
        values = {name: items[name][row].as_py() for name in items.column_names}
        path = self.index.picture_path(row)
        return Hit(
            row=row,
            item=values["item"],
            score=score,
            captions=tuple(values.get("captions") or ()),
            path=None if path is None else str(path),
            offset=values.get("offset"),
            size=values.get("size"),
            duplicate_of=duplicate_of,
            columns={name: value for name, value in values.items() if name not in FIELDS},
        )


def _plain(value: Any) -> Any:
    """A value of a column as JSON can hold it."""
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    if isinstance(value, dict):
        return {str(key): _plain(element) for key, element in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
