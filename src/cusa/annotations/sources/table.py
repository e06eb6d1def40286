"""Tables of the user's: CSV, TSV, JSON, JSONL or Parquet, a row a caption or a row an image with several captions."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from cusa.annotations.sources.rows import captions_in, identity, image_path, malformed, unpacked_cell
from cusa.annotations.sources.source import MalformedRow, Record, Source
from cusa.annotations.table_rows import Reading, table_rows
from cusa.common.text import unstorable
from cusa.config.dataset import SPLITS, TableDataset
from cusa.config.dataset_section import AMBIGUOUS_SPLIT_NAMES, split_named
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
        if self.dataset.annotations is not None:
            for split in SPLITS:
                yield from self._records(Path(self.dataset.annotations[split]).expanduser(), split)
        elif self.dataset.file is not None:
            yield from self._records(Path(self.dataset.file).expanduser(), None)

    def _records(self, path: Path, split: str | None) -> Iterator[Record | MalformedRow]:
        columns, pattern, root = self.dataset.columns, self.dataset.image_name, self.dataset.image_root
        keys: dict[Column, tuple[type, ...]] = {columns.image: (str,) if pattern is None else (str, int, float)}
        keys |= {column: SCALAR for column in (columns.image_id, columns.split) if column is not None}
        splits = _Splits(self.dataset)
        for place, row in table_rows(path, columns, self.reading):
            if isinstance(row, MalformedRow):
                yield row
                continue
            captions, reason = ([], wrong) if (wrong := malformed(row, keys)) else _captions(row, columns.captions)
            label = None if columns.label is None else row.get(columns.label)
            if reason is None and label is not None:
                reason = malformed({columns.label: label or "none"}, {columns.label: SCALAR})
            if reason is not None:
                yield MalformedRow(place, reason)
                continue
            name = identity(row[columns.image])
            own_id = name if columns.image_id is None else identity(row[columns.image_id])
            mine = split or splits.of_row(own_id, row, place)
            if mine is None:
                continue
            location = image_path(root, path, name if pattern is None else pattern.format(name))
            class_name = identity(label) if label not in (None, "") else None
            for caption in captions:
                yield Record(mine, own_id, location, caption, class_name, place=place)
        yield from splits.unknown(path)


class _Splits:
    """The splits of the rows of one table, and the names in the split column that mean none for sure."""

    def __init__(self, dataset: TableDataset) -> None:
        self.dataset = dataset
        self.column, self.names = dataset.columns.split, dataset.split_names
        self.of_name: dict[Any, str | None] = {}
        self.seen: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def of_row(self, image_id: str, row: Mapping[Any, Any], place: str) -> str | None:
        """The split of a row; None where it is left out."""
        held_out, seed = self.dataset.held_out, self.dataset.split_seed
        if self.column is None:
            return drawn_split(image_id, held_out or {}, seed)
        name = identity(row[self.column]).strip()
        if name not in self.of_name:
            self.of_name[name] = self.names.get(name) or split_named(name)
            self.first[name] = place
        self.seen[name] += 1
        split = self.of_name[name]
        if split == "train" and held_out:
            return drawn_split(image_id, held_out, seed)
        return None if split == "skip" else split

    def unknown(self, path: Path) -> Iterator[MalformedRow]:
        """A finding for each name that nobody has explained."""
        vals = [name for name in self.seen if self.of_name[name] == "val" and name not in self.names]
        for name, count in self.seen.items():
            what = f"{count:,} rows with `{name}` in `{self.column}` (the first: {self.first[name]})"
            if self.of_name[name] is None:
                yield MalformedRow(f"{path} has", f"{what}, which is no name of a split", "unknown_split")
            elif name.casefold() in AMBIGUOUS_SPLIT_NAMES and name in vals and len(vals) > 1:
                other = next(each for each in vals if each != name)
                yield MalformedRow(f"{path} has", f"{what} beside `{other}`, so it may mean test", "unknown_split")


def _captions(row: Mapping[Any, Any], columns: list[Column]) -> tuple[list[str], str | None]:
    """The captions of a row, from one column or from several, some of which may be empty; or the reason for none."""
    found: list[str] = []
    for column in columns:
        value = row.get(column)
        if len(columns) > 1 and (value is None or value == "" or value != value):  # NaN is not equal to itself
            continue
        if isinstance(value, str):
            if not value.startswith(("[", "{")):
                if what := unstorable(value):
                    return [], f"has {what} in `{column}`"
                found.append(value)
                continue
            value = unpacked_cell(value)
            if value is None:
                return [], f"has a list in `{column}` that cannot be read, expected one as JSON or Python writes it"
        captions, reason = captions_in({column: value} if column in row else row, column)
        if reason is not None:
            return [], reason
        found += captions
    return found or [""], None


def open_source(dataset: TableDataset, image_folder: Path) -> TableSource:
    """The source of tables; it makes no images of its own."""
    return TableSource(dataset)


def drawn_split(image_id: str, held_out: Mapping[Literal["val", "test"], float], seed: int) -> str:
    """The split of an image by a hash of its id and the seed: images keep their splits when others are added."""
    digest = hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    test = held_out.get("test", 0.0)
    if place < test:
        return "test"
    return "val" if place < test + held_out.get("val", 0.0) else "train"
