"""COCO's own captions_train2017.json and the like: images and annotations in two lists, joined by a number.

Lin et al., Microsoft COCO, ECCV 2014. An image's id is the name of its file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cusa.annotations.sources.image_names import ImageNames
from cusa.annotations.sources.image_paths import image_path
from cusa.annotations.sources.rows import caption_number, identity, json_items, malformed
from cusa.annotations.sources.source import MalformedRow, Record, Source
from cusa.common.files import expanded
from cusa.config.dataset import SPLITS, CocoDataset

SETTINGS = CocoDataset
IMAGE = {"id": (int, str, float), "file_name": (str,)}
ANNOTATION = {"image_id": (int, str, float), "caption": (str,)}


class CocoSource(Source):
    """Reads each split's file twice: first its images, then its captions."""

    def __init__(self, dataset: CocoDataset) -> None:
        self.dataset = dataset

    def records(self) -> Iterator[Record | MalformedRow]:
        """Every caption of train, val and test, in file order; an image without one gets an empty caption."""
        image_names = ImageNames()
        for split in SPLITS:
            path = expanded(self.dataset.annotations[split])
            root = (self.dataset.image_roots or {}).get(split, self.dataset.image_root)
            locations: dict[str, str] = {}
            key_of: dict[str, str] = {}
            for number, image in enumerate(json_items(path, "images", self.dataset.encoding)):
                place = f"{path}, image {number}"
                if reason := malformed(image, IMAGE):
                    yield MalformedRow(place, reason)
                    continue
                key = identity(image["id"])
                location = image_path(root, path, image["file_name"], self.dataset.image_prefix)
                if key in locations:
                    yield MalformedRow(place, f"has the id {key}, which an image before it has")
                elif location in key_of:
                    yield MalformedRow(place, f"has the file {image['file_name']}, as the image {key_of[location]} has")
                else:
                    locations[key], key_of[location] = location, key
            captioned: set[str] = set()
            for number, annotation in enumerate(json_items(path, "annotations", self.dataset.encoding)):
                place = f"{path}, annotation {number}"
                if reason := malformed(annotation, ANNOTATION):
                    yield MalformedRow(place, reason)
                elif (found := locations.get(identity(annotation["image_id"]))) is None:
                    yield MalformedRow(place, f"is of the image {annotation['image_id']}, which the file does not list")
                else:
                    captioned.add(identity(annotation["image_id"]))
                    name, caption_id = image_names.identity(found), caption_number(annotation.get("id"))
                    yield Record(split, name, found, annotation["caption"], caption_id=caption_id)
            for key, location in locations.items():
                if key not in captioned:
                    yield Record(split, image_names.identity(location), location, "")


def open_source(dataset: CocoDataset, image_folder: Path) -> CocoSource:
    """The source of COCO's files; it makes no images of its own."""
    return CocoSource(dataset)
