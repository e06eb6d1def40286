"""The user's tables: CSV, TSV, JSON, JSONL or Parquet, a row a caption or a row an image with several captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cusa.annotations.sources.rows import captions_of, identity, image_path, language_of, malformed
from cusa.annotations.sources.source import MalformedRow, Record, Source
from cusa.annotations.sources.splits import SplitsOfRows
from cusa.annotations.table_rows import Reading, table_rows
from cusa.common.files import expanded
from cusa.config.dataset import SPLITS, Split, TableDataset
from cusa.config.dataset_tables import Column

SETTINGS = TableDataset
SCALAR: tuple[type, ...] = (str, int, float, bool)


class TableSource(Source):
    """Reads tables row by row; `columns` maps keys to the names or numbers of columns."""

    def __init__(self, dataset: TableDataset) -> None:
        self.dataset = dataset
        self.reading = Reading(dataset.encoding, dataset.separator, dataset.quotes, dataset.heading)

    def records(self) -> Iterator[Record | MalformedRow]:
        """Every caption of every row, in file order."""
        splits = SplitsOfRows(self.dataset)
        places = self.dataset.places
        for split in (split for split in (*SPLITS, None) if split in places):
            yield from self._records(expanded(places[split]), split, splits)
        yield from splits.unknown()

    def _records(self, path: Path, split: Split | None, splits: SplitsOfRows) -> Iterator[Record | MalformedRow]:
        columns, pattern, root = self.dataset.columns, self.dataset.image_name, self.dataset.image_root
        keys: dict[Column, tuple[type, ...]] = {columns.image: (str,) if pattern is None else (str, int, float)}
        keys |= {column: SCALAR for column in (columns.image_id, columns.split) if column is not None}
        for place, row in table_rows(path, columns, self.reading):
            if isinstance(row, MalformedRow):
                yield row
                continue
            captions, reason = ([], wrong) if (wrong := malformed(row, keys)) else captions_of(row, columns.captions)
            label = None if columns.label is None else row.get(columns.label)
            if reason is None and label is not None:
                reason = malformed({columns.label: label or "none"}, {columns.label: SCALAR})
            language, no_language = language_of(None if columns.language is None else row.get(columns.language))
            if (reason := reason or no_language) is not None:
                yield MalformedRow(place, reason)
                continue
            name = identity(row[columns.image])
            own_id = name if columns.image_id is None else identity(row[columns.image_id])
            value = None if columns.split is None else row[columns.split]
            if (mine := splits.of_row(split, own_id, value, place)) is None:
                continue
            location = image_path(root, path, name if pattern is None else pattern.format(name))
            class_name = identity(label) if label not in (None, "") else None
            for caption in captions:
                yield Record(mine, own_id, location, caption, class_name, place=place, language=language)


def open_source(dataset: TableDataset, image_folder: Path) -> TableSource:
    """The source of tables; it makes no images of its own."""
    return TableSource(dataset)
