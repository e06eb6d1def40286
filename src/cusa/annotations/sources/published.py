"""The published format: one JSON list a split of {"image_path", "caption", "image_id"}, one caption per row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cusa.annotations.sources.image_paths import image_path, image_paths
from cusa.annotations.sources.row_source import RowColumns, RowSource
from cusa.annotations.sources.rows import identities, identity, malformed, values_of
from cusa.annotations.sources.source import Record
from cusa.common.files import expanded
from cusa.config.dataset import SPLITS, PublishedDataset

SETTINGS = PublishedDataset
KEYS = {"image_path": (str,), "caption": (str,), "image_id": (str, int, float)}


class PublishedSource(RowSource):
    """Reads the three JSON files. Relative image paths start at `image_root`, or else at the JSON file's folder."""

    def __init__(self, dataset: PublishedDataset) -> None:
        self.dataset, self.encoding = dataset, dataset.encoding

    def row_files(self) -> Iterator[tuple[str, Path]]:
        """The files of train, val and test."""
        for split in SPLITS:
            yield split, expanded(self.dataset.files[f"annotations.{split}"])

    def row_records(self, split: str, path: Path, row: Any) -> Sequence[Record] | str:
        """The caption of a row, or what is wrong with it."""
        if reason := malformed(row, KEYS):
            return reason
        location = image_path(self.dataset.image_root, path, row["image_path"], self.dataset.image_prefix)
        return [Record(split, identity(row["image_id"]), location, row["caption"])]

    def row_columns(self, path: Path, rows: Sequence[Any]) -> RowColumns | None:
        """The captions of the rows."""
        if (columns := values_of(rows, "image_path", "caption", "image_id")) is None:
            return None
        names, captions, keys = columns
        locations = image_paths(self.dataset.image_root, path, names, self.dataset.image_prefix)
        ids = identities(keys)
        if locations is None or ids is None:
            return None
        return RowColumns(ids, locations, captions)


def open_source(dataset: PublishedDataset, image_folder: Path) -> PublishedSource:
    """The source of a published-format data set; it makes no images of its own."""
    return PublishedSource(dataset)
