"""Parquet files with the bytes of the pictures, as Hugging Face's datasets has them.

The bytes are compressed there, so that no place of the file is a picture: those that were embedded are copied.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq

from cusa.annotations.sources.image_paths import image_path
from cusa.annotations.sources.parquet import columns_of_bytes, picture_columns
from cusa.annotations.sources.parquet_rows import parquet_rows, parquet_schema
from cusa.annotations.table_columns import find_columns
from cusa.common.files import parquet_damage
from cusa.config.dataset_tables import Column
from cusa.errors import ConfigurationError
from cusa.gallery.sources.source import Entry, Wanted, state_of_files, storable
from cusa.gallery.sources.tables import SAMPLED, OddCaptions, caption_columns, column_named, log_unkept, other_columns
from cusa.gallery.store import GalleryModality

BATCH_ROWS = 32


class ParquetPictures:
    """The pictures of Parquet files, called `{file}/{row}`, the row counted from 0."""

    modality: ClassVar[GalleryModality] = "image"

    def __init__(
        self, files: Sequence[Path], image: str | None = None, captions: str | None = None, root: Path | None = None
    ) -> None:
        """Raises DataError if a file is damaged, ConfigurationError if a column is missing."""
        self.files, self.root = [path.absolute() for path in files], root
        self.odd = OddCaptions()
        self.copied_bytes = sum(path.stat().st_size for path in self.files)
        common = os.path.commonpath([path.parent for path in self.files])
        self.names = [storable(path.relative_to(common).as_posix()) for path in self.files]
        first, names = self.files[0], list[Column](parquet_schema(self.files[0]).names)
        typed = columns_of_bytes(first)
        found = picture_columns(first) or typed
        if image is None and len(found) != 1:
            raise ConfigurationError(
                f"{first} has {len(found)} columns of pictures ({', '.join(found) or 'none'}); name one with "
                "--image-column."
            )
        self.image = str(found[0] if image is None else column_named(first, image, names, "--image-column"))
        if captions is not None:
            self.captions = [str(column_named(first, captions, names, "--text-column"))]
        else:
            others = [name for name in names if name not in typed]
            rows = [
                row for number, row in zip(range(SAMPLED), self._rows(first, list(map(str, others)), [0]), strict=False)
            ]
            looked = find_columns(first, [row for row in rows if isinstance(row, dict)], [], self.image, False)
            self.captions = [str(column) for column in caption_columns(others, looked)]
        for path in self.files:
            if lacking := [name for name in (self.image, *self.captions) if name not in parquet_schema(path).names]:
                raise ConfigurationError(f"{path} has no column {', '.join(lacking)}, but {first} has; leave it out.")
        log_unkept(first, [self.image, *self.captions])

    @cached_property
    def total(self) -> int:
        """The number of rows."""
        return sum(sum(self._row_groups(path)) for path in self.files)

    def describe(self) -> dict[str, Any]:
        """The files, a digest of their names, sizes and times, and the columns that are read."""
        return {
            "kind": "parquet",
            "place": storable(os.path.commonpath(self.files)),
            "files": len(self.files),
            "items": self.total,
            "digest": state_of_files(self.files, self.names),
            "image_column": self.image,
            "text_columns": self.captions,
        }

    def entries(self, wanted: Wanted) -> Iterator[Entry | None]:
        """Every row of every file. Row groups without wanted rows are not read."""
        first = 0
        for path, name in zip(self.files, self.names, strict=True):
            start = first
            for group, count in enumerate(self._row_groups(path)):
                if not any(wanted(number) for number in range(first, first + count)):
                    yield from (None for _ in range(count))
                else:
                    for number, row in enumerate(self._rows(path, None, [group]), start=first):
                        yield self._entry(path, f"{name}/{number - start}", row) if wanted(number) else None
                first += count
        self.odd.log_count(self.files[0])

    def _row_groups(self, path: Path) -> list[int]:
        with parquet_damage(path):
            metadata = pq.read_metadata(path)
        return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]

    def _rows(self, path: Path, columns: list[str] | None, groups: list[int]) -> Iterator[dict[str, Any] | str]:
        if self._row_groups(path):
            yield from (row for _, row in parquet_rows(path, columns, BATCH_ROWS, groups))

    def _entry(self, path: Path, item: str, row: dict[str, Any] | str) -> Entry:
        if isinstance(row, str):
            return Entry(item, problem=row)
        value = row[self.image]
        content, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        entry = Entry(item, columns=other_columns(row, [self.image, *self.captions]))
        entry.captions = self.odd.captions(row, self.captions, item)
        if isinstance(content, bytes):
            entry.content = content
        elif isinstance(name, str) and name:
            entry.path = image_path(None if self.root is None else str(self.root), path, name)
        else:
            entry.problem = f"has no picture in `{self.image}`: neither bytes nor a path"
        return entry
