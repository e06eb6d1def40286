"""Karpathy's dataset_coco.json and dataset_flickr30k.json: all splits in one file, `restval` among them.

Karpathy and Fei-Fei, Deep Visual-Semantic Alignments, CVPR 2015. An image's id is the name of its file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cusa.annotations.sources.image_names import ImageNames
from cusa.annotations.sources.image_paths import image_path
from cusa.annotations.sources.rows import caption_number, json_items, malformed
from cusa.annotations.sources.source import MalformedRow, Record, Source
from cusa.common.files import expanded
from cusa.config.dataset import SPLITS, KarpathyDataset, split_named

SETTINGS = KarpathyDataset
KEYS = {"filename": (str,), "split": (str,)}
FOLDER = {"filepath": (str,)}
SENTENCE = {"raw": (str,)}


class KarpathySource(Source):
    """Reads the one JSON file."""

    def __init__(self, dataset: KarpathyDataset) -> None:
        self.dataset = dataset

    def records(self) -> Iterator[Record | MalformedRow]:
        """Every sentence, in file order."""
        path = expanded(self.dataset.file)
        names, keys, locations = ImageNames(), set[str](), set[str]()
        for number, image in enumerate(json_items(path, "images", self.dataset.encoding)):
            place = f"{path}, image {number}"
            sentences = image.get("sentences") if isinstance(image, dict) else None
            if reason := malformed(image, KEYS | FOLDER if isinstance(image, dict) and image.get("filepath") else KEYS):
                yield MalformedRow(place, reason)
            elif (split := self._split(image["split"])) is None:
                known = ", ".join((*SPLITS, "restval"))
                yield MalformedRow(place, f"has the split `{image['split']}`, expected {known}")
            elif not isinstance(sentences, list) or not sentences:
                yield MalformedRow(place, "has no list `sentences` with a sentence in it")
            elif split != "skip":
                name = f"{image.get('filepath') or ''}/{image['filename']}".lstrip("/")
                location = image_path(self.dataset.image_root, path, name, self.dataset.image_prefix)
                if (key := str(image.get("imgid", name))) in keys or location in locations:
                    what = f"imgid {key}" if key in keys else f"file {name}"
                    yield MalformedRow(place, f"has the {what}, which an image before it has")
                    continue
                keys.add(key)
                locations.add(location)
                for sentence in sentences:
                    if reason := malformed(sentence, SENTENCE):
                        yield MalformedRow(place, f"has a sentence that {reason}")
                    else:
                        caption_id = caption_number(sentence.get("sentid")) if "cocoid" in image else None
                        yield Record(split, names.identity(location), location, sentence["raw"], caption_id=caption_id)

    def _split(self, name: str) -> str | None:
        return self.dataset.restval if name == "restval" else split_named(name)


def open_source(dataset: KarpathyDataset, image_folder: Path) -> KarpathySource:
    """The source of Karpathy's files; it makes no images of its own."""
    return KarpathySource(dataset)
