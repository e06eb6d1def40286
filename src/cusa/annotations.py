"""From a source's records to the published JSON and the Parquet tables whose row numbers everything later uses.

All problems of a data set are collected and reported together, before anything else is computed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cusa.captions import clean_caption
from cusa.config import DatasetSection
from cusa.errors import DataError
from cusa.files import whole_file, write_json
from cusa.images import image_problem
from cusa.progress import progress
from cusa.sources import MalformedRow, Record, Source, open_source

SPLITS = ("train", "val", "test")
EXAMPLES = 5
IMAGES = "images.parquet"
CAPTIONS = "captions.parquet"
PROBLEMS = "problems.json"
EXTENDED_POSITIVES = "extended_positives.parquet"
SENTENCE_PAIRS = "sentence_pairs.parquet"

WHAT_TO_DO = {
    "missing_image": "image files that do not exist: correct the paths or dataset.image_root",
    "unreadable_image": "image files that cannot be decoded: replace them",
    "empty_caption": "captions without a word after clean-up: correct them",
    "malformed_row": "rows that are not records: correct them",
    "two_paths": "image ids that name two different files: give each image its own id",
    "two_splits": "images in more than one split, which lets the test set leak: keep each in one",
    "empty_split": "splits without a usable image and caption: every one of train, val and test needs some",
}


@dataclass
class Problems:
    """Everything wrong with a data set: counts and the first few examples of each kind."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, example: str) -> None:
        """Count one problem of a kind in WHAT_TO_DO."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        shown = self.examples.setdefault(kind, [])
        if len(shown) < EXAMPLES:
            shown.append(example)

    def refuse_unless_skipped(self, skip: Iterable[str]) -> None:
        """Raise DataError describing every kind that `skip` does not name."""
        skipped = set(skip)
        lines = []
        for kind, count in self.counts.items():
            if kind in skipped:
                continue
            option = f" (or add {kind} to dataset.skip)" if kind in SKIPPABLE else ""
            lines.append(f"{count} {WHAT_TO_DO[kind]}{option}.")
            lines += [f"    {example}" for example in self.examples[kind]]
            if count > EXAMPLES:
                lines.append(f"    ... and {count - EXAMPLES} more")
        if lines:
            raise DataError("the data set has problems:\n" + "\n".join(lines))


SKIPPABLE = ("missing_image", "unreadable_image", "empty_caption", "malformed_row")


@dataclass
class _Image:
    path: str
    split: str
    label: str | None
    captions: list[str] = field(default_factory=list)


def convert(dataset: DatasetSection, folder: str | Path, image_folder: str | Path, threads: int = 1) -> None:
    """Read a data set and write {split}.json, images.parquet, captions.parquet and problems.json into `folder`.

    Rows are grouped by split (train, val, test, then others); row numbers are positions in the two tables. Formats
    that list them also get extended_positives.parquet (caption, image) and sentence_pairs.parquet.
    Raises DataError when the data has problems that `dataset.skip` does not name.
    """
    folder = Path(folder)
    source = open_source(dataset, Path(image_folder))
    problems = Problems()
    images = _collect(source.records(), problems)
    _check_images(images, dataset, problems, threads)
    _check_splits(images, problems)
    problems.refuse_unless_skipped(dataset.skip)

    folder.mkdir(parents=True, exist_ok=True)
    splits = list(dict.fromkeys([*SPLITS, *(image.split for image in images.values())]))
    # An image whose captions were all skipped as empty cannot be trained or asked for; its captions are counted.
    usable = [(key, image) for key, image in images.items() if image.captions or image.split not in SPLITS]
    ordered = sorted(usable, key=lambda item: splits.index(item[1].split))
    _write_tables(ordered, folder)
    for split in SPLITS:
        _write_json_rows(folder / f"{split}.json", ((key, image) for key, image in ordered if image.split == split))
    _write_benchmark_data(source, dataset, ordered, folder)
    write_json(folder / PROBLEMS, {"skipped": problems.counts, "examples": problems.examples})


def split_rows(table: pa.Table, split: str) -> np.ndarray:
    """Row numbers (int64) of one split in images.parquet or captions.parquet."""
    return np.flatnonzero(table.column("split").to_numpy(zero_copy_only=False) == split)


def read_table(folder: str | Path, name: str, columns: list[str] | None = None) -> pa.Table:
    """Read one of the Parquet tables. Raises DataError when it is not there."""
    path = Path(folder) / name
    if not path.is_file():
        raise DataError(f"{path} does not exist; run `snakemake annotations` first.")
    return pq.read_table(path, columns=columns)


def _collect(records: Iterable[Record | MalformedRow], problems: Problems) -> dict[str, _Image]:
    images: dict[str, _Image] = {}
    for record in records:
        if isinstance(record, MalformedRow):
            problems.add("malformed_row", f"{record.where} {record.why}")
            continue
        image = images.get(record.image_id)
        if image is None:
            image = images[record.image_id] = _Image(record.image_path, record.split, record.label)
        elif image.path != record.image_path:
            problems.add("two_paths", f"{record.image_id}: {image.path} and {record.image_path}")
        if image.split != record.split:
            problems.add("two_splits", f"{record.image_id}: {image.split} and {record.split}")
        elif record.caption is not None:
            if clean_caption(record.caption):
                image.captions.append(record.caption)
            else:
                problems.add("empty_caption", f"{record.image_id}: {record.caption!r}")
    return images


def _check_images(images: dict[str, _Image], dataset: DatasetSection, problems: Problems, threads: int) -> None:
    """Find missing and undecodable files; they leave `images`, so that skipping them is possible."""
    with ThreadPoolExecutor(max_workers=threads) as pool:
        found = pool.map(lambda image: image_problem(image.path, dataset.check_images), images.values())
        checked = progress(found, len(images), "images", "checking images")
        broken = [(key, why) for key, why in zip(list(images), checked, strict=True) if why is not None]
    for key, why in broken:
        kind = "missing_image" if why == "the file does not exist" else "unreadable_image"
        problems.add(kind, f"{key}: {images[key].path}: {why}")
        del images[key]


def _check_splits(images: dict[str, _Image], problems: Problems) -> None:
    by_path: dict[str, tuple[str, str]] = {}
    for key, image in images.items():
        if image.split not in SPLITS:
            continue
        other_key, other_split = by_path.setdefault(image.path, (key, image.split))
        if other_split != image.split:
            problems.add("two_splits", f"{image.path}: {other_key} in {other_split} and {key} in {image.split}")
    for split in SPLITS:
        if not any(image.split == split and image.captions for image in images.values()):
            problems.add("empty_split", split)


def _write_tables(ordered: list[tuple[str, _Image]], folder: Path) -> None:
    columns: dict[str, list[Any]] = {
        "image_id": [key for key, _ in ordered],
        "image_path": [image.path for _, image in ordered],
        "split": [image.split for _, image in ordered],
        "label": [image.label for _, image in ordered],
    }
    types = pa.schema([(name, pa.string()) for name in columns])
    _write_table(folder / IMAGES, pa.table(columns, schema=types))
    rows = [(caption, row, image.split) for row, (_, image) in enumerate(ordered) for caption in image.captions]
    captions = pa.table(
        {
            "caption": pa.array([caption for caption, _, _ in rows], pa.string()),
            "cleaned": pa.array([clean_caption(caption) for caption, _, _ in rows], pa.string()),
            "image": pa.array([row for _, row, _ in rows], pa.int64()),
            "split": pa.array([split for _, _, split in rows], pa.string()),
        }
    )
    _write_table(folder / CAPTIONS, captions)


def _write_json_rows(path: Path, items: Iterable[tuple[str, _Image]]) -> None:
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = "[\n"
        for key, image in items:
            for caption in image.captions:
                row = {"image_path": image.path, "caption": caption, "image_id": key}
                file.write(separator + json.dumps(row, ensure_ascii=False))
                separator = ",\n"
        file.write("\n]\n")


def _write_benchmark_data(
    source: Source, dataset: DatasetSection, ordered: list[tuple[str, _Image]], folder: Path
) -> None:
    if "extended_positives" in dataset.provides:
        row_of = {key: row for row, (key, _) in enumerate(ordered)}
        positives = [(caption, row_of[key]) for caption, key in source.extended_positives() if key in row_of]
        table = pa.table(
            {
                "caption": pa.array([caption for caption, _ in positives], pa.string()),
                "cleaned": pa.array([clean_caption(caption) for caption, _ in positives], pa.string()),
                "image": pa.array([row for _, row in positives], pa.int64()),
            }
        )
        # Captions that clean up to nothing cannot be asked for; captions that clean up alike are one query.
        table = table.filter(pc.not_equal(table["cleaned"], ""))
        table = table.group_by(["cleaned", "image"], use_threads=False).aggregate([("caption", "first")])
        _write_table(folder / EXTENDED_POSITIVES, table.rename_columns(["cleaned", "image", "caption"]))
    if "sentence_pairs" in dataset.provides:
        pairs = list(source.sentence_pairs())
        table = pa.table(
            {
                "first": pa.array([pair.first for pair in pairs], pa.string()),
                "second": pa.array([pair.second for pair in pairs], pa.string()),
                "score": pa.array([pair.score for pair in pairs], pa.float64()),
            }
        )
        _write_table(folder / SENTENCE_PAIRS, table)


def _write_table(path: Path, table: pa.Table) -> None:
    with whole_file(path) as temporary:
        pq.write_table(table, temporary)
