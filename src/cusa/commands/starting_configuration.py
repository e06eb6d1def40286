"""`cusa init`: a starting configuration for the user's own data, derived from the data."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from cusa.annotations.delimited import IMAGE_NAME, delimited_rows, sniffed
from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.rows import json_items, json_rows
from cusa.annotations.sources.source import Record
from cusa.annotations.table_rows import Reading, table_kind, table_rows
from cusa.commands.packed_files import packed_section
from cusa.commands.table_columns import find_columns
from cusa.common.json_stream import open_json
from cusa.config.dataset import SPLITS, DatasetSection, load_dataset, split_named
from cusa.config.dataset_tables import Column
from cusa.errors import ConfigurationError

SAMPLED_ROWS = 500
SHOWN_PAIRS = 3
HELD_OUT = {"val": 0.1, "test": 0.1}
CAPTIONS = """
# Captions stay as they are. This line cleans them as the paper does: lower case, no punctuation, at most 64 words.
# captions: {clean: published}
"""


@dataclass
class Start:
    """The section `dataset` of a starting configuration, why it is so, and what is unsure."""

    section: dict[str, Any]
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    text: str = ""

    def lines(self) -> Iterator[str]:
        """What `cusa init` prints: each decision with its reason, the first pairs as they are read, and warnings."""
        yield from self.reasons
        dataset = load_dataset(self.section)
        if not dataset.makes_images:
            yield "the first pairs as they are read:"
            yield from _first_pairs(dataset, self.warnings)
        for warning in self.warnings:
            yield f"WARNING: {warning}"


def starting_configuration(path: str | Path, images: str | Path | None = None, name: str | None = None) -> str:
    """The YAML text of an overlay for the data in `path`. See `look_at`."""
    return look_at(path, images, name).text


def look_at(path: str | Path, images: str | Path | None = None, name: str | None = None) -> Start:
    """A starting configuration for the data in `path`: a table, a JSON file, or a folder of {split}.json files.

    `images` is the folder that image paths start from; without it, the folder of `path` and the folders in it are
    tried. `name` is the name of the data set. Raises ConfigurationError when the format of the data is not recognised,
    and DataError when the file is damaged.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ConfigurationError(f"{path} does not exist; name a table, a JSON file or a folder of JSON files.")
    if (packed := packed_section(path)) is not None:
        start = Start(packed)
    else:
        start = Start(_folder(path)) if path.is_dir() else _one_file(path, images)
    start.reasons.insert(0, f"format is {start.section['format']}, by what is in {path}")
    if images is not None:
        start.section["image_root"] = str(images)
    plain = re.sub(r"[^A-Za-z0-9_.\-]+", "-", path.name.removesuffix(".gz").partition(".")[0]).strip("-.")
    dataset = {"name": name or plain or "mine", **start.section}
    start.section = dataset
    load_dataset(dataset)
    overlay = {"dataset": dataset, "benchmarks": {"eccv_caption": None, "image_retrieval": None, "sts": None}}
    text = f"# Written by `cusa init {path}`; every key is explained in config/README.md.\n"
    start.text = text + yaml.safe_dump(overlay, sort_keys=False, allow_unicode=True) + CAPTIONS
    return start


def _first_pairs(dataset: DatasetSection, warnings: list[str]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as scratch:
        records = (row for row in open_source(dataset, Path(scratch)).records() if isinstance(row, Record))
        missing = []
        for record in islice(records, SHOWN_PAIRS):
            yield f"    {record.split}: {record.image_path}: {record.caption}"
            if not Path(record.image_path).is_file():
                missing.append(record.image_path)
    if missing:
        warnings.append(f"{missing[0]} does not exist; correct dataset.image_root, or give the folder with --images")


def _one_file(path: Path, images: str | Path | None) -> Start:
    """One function a kind of file."""
    if path.suffix.lower() == ".token":
        return _token(path)
    if table_kind(path) == "json" and (start := _json_object(path)) is not None:
        return start
    return _table(path, images)


def _token(path: Path) -> Start:
    lists = {split: _matching_file(path.parent, rf"(.*[_-])?{split}\.txt") for split in SPLITS}
    if not all(lists.values()):
        raise ConfigurationError(
            f"{path} is Flickr30K's token file, which does not say the split of an image; use format: flickr30k with a "
            "list of images for each split, see config/README.md."
        )
    splits = {split: str(file) for split, file in lists.items()}
    return Start({"format": "flickr30k", "file": str(path), "splits": splits})


def _json_object(path: Path) -> Start | None:
    """Karpathy's file, or None for rows. Raises ConfigurationError for one of COCO's files, which has one split."""
    with open_json(path) as stream:
        first = next(stream.entries(), None) if stream.kind == "object" else None
    if first not in ("images", "info", "licenses", "annotations", "dataset", "type"):
        return None
    image: Any = next(json_items(path, "images"), None)
    if isinstance(image, Mapping) and "sentences" in image:
        return Start({"format": "karpathy", "file": str(path)})
    raise ConfigurationError(
        f"{path} looks like one of COCO's files, which have one split each; name their folder, with train, val and "
        "test in the names of the files."
    )


def _folder(path: Path) -> dict[str, Any]:
    files = {split: _matching_file(path, rf"(.*[_-])?{split}\d*\.jsonl?(\.gz)?") for split in SPLITS}
    if missing := [split for split, file in files.items() if file is None]:
        names = ", ".join(sorted(child.name for child in path.iterdir())[:8])
        raise ConfigurationError(
            f"{path} has no JSON file for {', '.join(missing)} (it holds {names}); expected train.json, val.json and "
            "test.json, or names such as new_train.json and captions_train2017.json."
        )
    annotations = {split: str(file) for split, file in files.items()}
    first = Path(annotations["train"])
    with open_json(first) as stream:
        key = next(stream.entries(), None) if stream.kind == "object" else None
    if key in ("images", "info", "licenses", "annotations", "type"):
        return {"format": "coco", "annotations": annotations}
    row: Any = next((row for _, row in json_rows(first)), None)
    kind = "albef" if isinstance(row, dict) and "image" in row else "published"
    return {"format": kind, "annotations": annotations}


def _matching_file(folder: Path, pattern: str) -> Path | None:
    return next((child for child in sorted(folder.iterdir()) if re.fullmatch(pattern, child.name)), None)


def _table(path: Path, images: str | Path | None) -> Start:
    section: dict[str, Any] = {"format": "table", "file": str(path)}
    reasons = []
    if table_kind(path) == "delimited":
        dialect = sniffed(path)
        first = next(delimited_rows(path, dialect), None)
        reasons.append(f"the separator is {dialect.separator!r}")
        if first is not None and any(IMAGE_NAME.search(cell.strip()) for cell in first.cells):
            section["heading"] = False
            reasons.append(f"heading is false: the first row, {', '.join(first.cells)}, holds an image")
    reading = Reading(heading=section.get("heading"))
    rows = [row for _, row in islice(table_rows(path, None, reading), SAMPLED_ROWS) if isinstance(row, dict)]
    if not rows:
        raise ConfigurationError(f"{path} has no rows; expected at least one image with a caption.")
    folders = (
        [Path(images)] if images else [path.parent, *sorted(each for each in path.parent.iterdir() if each.is_dir())]
    )
    found = find_columns(path, rows, folders)
    columns = {"image": found.image, "caption": found.captions if len(found.captions) > 1 else found.captions[0]}
    columns |= {key: name for key, name in (("label", found.label), ("split", found.split)) if name is not None}
    section["columns"] = columns
    if found.image_name is not None:
        section["image_name"] = found.image_name
    if found.split is None:
        section["held_out"] = dict(HELD_OUT)
        found.reasons.append("held_out: no column says the split, so a tenth is drawn for val and a tenth for test")
    else:
        _look_at_splits(found.split, path, reading, found.warnings)
    if images is None and found.image_root is not None and found.image_root != path.parent:
        section["image_root"] = str(found.image_root)
    return Start(section, reasons + found.reasons, found.warnings)


def _look_at_splits(column: Column, path: Path, reading: Reading, warnings: list[str]) -> None:
    """Warn of names in the whole column that mean no split, and of splits without a row."""
    names = Counter(str(row.get(column)) for _, row in table_rows(path, None, reading) if isinstance(row, dict))
    if unknown := [f"`{name}` ({count:,} rows)" for name, count in names.items() if split_named(name) is None]:
        warnings.append(
            f"the split column has {', '.join(unknown[:8])}, which name no split; say in dataset.split_names what they "
            "mean, for instance {NAME: test} or {NAME: skip}"
        )
    if missing := [split for split in SPLITS if split not in map(split_named, names)]:
        shares = ", ".join(f"{split}: 0.1" for split in missing)
        hint = "" if "train" in missing else f"; dataset.held_out: {{{shares}}} draws it from the images of train"
        warnings.append(f"no row of the split column is of {' or '.join(missing)}{hint}")
