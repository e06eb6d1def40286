"""The image files that shards were written from: their sizes and times, so that a changed one is noticed.

No image is read for this: image_files.parquet, beside the tar files, has the size and time of each image file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cusa.annotations.tables import IMAGES, read_table, split_rows
from cusa.common.files import atomic_file, read_parquet
from cusa.errors import DataError

IMAGE_FILES = "image_files.parquet"
SCHEMA = pa.schema([("image_path", pa.string()), ("bytes", pa.int64()), ("modified", pa.timestamp("ns", "UTC"))])
FILES_AT_A_TIME = 4096
QUESTIONS_AT_A_TIME = 16  # a network file system answers many as fast as one


@dataclass(frozen=True)
class ImageChanges:
    """The images of a split that are not what the shards were written from, and how many images there are.

    `other` have another size or time, `gone` are not there any more.
    """

    images: int
    other: list[str]
    gone: list[str]


def describe_files(paths: Sequence[str]) -> pa.Table:
    """A table of SCHEMA with one row a path; `bytes` and `modified` are null if there is no such file."""
    starts = range(0, len(paths), FILES_AT_A_TIME)
    with ThreadPoolExecutor(QUESTIONS_AT_A_TIME) as pool:
        blocks = pool.map(_described, (paths[start : start + FILES_AT_A_TIME] for start in starts))
        found = np.fromiter(chain.from_iterable(chain.from_iterable(blocks)), np.int64, 2 * len(paths)).reshape(-1, 2)
    absent = found[:, 0] < 0
    size, time = (pa.array(column, pa.int64(), mask=absent) for column in found.T)
    return pa.table([pa.array(paths, pa.string()), size, time.cast(SCHEMA.field("modified").type)], schema=SCHEMA)


def _described(paths: Sequence[str]) -> list[tuple[int, int]]:
    """The size in bytes and the time in nanoseconds of each file, after links; -1 and 0 if there is none."""
    found = []
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 (a Path costs more than the question)
            found.append((status.st_size, status.st_mtime_ns))
        except (OSError, ValueError):
            found.append((-1, 0))
    return found


def write_image_files(table: pa.Table, folder: str | Path) -> None:
    """Write the table of `describe_files` into the folder of the shards."""
    with atomic_file(Path(folder) / IMAGE_FILES) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def changed_images(shards: str | Path, made_in: str | Path | None = None) -> ImageChanges | None:
    """Compare the images of a split with what its shards were written from.

    Images in the folder `made_in` were made from other files, so only their sizes are compared, not their times. None
    if nothing can be compared: there is no record, or none of the images is on this machine. Raises DataError if the
    record is damaged.
    """
    path = Path(shards) / IMAGE_FILES
    if not path.is_file():
        return None
    advice = f"delete {path}, and the images are taken to be what they were."
    before = read_parquet(path, advice)
    if before.schema != SCHEMA:
        raise DataError(f"{path} has other columns than {', '.join(SCHEMA.names)}; {advice}")
    paths = before["image_path"].to_pylist()
    now = describe_files(paths)
    was_there, is_there = (table["bytes"].is_valid().to_numpy() for table in (before, now))
    if not is_there.any():
        return None
    sizes, times = (_differ(before[name], now[name]) for name in ("bytes", "modified"))
    if made_in is not None:
        prefix = f"{Path(made_in).absolute().as_posix()}/"
        times &= ~np.fromiter((name.startswith(prefix) for name in paths), dtype=bool, count=len(paths))
    other, gone = is_there & (sizes | times), was_there & ~is_there
    return ImageChanges(len(paths), *([paths[row] for row in np.flatnonzero(rows)] for rows in (other, gone)))


def _differ(before: pa.ChunkedArray, now: pa.ChunkedArray) -> np.ndarray:
    first, second = (column.cast(pa.int64()).fill_null(-1).to_numpy() for column in (before, now))
    return np.asarray(first != second)


def record_image_files(shards: str | Path) -> bool:
    """Record the present images of results/{dataset}/shards/{split}, if an earlier release wrote no record.

    Nothing is recorded if there is a record or no folder, if none of the images is on this machine, or if the folder
    cannot be written. Returns whether a record was written. The time of the folder is not changed.
    """
    folder = Path(shards)
    annotations, split = folder.parents[1] / "annotations", folder.name
    if not folder.is_dir() or (folder / IMAGE_FILES).is_file():
        return False
    try:
        images = read_table(annotations, IMAGES)
        now = describe_files(images["image_path"].take(pa.array(split_rows(images, split))).to_pylist())
        if now["bytes"].null_count == len(now):
            return False
        status = folder.stat()
        write_image_files(now, folder)
        os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))
    except (DataError, OSError):
        return False
    return True
