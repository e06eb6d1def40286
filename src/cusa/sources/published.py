"""The published format: one JSON list a split of {"image_path", "caption", "image_id"}, one caption a row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from cusa.config import PublishedDataset
from cusa.errors import DataError
from cusa.sources import MalformedRow, Record, Source

KEYS = ("image_path", "caption", "image_id")


class PublishedSource(Source):
    """Reads the three JSON files; relative image paths start at `image_root` or beside the JSON file."""

    def __init__(self, dataset: PublishedDataset) -> None:
        self.files = {split: Path(path).expanduser() for split, path in dataset.annotations.items()}
        self.image_root = Path(dataset.image_root).expanduser() if dataset.image_root else None

    def records(self) -> Iterator[Record | MalformedRow]:
        """Every row of train, val and test, in file order."""
        for split in ("train", "val", "test"):
            path = self.files[split]
            root = (self.image_root or path.parent).absolute()
            for number, row in enumerate(_rows(path)):
                if why := _malformed(row):
                    yield MalformedRow(f"{path}, row {number}", why)
                else:
                    image_path = (root / row["image_path"]).as_posix()
                    yield Record(split, row["image_id"], image_path, row["caption"])


def open_source(dataset: PublishedDataset, image_folder: Path) -> PublishedSource:
    """The source of a published-format data set; it makes no images of its own."""
    return PublishedSource(dataset)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; dataset.annotations has to name the JSON files.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); it may have been cut off while copying.") from None
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a JSON {type(rows).__name__}; expected a list of {{{', '.join(KEYS)}}}.")
    return rows


def _malformed(row: object) -> str | None:
    if not isinstance(row, dict):
        return f"is a {type(row).__name__}, expected an object with {', '.join(KEYS)}"
    for key in KEYS:
        if key not in row:
            return f"has no `{key}` (its keys: {', '.join(map(str, row)) or 'none'})"
        if not isinstance(row[key], str):
            return f"has a {type(row[key]).__name__} for `{key}`, expected text"
        if key != "caption" and not row[key]:
            return f"has an empty `{key}`"
    return None
