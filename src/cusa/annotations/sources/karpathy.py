"""Karpathy's dataset_coco.json and dataset_flickr30k.json: all splits in one file, `restval` among them.

Karpathy and Fei-Fei, Deep Visual-Semantic Alignments, CVPR 2015. An image's id is the name of its file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cusa.annotations.sources.rows import image_path, json_items, malformed
from cusa.annotations.sources.source import MalformedRow, Record, Source
from cusa.config.dataset import SPLITS, KarpathyDataset

SETTINGS = KarpathyDataset
KEYS = {"filename": (str,), "split": (str,)}
SENTENCE = {"raw": (str,)}


class KarpathySource(Source):
    """Reads the one JSON file."""

    def __init__(self, dataset: KarpathyDataset) -> None:
        self.dataset = dataset
        self.split_of: dict[str, str] = {split: split for split in SPLITS}
        self.split_of["restval"] = dataset.restval

    def records(self) -> Iterator[Record | MalformedRow]:
        """Every sentence, in file order."""
        path = Path(self.dataset.file).expanduser()
        for number, image in enumerate(json_items(path, "images")):
            place = f"{path}, image {number}"
            sentences = image.get("sentences") if isinstance(image, dict) else None
            if reason := malformed(image, KEYS):
                yield MalformedRow(place, reason)
            elif (split := self.split_of.get(image["split"])) is None:
                yield MalformedRow(place, f"has the split `{image['split']}`, expected {', '.join(self.split_of)}")
            elif not isinstance(sentences, list) or not sentences:
                yield MalformedRow(place, "has no list `sentences` with a sentence in it")
            elif split != "skip":
                name = f"{image.get('filepath', '')}/{image['filename']}".lstrip("/")
                for sentence in sentences:
                    if reason := malformed(sentence, SENTENCE):
                        yield MalformedRow(place, f"has a sentence that {reason}")
                    else:
                        location = image_path(self.dataset.image_root, path, name)
                        number_in_coco = sentence.get("sentid") if "cocoid" in image else None
                        caption_id = number_in_coco if isinstance(number_in_coco, int) else None
                        yield Record(split, image["filename"], location, sentence["raw"], caption_id=caption_id)


def open_source(dataset: KarpathyDataset, image_folder: Path) -> KarpathySource:
    """The source of Karpathy's files; it makes no images of its own."""
    return KarpathySource(dataset)
