"""The published format: one JSON list a split of {"image_path", "caption", "image_id"}, one caption a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cusa.annotations.sources.rows import identity, image_path, json_rows, malformed
from cusa.annotations.sources.source import MalformedRow, Record, Source
from cusa.config.dataset import SPLITS, PublishedDataset

SETTINGS = PublishedDataset
KEYS = {"image_path": (str,), "caption": (str,), "image_id": (str, int, float)}


class PublishedSource(Source):
    """Reads the three JSON files. Relative image paths start at `image_root`, or else at the JSON file's folder."""

    def __init__(self, dataset: PublishedDataset) -> None:
        self.dataset = dataset

    def records(self) -> Iterator[Record | MalformedRow]:
        """Every row of train, val and test, in file order."""
        for split in SPLITS:
            path = Path(self.dataset.files[f"annotations.{split}"]).expanduser()
            for place, row in json_rows(path, self.dataset.encoding):
                if isinstance(row, MalformedRow):
                    yield row
                elif reason := malformed(row, KEYS):
                    yield MalformedRow(place, reason)
                else:
                    location = image_path(self.dataset.image_root, path, row["image_path"])
                    yield Record(split, identity(row["image_id"]), location, row["caption"])


def open_source(dataset: PublishedDataset, image_folder: Path) -> PublishedSource:
    """The source of a published-format data set; it makes no images of its own."""
    return PublishedSource(dataset)
