"""ALBEF's own files: {coco,flickr30k}_{train,val,test}.json, "image" and a caption or a list of captions a row.

Val and test have no image id there; an image's id is the name of its file, as in the published format. Equal
names in different folders are different images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cusa.annotations.sources.image_names import ImageNames
from cusa.annotations.sources.rows import captions_in, image_path, json_rows, malformed
from cusa.annotations.sources.source import MalformedRow, Record, Source
from cusa.config.dataset import SPLITS, AlbefDataset

SETTINGS = AlbefDataset
KEYS = {"image": (str,)}


class AlbefSource(Source):
    """Reads the three JSON files."""

    def __init__(self, dataset: AlbefDataset) -> None:
        self.dataset = dataset

    def records(self) -> Iterator[Record | MalformedRow]:
        """Every caption of train, val and test, in file order."""
        names = ImageNames()
        for split in SPLITS:
            path = Path(self.dataset.annotations[split]).expanduser()
            for place, row in json_rows(path, self.dataset.encoding):
                if isinstance(row, MalformedRow):
                    yield row
                    continue
                captions, reason = ([], wrong) if (wrong := malformed(row, KEYS)) else captions_in(row, "caption")
                if reason:
                    yield MalformedRow(place, reason)
                    continue
                location = image_path(self.dataset.image_root, path, row["image"])
                for caption in captions:
                    yield Record(split, names.identity(location), location, caption)


def open_source(dataset: AlbefDataset, image_folder: Path) -> AlbefSource:
    """The source of ALBEF's files; it makes no images of its own."""
    return AlbefSource(dataset)
