"""COCO's own captions_train2017.json and the like: images and annotations in two lists, joined by a number.

Lin et al., Microsoft COCO, ECCV 2014. An image's id is the name of its file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cusa.annotations.sources.rows import image_path, json_items, malformed
from cusa.annotations.sources.source import MalformedRow, Record, Source
from cusa.config.dataset import SPLITS, CocoDataset

SETTINGS = CocoDataset
IMAGE = {"id": (int,), "file_name": (str,)}
ANNOTATION = {"image_id": (int,), "caption": (str,)}


class CocoSource(Source):
    """Reads each split's file twice: first its images, then its captions."""

    def __init__(self, dataset: CocoDataset) -> None:
        self.dataset = dataset

    def records(self) -> Iterator[Record | MalformedRow]:
        """Every caption of train, val and test, in file order; an image without one gets an empty caption."""
        for split in SPLITS:
            path = Path(self.dataset.annotations[split]).expanduser()
            root = (self.dataset.image_roots or {}).get(split, self.dataset.image_root)
            names: dict[int, str] = {}
            for number, image in enumerate(json_items(path, "images")):
                if reason := malformed(image, IMAGE):
                    yield MalformedRow(f"{path}, image {number}", reason)
                else:
                    names[image["id"]] = image["file_name"]
            captioned: set[int] = set()
            for number, annotation in enumerate(json_items(path, "annotations")):
                place = f"{path}, annotation {number}"
                if reason := malformed(annotation, ANNOTATION):
                    yield MalformedRow(place, reason)
                elif (name := names.get(annotation["image_id"])) is None:
                    yield MalformedRow(place, f"is of the image {annotation['image_id']}, which the file does not list")
                else:
                    captioned.add(annotation["image_id"])
                    location, number_in_coco = image_path(root, path, name), annotation.get("id")
                    caption_id = number_in_coco if isinstance(number_in_coco, int) else None
                    yield Record(split, Path(name).name, location, annotation["caption"], caption_id=caption_id)
            for number, name in names.items():
                if number not in captioned:
                    yield Record(split, Path(name).name, image_path(root, path, name), "")


def open_source(dataset: CocoDataset, image_folder: Path) -> CocoSource:
    """The source of COCO's files; it makes no images of its own."""
    return CocoSource(dataset)
