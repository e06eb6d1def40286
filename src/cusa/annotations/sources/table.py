"""Tables of the user's: CSV, TSV, JSONL or Parquet, a row a caption or a row an image with a list of captions."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from cusa.annotations.sources.rows import image_path, json_lines, malformed
from cusa.annotations.sources.source import MalformedRow, Record, Source
from cusa.common.text import open_text
from cusa.config.dataset import SPLITS, Columns, TableDataset
from cusa.errors import DataError

SETTINGS = TableDataset
PARQUET_ROWS = 8192


class TableSource(Source):
    """Reads tables row by row; `columns` maps keys to the names of columns."""

    def __init__(self, dataset: TableDataset) -> None:
        self.dataset = dataset

    def records(self) -> Iterator[Record | MalformedRow]:
        """Every caption of every row, in file order."""
        if self.dataset.annotations is not None:
            for split in SPLITS:
                yield from self._records(Path(self.dataset.annotations[split]).expanduser(), split)
        elif self.dataset.file is not None:
            yield from self._records(Path(self.dataset.file).expanduser(), None)

    def _records(self, path: Path, split: str | None) -> Iterator[Record | MalformedRow]:
        columns = self.dataset.columns
        keys: dict[str, tuple[type, ...]] = {columns.image: (str,), columns.caption: (str, list)}
        keys |= {name: (str, int) for name in (columns.image_id, columns.split) if name is not None}
        held_out, seed = self.dataset.held_out, self.dataset.split_seed
        for place, row in table_rows(path, columns):
            if reason := row if isinstance(row, str) else malformed(row, keys):
                yield MalformedRow(place, reason)
                continue
            name = row[columns.image]
            identity = name if columns.image_id is None else str(row[columns.image_id])
            mine = split
            if mine is None:
                mine = drawn_split(identity, held_out, seed) if held_out else row[columns.split]
            if mine not in SPLITS:
                yield MalformedRow(place, f"has `{mine}` for `{columns.split}`, expected {', '.join(SPLITS)}")
                continue
            label = None if columns.label is None or row.get(columns.label) is None else str(row[columns.label])
            captions = row[columns.caption] if isinstance(row[columns.caption], list) else [row[columns.caption]]
            for caption in captions or [""]:
                yield Record(mine, identity, image_path(self.dataset.image_root, path, name), caption, label)


def open_source(dataset: TableDataset, image_folder: Path) -> TableSource:
    """The source of tables; it makes no images of its own."""
    return TableSource(dataset)


def drawn_split(image_id: str, held_out: Mapping[Literal["val", "test"], float], seed: int) -> str:
    """The split of an image by a hash of its id and the seed: images keep their splits when others are added."""
    digest = hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < held_out["test"]:
        return "test"
    return "val" if place < held_out["test"] + held_out["val"] else "train"


def table_rows(path: Path, columns: Columns | None = None) -> Iterator[tuple[str, Any]]:
    """The place of every row and the row: a dict, or the reason why it is none as a text.

    Only `columns` are read, all where they are None. Raises DataError where one is missing or the file is damaged.
    """
    ending = path.suffix.lower()
    try:
        if ending == ".parquet":
            yield from _parquet_rows(path, columns)
        elif ending == ".jsonl":
            for number, row in json_lines(path):
                yield f"{path}, line {number}", "is no valid JSON" if row is None else row
        else:
            yield from _csv_rows(path, columns, "\t" if ending == ".tsv" else ",")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from None


def _csv_rows(path: Path, columns: Columns | None, delimiter: str) -> Iterator[tuple[str, Any]]:
    with open_text(path) as file:
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            _require_columns(path, columns, reader.fieldnames or ())
            for row in reader:
                # DictReader puts surplus cells under None, and None into missing ones.
                complete = None not in row and None not in row.values()
                yield f"{path}, line {reader.line_num}", row if complete else "has more or fewer cells than the heading"
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}; it is not a valid CSV file.") from None


def _parquet_rows(path: Path, columns: Columns | None) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
        _require_columns(path, columns, table.schema_arrow.names)
        wanted = None if columns is None else [name for name in columns.model_dump().values() if name is not None]
        number = 0
        for batch in table.iter_batches(PARQUET_ROWS, columns=wanted):
            for row in batch.to_pylist():
                yield f"{path}, row {number}", row
                number += 1
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not a complete Parquet file ({error}).") from None


def _require_columns(path: Path, columns: Columns | None, existing: Any) -> None:
    wanted = {} if columns is None else columns.model_dump()
    if missing := {key: name for key, name in wanted.items() if name is not None and name not in existing}:
        lacking = ", ".join(f"dataset.columns.{key} `{name}`" for key, name in missing.items())
        raise DataError(f"{path} has the columns {', '.join(existing)}, but not {lacking}; correct the mapping.")
