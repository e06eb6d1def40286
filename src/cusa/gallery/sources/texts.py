"""Texts: the lines of a file, a column of a table, or the captions of a data set's splits; each text once."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cusa.annotations.sources.rows import captions_of
from cusa.annotations.sources.source import MalformedRow
from cusa.annotations.table_rows import Reading, table_kind, table_rows
from cusa.common.text import text_lines, unstorable
from cusa.gallery.sources.source import Entry, Wanted, storable
from cusa.gallery.sources.tables import column_named, log_unkept, other_columns, sampled_rows
from cusa.gallery.store import GalleryModality


class TextSource:
    """Texts that can be read again and again. Blank ones are left out, and so are those that were there before.

    Memory holds 8 bytes a text.
    """

    modality: ClassVar[GalleryModality] = "text"
    copied_bytes = 0

    def __init__(self, place: str, read: Callable[[], Iterable[Entry]]) -> None:
        """`read` gives an entry a text, in the same order in each call; `place` says where they come from."""
        self.place, self.read = place, read

    @property
    def total(self) -> int:
        """The number of different texts, rows without one included."""
        return int(self._first.sum())

    def describe(self) -> dict[str, Any]:
        """The origin of the texts, their number and their digest."""
        return {"kind": "texts", "place": self.place, "items": self.total, "digest": self._state[1]}

    def entries(self, wanted: Wanted) -> Iterator[Entry | None]:
        """Every different text."""
        number, first = 0, self._first
        for place, entry in enumerate(self._texts()):
            if first[place]:
                yield entry if wanted(number) else None
                number += 1

    def _texts(self) -> Iterator[Entry]:
        for entry in self.read():
            if entry.item.strip():
                if entry.problem is None and (what := unstorable(entry.item)) is not None:
                    entry = Entry(storable(entry.item), problem=f"has {what} in it")
                yield entry

    @cached_property
    def _state(self) -> tuple[np.ndarray, str]:
        hashes, digest = array("q"), hashlib.sha256()
        for entry in self._texts():
            hashes.append(hash(entry.item))
            digest.update(entry.item.encode() + b"\n")
        return (np.frombuffer(hashes, dtype=np.int64) if hashes else np.empty(0, np.int64)), digest.hexdigest()

    @cached_property
    def _first(self) -> np.ndarray:
        first = np.zeros(len(self._state[0]), dtype=bool)
        first[np.unique(self._state[0], return_index=True)[1]] = True
        return first


def texts_of_lines(path: Path) -> TextSource:
    """The lines of a text file."""
    return TextSource(storable(str(path.absolute())), lambda: (Entry(line.strip()) for line in text_lines(path)))


def texts_of_column(path: Path, column: str, heading: bool = True) -> TextSource:
    """The texts in a column of a table; the other columns are kept for filters. A cell may be a list of texts."""
    reading = Reading(heading=None if heading else False)
    names = list(dict.fromkeys(name for row in sampled_rows(path, reading) for name in row))
    wanted = column_named(path, column, names, "the column of texts")
    if table_kind(path) == "parquet":
        log_unkept(path, [wanted])

    def read() -> Iterator[Entry]:
        for place, row in table_rows(path, None, reading):
            if isinstance(row, MalformedRow):
                yield Entry(storable(place), problem=row.reason)
                continue
            captions, reason = captions_of(row, [wanted])
            if reason is not None:
                yield Entry(storable(place), problem=reason)
            for caption in captions:
                yield Entry(caption.strip(), columns=other_columns(row, [wanted]))

    return TextSource(f"{storable(str(path.absolute()))}, column {column}", read)


def texts_of_list(place: str, texts: list[str]) -> TextSource:
    """Texts that are in memory."""
    return TextSource(place, lambda: (Entry(text) for text in texts))
