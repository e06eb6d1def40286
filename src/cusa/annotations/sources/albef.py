"""ALBEF's own files: {coco,flickr30k}_{train,val,test}.json, "image" and a caption or a list of captions a row.

Val and test have no image id there; an image's id is the name of its file, as in the published format.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cusa.annotations.sources.rows import image_path, json_items, malformed
from cusa.annotations.sources.source import MalformedRow, Record, Source
from cusa.config.dataset import SPLITS, AlbefDataset

SETTINGS = AlbefDataset
KEYS = {"image": (str,), "caption": (str, list)}


class AlbefSource(Source):
    """Reads the three JSON files."""

    def __init__(self, dataset: AlbefDataset) -> None:
        self.dataset = dataset

    def records(self) -> Iterator[Record | MalformedRow]:
        """Every caption of train, val and test, in file order."""
        for split in SPLITS:
            path = Path(self.dataset.annotations[split]).expanduser()
            for number, row in enumerate(json_items(path)):
                if reason := malformed(row, KEYS):
                    yield MalformedRow(f"{path}, row {number}", reason)
                    continue
                location = image_path(self.dataset.image_root, path, row["image"])
                captions = row["caption"] if isinstance(row["caption"], list) else [row["caption"]]
                for caption in captions or [""]:
                    yield Record(split, Path(row["image"]).name, location, caption)


def open_source(dataset: AlbefDataset, image_folder: Path) -> AlbefSource:
    """The source of ALBEF's files; it makes no images of its own."""
    return AlbefSource(dataset)
