"""The user's own judgements: which test images are right answers to a caption, and which are not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa

from cusa.annotations.captions import clean_caption
from cusa.annotations.sources.rows import identity, malformed
from cusa.annotations.sources.source import MalformedRow
from cusa.annotations.table_rows import table_rows
from cusa.annotations.tables import IMAGES, JUDGED_PAIRS, cleaning_of, read_table, write_table
from cusa.common.files import expanded
from cusa.config.captions import CaptionCleaning
from cusa.errors import DataError, first_lines
from cusa.layout import DatasetFolder

log = logging.getLogger(__name__)
COLUMNS: Mapping[str, tuple[type, ...]] = {
    "image": (str, int, float),
    "caption": (str,),
    "right": (str, int, float, bool),
}
RIGHT = {"1": True, "true": True, "yes": True, "right": True, "0": False, "false": False, "no": False, "wrong": False}


def write_judged_pairs(folder: DatasetFolder, table: str | Path) -> None:
    """Write judged_pairs.parquet into a data set's annotations. Raises DataError as `judged_pairs` does."""
    write_table(folder.annotations / JUDGED_PAIRS, judged_pairs(folder.annotations, table))


def judged_pairs(annotations: Path, table: str | Path, cleaning: CaptionCleaning | None = None) -> pa.Table:
    """The judgements of a table, one a pair: image (int64), caption, cleaned (strings) and right (bool).

    `table` has a row for each judgement: `image` is an image's id, its path, or the name of its file; `caption` any
    text; `right` whether the image is a right answer to it (1 or 0, true or false, yes or no). `image` becomes the row
    number in images.parquet of the folder `annotations`, and captions are cleaned as those of the data set are, unless
    `cleaning` says how. Rows of images of other splits are left out and counted in the log.
    Raises DataError, with counts and examples, for rows that cannot be read, images that the data set does not have,
    and judgements of one pair that differ; and for a table without a right answer.
    """
    path = expanded(table)
    images, cleaning = _Images(annotations), cleaning or cleaning_of(annotations)
    found: dict[tuple[int, str], tuple[str, bool, str]] = {}
    problems: list[str] = []
    elsewhere = 0
    for place, row in table_rows(path):
        try:
            judgement = _judgement(row, place, images, cleaning)
        except DataError as error:
            problems.append(str(error))
            continue
        if judgement is None:
            elsewhere += 1
            continue
        image, caption, cleaned, right = judgement
        _, before, first = found.setdefault((image, cleaned), (caption, right, place))
        if before != right:
            problems.append(f"{place} says that the pair is {_named(right)}, but {first} that it is {_named(before)}.")
    if problems:
        raise DataError(f"{path} has {len(problems):,} judgements that cannot be used:{first_lines(problems)}")
    if elsewhere:
        log.info("%s: left out %s judgements of images of train and val", path, f"{elsewhere:,}")
    if not any(right for _, right, _ in found.values()):
        raise DataError(f"{path} has no right answer among the test images, so there is nothing to score.")
    return pa.table(
        {
            "image": pa.array([image for image, _ in found], pa.int64()),
            "caption": pa.array([caption for caption, _, _ in found.values()], pa.string()),
            "cleaned": pa.array([cleaned for _, cleaned in found], pa.string()),
            "right": pa.array([right for _, right, _ in found.values()], pa.bool_()),
        }
    )


def _judgement(row: Any, place: str, images: _Images, cleaning: CaptionCleaning) -> tuple[int, str, str, bool] | None:
    """The image's row, the caption, the cleaned caption, and whether it is right; None for another split's image."""
    if isinstance(row, MalformedRow):
        raise DataError(f"{place} {row.reason}.")
    if reason := malformed(row, COLUMNS):
        raise DataError(f"{place} {reason}. A table of judgements has the columns image, caption and right.")
    image = images.row_of(identity(row["image"]), place)
    if not images.is_test[image]:
        return None
    right = RIGHT.get(identity(row["right"]).strip().lower())
    if right is None:
        raise DataError(f"{place} has {row['right']!r} for `right`; expected 1 or 0, true or false, yes or no.")
    if not (cleaned := clean_caption(row["caption"], cleaning)):
        raise DataError(f"{place}: no word is left of the caption {row['caption']!r} after the clean-up.")
    return image, row["caption"], cleaned, right


def _named(right: bool) -> str:
    return "right" if right else "wrong"


class _Images:
    """The images of a data set by id, by path and by the name of their file."""

    def __init__(self, annotations: Path) -> None:
        table = read_table(annotations, IMAGES, ["image_id", "image_path", "split"])
        self.is_test = [split == "test" for split in table["split"].to_pylist()]
        ids: list[str] = table["image_id"].to_pylist()
        paths: list[str] = table["image_path"].to_pylist()
        self.by_name: dict[str, int | None] = {}
        for row, path in enumerate(paths):
            name = PurePath(path).name
            self.by_name[name] = None if name in self.by_name else row
        # Rows are in the order of the splits. The labelled images of a benchmark come last, so they do not hide others.
        self.by_id: dict[str, int] = {key: row for keys in (paths, ids) for row, key in reversed(list(enumerate(keys)))}

    def row_of(self, key: str, place: str) -> int:
        """The row of an image. Raises DataError if there is none, or several files have the name."""
        if (row := self.by_id.get(key)) is not None:
            return row
        if (row := self.by_name.get(PurePath(key).name)) is not None:
            return row
        if PurePath(key).name in self.by_name:
            raise DataError(f"{place} names the image {key}, as several of the data set are called; give its id.")
        raise DataError(f"{place} names the image {key}, which the data set does not have; give its id or its path.")
