"""The user's tables: CSV, TSV, JSON, JSONL or Parquet, a row per caption or a row per image with several captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cusa.annotations.sources.image_paths import image_path, without_prefix
from cusa.annotations.sources.rows import captions_of, identity, language_of, malformed, only_name
from cusa.annotations.sources.several_files import SeveralFiles
from cusa.annotations.sources.source import MalformedRow, Record
from cusa.annotations.table_rows import Reading, table_rows
from cusa.config.dataset import Split, TableDataset
from cusa.config.dataset_tables import Column

SETTINGS = TableDataset
SCALAR: tuple[type, ...] = (str, int, float, bool)


class TableSource(SeveralFiles):
    """Reads tables row by row; `columns` maps keys to the names or numbers of columns."""

    def __init__(self, dataset: TableDataset) -> None:
        super().__init__(dataset)
        self.columns, self.image_name = dataset.columns, dataset.image_name
        self.reading = Reading(dataset.encoding, dataset.separator, dataset.quotes, dataset.heading)

    def file_records(self, path: Path, split: Split | None) -> Iterator[Record | MalformedRow]:
        """Every caption of every row of a table."""
        columns, pattern, root = self.columns, self.image_name, self.dataset.image_root
        keys: dict[Column, tuple[type, ...]] = {columns.image: (str,) if pattern is None else (str, int, float)}
        keys |= {column: SCALAR for column in (columns.image_id, columns.split) if column is not None}
        for place, row in table_rows(path, columns, self.reading):
            if isinstance(row, MalformedRow):
                yield row
                continue
            if isinstance(image := row.get(columns.image), list) or (isinstance(image, str) and image[:1] == "["):
                row |= {columns.image: only_name(image)}
            needed = keys
            if columns.split is not None and columns.split in row and self.splits.explains(row[columns.split]):
                needed = {column: types for column, types in keys.items() if column != columns.split}
            captions, reason = ([], wrong) if (wrong := malformed(row, needed)) else captions_of(row, columns.captions)
            label = None if columns.label is None else row.get(columns.label)
            if reason is None and label is not None:
                reason = malformed({columns.label: label or "none"}, {columns.label: SCALAR})
            language, no_language = language_of(None if columns.language is None else row.get(columns.language))
            if (reason := reason or no_language) is not None:
                yield MalformedRow(place, reason)
                continue
            name = without_prefix(identity(row[columns.image]), self.dataset.image_prefix)
            own_id = name if columns.image_id is None else identity(row[columns.image_id])
            value = None if columns.split is None else row[columns.split]
            if (mine := self.splits.of_row(split, own_id, value, place)) is None:
                continue
            location = image_path(root, path, name if pattern is None else pattern.format(name))
            class_name = identity(label) if label not in (None, "") else None
            for caption in captions:
                yield Record(mine, own_id, location, caption, class_name, place=place, language=language)


def open_source(dataset: TableDataset, image_folder: Path) -> TableSource:
    """The source of tables; it makes no images of its own."""
    return TableSource(dataset)
