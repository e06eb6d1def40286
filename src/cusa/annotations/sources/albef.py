"""ALBEF's own files: {coco,flickr30k}_{train,val,test}.json, "image" and a caption or a list of captions a row.

Val and test have no image id there; an image's id is the name of its file, as in the published format. Equal
names in different folders are different images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from cusa.annotations.sources.image_paths import image_path, image_paths
from cusa.annotations.sources.row_source import RowColumns, RowSource
from cusa.annotations.sources.rows import captions_in, malformed, values_of
from cusa.annotations.sources.source import Record
from cusa.common.files import expanded
from cusa.config.dataset import SPLITS, AlbefDataset

SETTINGS = AlbefDataset
KEYS = {"image": (str,)}


class AlbefSource(RowSource):
    """Reads the JSON files of each split."""

    def __init__(self, dataset: AlbefDataset) -> None:
        self.dataset, self.encoding = dataset, dataset.encoding

    def row_files(self) -> Iterator[tuple[str, Path]]:
        """The files of train, of val and of test."""
        for split in SPLITS:
            yield from ((split, expanded(path)) for path in self.dataset.files_of(split))

    def row_records(self, split: str, path: Path, row: Any) -> Sequence[Record] | str:
        """Every caption of a row, or what is wrong with it."""
        captions, reason = ([], wrong) if (wrong := malformed(row, KEYS)) else captions_in(row, "caption")
        if reason:
            return reason
        location = image_path(self.dataset.image_root, path, row["image"], self.dataset.image_prefix)
        return [Record(split, "", location, caption) for caption in captions]

    def row_columns(self, path: Path, rows: Sequence[Any]) -> RowColumns | None:
        """Every caption of the rows."""
        if (columns := values_of(rows, "image", "caption")) is None:
            return None
        names, captions = columns
        locations = image_paths(self.dataset.image_root, path, names, self.dataset.image_prefix)
        if locations is None:
            return None
        if set(map(type, captions)) == {str}:
            return RowColumns(None, locations, captions)
        lists = [captions_in(row, "caption") for row in rows]
        if any(reason for _, reason in lists):
            return None
        each = (repeat(place, len(texts)) for place, (texts, _) in zip(locations, lists, strict=True))
        return RowColumns(None, list(chain.from_iterable(each)), list(chain.from_iterable(texts for texts, _ in lists)))


def open_source(dataset: AlbefDataset, image_folder: Path) -> AlbefSource:
    """The source of ALBEF's files; it makes no images of its own."""
    return AlbefSource(dataset)
