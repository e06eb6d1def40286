"""Where the images of a data set are, by the names that its annotations give them: for `cusa init`."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from cusa.annotations.sources.image_paths import count_files, find_prefix
from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.rows import json_items
from cusa.annotations.sources.source import Record
from cusa.annotations.table_columns import LOOKED_FOR, SOME
from cusa.commands.split_files import split_of_folder
from cusa.common.files import expanded
from cusa.config.dataset import Split, load_dataset

# Papers put their annotations into a folder beside those of the images.
ANNOTATIONS = re.compile(r"annotations?|captions?|karpathy\w*|splits?|jsons?|labels?", re.IGNORECASE)
IMAGES = re.compile(r"images?|imgs?|pics?|pictures|photos|jpegs?", re.IGNORECASE)


def image_folders(files: Sequence[Path]) -> list[Path]:
    """The folders that may have images: beside a table, in folders beside it, and above tables in their own folders."""
    beside = [file.parent for file in files]
    above = [folder.parent for folder in beside[:1] if len(set(beside)) > 1]
    places = [*beside[:1], *above]
    below = [child for folder in places for child in _folders_in(folder)]
    return list(dict.fromkeys([*places, *below]))


def warn_of_split_folders(folder: Path, warnings: list[str]) -> bool:
    """Whether a folder is of one split by its name, and one of another split is beside it, which a warning says then.

    The images of other splits are elsewhere then, perhaps with the same names.
    """
    own = split_of_folder(folder.name)
    beside = [each for each in _folders_in(folder.parent) if split_of_folder(each.name) not in (own, None)]
    if own is None or not beside:
        return False
    warnings.append(
        f"{folder} is of {own} by its name, and beside it is {beside[0].name}, but image_root is one folder for all "
        f"splits; write names of images with their folders, such as {folder.name}/{{NAME}}, with image_root "
        f"{folder.parent}, or put the table of each split into the folder of its images"
    )
    return True


def add_image_root(section: dict[str, Any], reasons: list[str], warnings: list[str]) -> None:
    """Add the folder of the images to the section of a format of papers, if it is near and not that of the files.

    COCO's files have a folder for each split. If most of the first images are in no such folder, it may be because
    their paths are those of another machine: then their start is added as `image_prefix`.
    """
    found: dict[Split | None, Path] = {}
    prefixes: dict[Split | None, str] = {}
    for split, (file, names) in _first_names(section).items():
        # Other splits may have images of the same names.
        places = [
            place
            for place in dict.fromkeys([*image_folders([file]), *_around(file)])
            if split is None or split_of_folder(place.name) in (split, None)
        ]
        shares = {place: _share_of_files(place, file, names) for place in places}
        best = max(shares, key=lambda place: shares[place], default=file.parent)
        if shares[best] <= SOME and (elsewhere := find_prefix(names, places, file)) is not None:
            prefixes[split], folder = elsewhere
            reasons.append(f"image_prefix is {prefixes[split]}: without it, the images are in {folder}")
            if folder != file.parent:
                found[split] = folder
            continue
        if best == file.parent or shares[best] <= max(SOME, shares[file.parent]):
            continue
        if split is not None or not warn_of_split_folders(best, warnings):
            found[split] = best
            reasons.append(
                f"the images {f'of {split} ' if split else ''}are in {best}: {shares[best]:.0%} of the first"
            )
    if len(set(prefixes.values())) == 1:
        section["image_prefix"] = next(iter(prefixes.values()))
    if len(set(found.values())) == 1 and (None in found or len(found) == len(section["annotations"])):
        section["image_root"] = str(next(iter(found.values())))
    elif found:
        section["image_roots"] = {split: str(folder) for split, folder in found.items()}


def _first_names(section: Mapping[str, Any]) -> dict[Split | None, tuple[Path, list[str]]]:
    """The names of the first images, and the file that has them: for each split of COCO's, else under None."""
    if section["format"] == "coco":
        files = {split: expanded(file) for split, file in section["annotations"].items()}
        return {
            split: (file, list(islice(_coco_names(file, section.get("encoding")), LOOKED_FOR)))
            for split, file in files.items()
        }
    dataset = load_dataset({"name": "mine", **section})
    file = expanded(next(iter(dataset.files.values())))
    with tempfile.TemporaryDirectory() as scratch:
        records = (record for record in open_source(dataset, Path(scratch)).records() if isinstance(record, Record))
        first = dict.fromkeys(record.image_path for record in islice(records, LOOKED_FOR))
    home = f"{file.absolute().parent.as_posix()}/"
    return {None: (file, [path.removeprefix(home) for path in first])}


def _coco_names(file: Path, encoding: str | None) -> Iterator[str]:
    for image in json_items(file, "images", encoding):
        if isinstance(image, dict) and isinstance(name := image.get("file_name"), str):
            yield name


def _around(file: Path) -> list[Path]:
    """Folders of images that belong to a folder of annotations: beside it, and in a folder `images` near it."""
    home = file.parent if file.parent.name else file.absolute().parent
    homes = [file.parent, home.parent] if ANNOTATIONS.fullmatch(home.name) else [file.parent]
    beside = [child for home in homes for child in _folders_in(home)]
    below = [child for folder in beside if IMAGES.fullmatch(folder.name) for child in _folders_in(folder)]
    return [*homes[1:], *beside, *below]


def _folders_in(folder: Path) -> list[Path]:
    if not os.access(folder, os.R_OK | os.X_OK):
        return []
    return [child for child in sorted(folder.iterdir()) if child.is_dir()]


def _share_of_files(folder: Path, file: Path, names: Sequence[str]) -> float:
    return count_files(names, folder, file) / len(names) if names else 0.0
