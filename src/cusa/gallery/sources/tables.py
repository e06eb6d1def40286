"""A table of the user: CSV, TSV, JSON, JSONL or Parquet, with a row per picture or a row per caption."""

from __future__ import annotations

import json
import logging
import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cusa.annotations.problems import printable
from cusa.annotations.sources.image_paths import image_path
from cusa.annotations.sources.parquet import is_bytes
from cusa.annotations.sources.parquet_rows import parquet_schema
from cusa.annotations.sources.rows import captions_of, identity, is_empty, only_name
from cusa.annotations.sources.source import MalformedRow
from cusa.annotations.table_columns import FoundColumns, find_columns, odd_images_in
from cusa.annotations.table_rows import Reading, table_kind, table_rows
from cusa.common.files import sha256_of_file
from cusa.common.text import unstorable
from cusa.config.dataset_tables import Column
from cusa.errors import ConfigurationError, DataError
from cusa.gallery.sources.source import Entry, Wanted, storable
from cusa.gallery.store import GalleryModality

log = logging.getLogger(__name__)
SAMPLED = 200  # rows that the columns are found by
CAPTION_NAMES = ("caption", "captions", "text", "txt", "title", "description", "sentence", "sentences", "alt_text")
Row = Mapping[Column, Any]


class TableSource:
    """The pictures that a table names, each once; the captions of all rows that name a picture are its captions.

    Memory holds 8 bytes a row, and the captions of rows that name a picture again.
    """

    modality: ClassVar[GalleryModality] = "image"
    copied_bytes = 0

    def __init__(
        self,
        path: Path,
        image: str | None = None,
        captions: str | None = None,
        root: Path | None = None,
        heading: bool = True,
    ) -> None:
        """`image` and `captions` name columns, or are their numbers in a table without `heading`; None looks for them.

        Raises ConfigurationError if a column is missing, or none holds pictures.
        """
        self.path, self.root = path, root
        self.odd = OddCaptions()
        self.reading = Reading(heading=None if heading else False)
        sample = sampled_rows(path, self.reading)
        names = list(dict.fromkeys(name for row in sample for name in row))
        self.image = None if image is None else column_named(path, image, names, "--image-column")
        self.captions = [] if captions is None else [column_named(path, captions, names, "--text-column")]
        self.pattern: str | None = None
        self.prefix: str | None = None
        if self.image is None or not self.captions:
            self._find(sample, names)
        if table_kind(path) == "parquet":
            log_unkept(path, [self.image, *self.captions])

    def _find(self, sample: Sequence[Row], names: list[Column]) -> None:
        folders = (
            [self.root] if self.root is not None else list(dict.fromkeys([self.path.absolute().parent, Path.cwd()]))
        )
        try:
            found = find_columns(self.path, sample, folders, self.image, needs_captions=False)
        except ConfigurationError:
            raise ConfigurationError(
                f"{self.path} has the columns {', '.join(map(str, names))}, none of which holds names of "
                f"pictures{odd_images_in(sample)}; "
                "name it with --image-column, and the folder of the pictures with --image-root. For a gallery of "
                "texts, name their column with --texts."
            ) from None
        if self.image is None:
            self.image, self.pattern, self.prefix = found.image, found.image_name, found.image_prefix
            self.root = self.root or found.image_root
        self.captions = self.captions or caption_columns(names, found)

    @property
    def total(self) -> int:
        """The number of pictures, rows without one included."""
        return int(self._first.sum())

    def describe(self) -> dict[str, Any]:
        """The table, its digest, its number of pictures, and the columns that are read."""
        prefix = {} if self.prefix is None else {"image_prefix": self.prefix}
        return {
            "kind": "table",
            "place": storable(str(self.path.absolute())),
            "items": self.total,
            "sha256": sha256_of_file(self.path),
            "image_column": self.image,
            "text_columns": self.captions,
            "image_root": None if self.root is None else str(self.root.absolute()),
            **prefix,
        }

    def entries(self, wanted: Wanted) -> Iterator[Entry | None]:
        """Every picture, called as the table calls it, in the order of the rows that name it first."""
        further, hashes = self._further_captions, self._hashes
        number = 0
        for row_number, (place, row) in enumerate(table_rows(self.path, None, self.reading)):
            if not self._first[row_number]:
                continue
            if wanted(number):
                yield self._entry(place, row, further.get(hashes[row_number], []))
            else:
                yield None
            number += 1
        self.odd.log_count(self.path)

    def _entry(self, place: str, row: Row | MalformedRow, further: list[str]) -> Entry:
        if isinstance(row, MalformedRow):
            return Entry(storable(place), problem=row.reason)
        name = self._name(row)
        if name is None:
            return Entry(storable(place), problem=f"has no name of a picture in `{self.image}`")
        if (what := unstorable(name)) is not None:
            return Entry(storable(place), problem=f"has {what} in `{self.image}`")
        location = image_path(
            None if self.root is None else str(self.root),
            self.path.absolute(),
            self.pattern.format(name) if self.pattern else name,
            self.prefix,
        )
        captions = list(dict.fromkeys([*self.odd.captions(row, self.captions, place), *further]))
        return Entry(name, location, captions=captions, columns=other_columns(row, [self.image, *self.captions]))

    def _name(self, row: Row) -> str | None:
        value = only_name(row.get(self.image))  # type: ignore[arg-type]
        if isinstance(value, bool) or not isinstance(value, str | int | float) or is_empty(value):
            return None
        return identity(value)

    @cached_property
    def _hashes(self) -> np.ndarray:
        """A number for each row, the same for rows that name the same picture: int64 [rows]."""
        hashes = array("q")
        for place, row in table_rows(self.path, None, self.reading):
            name = None if isinstance(row, MalformedRow) else self._name(row)
            hashes.append(hash(("place", place)) if name is None else hash(name))
        return np.frombuffer(hashes, dtype=np.int64) if hashes else np.empty(0, dtype=np.int64)

    @cached_property
    def _first(self) -> np.ndarray:
        """Which rows name their picture first, bool [rows]."""
        first = np.zeros(len(self._hashes), dtype=bool)
        first[np.unique(self._hashes, return_index=True)[1]] = True
        return first

    @cached_property
    def _further_captions(self) -> dict[int, list[str]]:
        """The captions of rows that name a picture again, by its hash."""
        found: dict[int, list[str]] = {}
        if self.captions and not self._first.all():
            for number, (place, row) in enumerate(table_rows(self.path, None, self.reading)):
                if not self._first[number] and not isinstance(row, MalformedRow):
                    captions = self.odd.captions(row, self.captions, place)
                    found.setdefault(int(self._hashes[number]), []).extend(captions)
        return found


def sampled_rows(path: Path, reading: Reading) -> Sequence[Row]:
    """The first rows of a table. Raises DataError if there is none."""
    try:
        sample = [row for _, row in islice(table_rows(path, None, reading), SAMPLED)]
    except DataError as error:
        advice = "use --no-heading, and number the columns from 0, for instance --image-column 0."
        before, found, _ = str(error).partition("Set dataset.heading to false")
        raise DataError(f"{before}If so, {advice}" if found else before) from None
    rows = [row for row in sample if not isinstance(row, MalformedRow)]
    if not rows:
        reasons = [f" The first one: {row.place} {row.reason}." for row in sample[:1] if isinstance(row, MalformedRow)]
        raise DataError(f"{path} has no row that can be read, so there is nothing to embed.{''.join(reasons)}")
    return rows


def column_named(path: Path, wanted: str, names: list[Column], option: str) -> Column:
    """A column by its name or number. Raises ConfigurationError if the table has none of that name."""
    found = next((name for name in names if str(name) == wanted), None)
    if found is None:
        raise ConfigurationError(
            f"{option} is `{wanted}`, but {path} has the columns {', '.join(map(str, names))}; name one of them."
        )
    return found


def caption_columns(names: Sequence[Column], found: FoundColumns) -> list[Column]:
    """The columns of captions: one of that name, else those whose values look like it, else one of a usual name."""
    others = [name for name in names if name not in (found.image, found.split, found.label)]
    named = [name for name in others if str(name).lower() in CAPTION_NAMES]
    if named and str(named[0]).lower().startswith("caption"):
        return named[:1]
    return [name for name in found.captions if name in others] or named[:1]


def other_columns(row: Mapping[Any, Any], used: Sequence[Column | None]) -> dict[Column, Any]:
    """The columns of a row that are kept for filters; what no column can hold is JSON text, or null."""
    return {name: _kept(value) for name, value in row.items() if name not in used}


def _kept(value: Any) -> Any:
    if isinstance(value, str):
        return value if unstorable(value) is None else None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list) and all(isinstance(member, str) and unstorable(member) is None for member in value):
        return value  # one of them has to be equal in a filter
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=_kept_in_json)
    return None if isinstance(value, bytes) else value


def _kept_in_json(value: Any) -> str | None:
    return None if isinstance(value, bytes) else str(value)


def log_unkept(path: Path, used: Sequence[Column | None]) -> None:
    """Log which columns of a Parquet file lose something in a gallery: their bytes, or the nanoseconds of times."""
    others = [field for field in parquet_schema(path) if field.name not in used]
    if found := [f"`{field.name}`" for field in others if _some_type(field.type, is_bytes)]:
        log.warning("%s: the bytes in %s are left out of the gallery", printable(str(path)), ", ".join(found))
    if found := [f"`{field.name}`" for field in others if _some_type(field.type, _has_nanoseconds)]:
        what = "%s: the times in %s have nanoseconds; the gallery keeps them to the microsecond"
        log.warning(what, printable(str(path)), ", ".join(found))


def _has_nanoseconds(kind: Any) -> bool:
    return getattr(kind, "unit", None) == "ns"


def _some_type(kind: Any, test: Callable[[Any], bool]) -> bool:
    """Whether an Arrow type, or a type within it, passes a test."""
    return test(kind) or any(_some_type(kind.field(number).type, test) for number in range(kind.num_fields))


class OddCaptions:
    """Reads the captions of rows, and counts the rows whose captions are not texts, for the log."""

    def __init__(self) -> None:
        self._count, self._example = 0, ""

    def captions(self, row: Mapping[Any, Any], columns: Sequence[Column], place: str) -> list[str]:
        """The captions of a row. None, NaN and blanks are none; `place` names the row."""
        if not columns or all(is_empty(row.get(column)) for column in columns):
            return []
        captions, reason = captions_of(row, columns)
        if reason is not None:
            self._count += 1
            self._example = self._example or f"{place} {reason}"
            return []
        return [caption for caption in captions if caption.strip()]

    def log_count(self, path: Path) -> None:
        """Log how many rows have captions that are not texts, with one of them."""
        if self._count:
            log.warning(
                "%s: the captions of %s rows are not texts and are left out; for instance, %s",
                printable(str(path)),
                f"{self._count:,}",
                self._example,
            )
        self._count, self._example = 0, ""
