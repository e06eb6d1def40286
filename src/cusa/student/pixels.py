"""Pixels of a split that are decoded once, and then mapped into memory instead of decoding the shards each time.

    pixels/{student}/{split}/pixels.npy         uint8 [images, crop, crop, 3], as the student's transform makes them
    pixels/whole-pictures/{split}/pixels.npy    uint8 [bytes], the pictures of the shards, each [height, width, 3], one
                                                after the other; sizes.npy, int32 [images, 2], has height and width
    meta.json in both                           the transform, and the digest of the shards

The pixels are those that decoding the shards gives, bit for bit, so no result depends on which of the two is read.
Whole pictures are for trainings that cut random parts out of them.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from cusa.common.files import (
    atomic_folder,
    made_again,
    parquet_damage,
    read_array,
    read_json,
    require_space,
    sha256_of_file,
    write_json,
)
from cusa.common.progress import progress
from cusa.common.versions import versions
from cusa.common.workflow_files import workflow_command
from cusa.config.models import StudentSettings
from cusa.errors import DataError
from cusa.layout import META
from cusa.shards.reading import INDEX, STATISTICS, ShardReader
from cusa.student.registry import load_backbone
from cusa.teachers.registry import load_image_encoder
from cusa.teachers.transform import ImageTransform

log = logging.getLogger(__name__)
PIXELS = "pixels.npy"
SIZES = "sizes.npy"
AT_ONCE = 32  # images that a thread decodes before they are written


def transform_of_student(student: StudentSettings) -> ImageTransform:
    """The transform of a student with a trained image tower. Raises ConfigurationError if it cannot be loaded."""
    if student.towers is not None:
        return load_image_encoder(student.towers.image).transform
    transform = load_backbone(student).image_transform
    assert transform is not None
    return transform


def write_crops(shards: str | Path, transform: ImageTransform, folder: str | Path, threads: int = 1) -> None:
    """Decode the images of a split's shards as a student reads them, into `folder`, which appears when it is complete.

    Raises DataError if shards are missing or damaged, and if the disk lacks space.
    """
    reader, side = ShardReader(shards), transform.crop

    def decoded(rows: range) -> np.ndarray:
        images = [(reader.encoded(row), reader.plain(row)) for row in rows]
        return transform.batch(images).permute(0, 2, 3, 1).numpy()

    with atomic_folder(folder) as temporary:
        files = _write_pixels(temporary, (len(reader), side, side, 3), reader, decoded, threads)
        write_json(temporary / META, {"transform": asdict(transform), "files_sha256": files, **_origin(reader)})


def write_whole_pictures(shards: str | Path, folder: str | Path, threads: int = 1) -> None:
    """Decode the images of a split's shards in the size that they have there. Raises as `write_crops` does."""
    reader = ShardReader(shards)
    path = reader.folder / INDEX
    with parquet_damage(path):
        index = pq.read_table(path, columns=["height", "width"])
    sizes = np.stack([index["height"].to_numpy(), index["width"].to_numpy()], axis=1).astype(np.int32)

    def decoded(rows: range) -> np.ndarray:
        parts = []
        for row in rows:
            picture = ImageTransform.decoded(reader.encoded(row), reader.plain(row))
            if tuple(picture.shape[1:]) != tuple(sizes[row]):
                raise DataError(
                    f"{reader.folder}: image {row} has {picture.shape[1]} x {picture.shape[2]} pixels, but its index "
                    f"says {sizes[row, 0]} x {sizes[row, 1]}; delete the folder and run "
                    f"`{workflow_command('shards')}` again."
                )
            parts.append(picture.permute(1, 2, 0).reshape(-1).numpy())
        return np.concatenate(parts)

    with atomic_folder(folder) as temporary:
        np.save(temporary / SIZES, sizes)
        files = _write_pixels(temporary, (int(_bytes_of(sizes).sum()),), reader, decoded, threads)
        files[SIZES] = sha256_of_file(temporary / SIZES)
        write_json(temporary / META, {"transform": None, "files_sha256": files, **_origin(reader)})


def _bytes_of(sizes: np.ndarray) -> np.ndarray:
    """The bytes of RGB pictures by their height and width, int64 [images]."""
    pixels: np.ndarray = sizes.astype(np.int64).prod(axis=1)
    return 3 * pixels


def _write_pixels(
    folder: Path, shape: tuple[int, ...], reader: ShardReader, decoded: Callable[[range], np.ndarray], threads: int
) -> dict[str, str]:
    """Write what `decoded` makes of consecutive rows, by `threads` threads, as one array of this shape.

    Returns the SHA-256 of the file by its name.
    """
    require_space(folder, int(np.prod(shape, dtype=np.int64)), f"{folder.parent}/{PIXELS}")
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    # The file is not memory-mapped here: on a full disk, a write raises an error, and memory-mapping kills the process.
    start, digest = io.BytesIO(), hashlib.sha256()
    np.lib.format.write_array_header_1_0(start, header)
    with (folder / PIXELS).open("wb") as file:
        file.write(start.getvalue())
        digest.update(start.getvalue())
        blocks = _in_threads(decoded, len(reader), threads)
        for pixels in progress(blocks, len(reader), "images", "pixels", step=AT_ONCE):
            content = np.ascontiguousarray(pixels).data
            file.write(content)
            digest.update(content)
    return {PIXELS: digest.hexdigest()}


def _in_threads(decoded: Callable[[range], np.ndarray], count: int, threads: int) -> Iterator[np.ndarray]:
    """`decoded` of consecutive rows, in order; decoders and resizing release the interpreter lock."""
    blocks = [range(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for start in range(0, len(blocks), 4 * threads):
            yield from pool.map(decoded, blocks[start : start + 4 * threads])


def _origin(reader: ShardReader) -> dict[str, Any]:
    """The sources and the versions that pixels were made with."""
    return {
        "images": len(reader),
        "shards_sha256": sha256_of_file(reader.folder / STATISTICS),
        "versions": versions(),
    }


def _is_of(folder: Path, reader: ShardReader, transform: ImageTransform | None) -> bool:
    """Whether the pixels in a folder exist, and were made from these shards by this transform (None: in their size)."""
    if not (folder / META).is_file():
        return False
    meta = read_json(folder / META, made_again(folder))
    wanted = {
        "transform": None if transform is None else asdict(transform),
        "images": len(reader),
        "shards_sha256": sha256_of_file(reader.folder / STATISTICS),
    }
    # JSON has lists in place of tuples.
    found = {key: meta.get(key) for key in wanted} if isinstance(meta, dict) else {}
    if isinstance(looks := found.get("transform"), dict):
        found["transform"] = {key: tuple(each) if isinstance(each, list) else each for key, each in looks.items()}
    if found == wanted:
        log.info("pixels are mapped from %s", folder)
        return True
    log.warning(
        "%s is not used, but the shards are decoded: it was made from other shards, or for another transform. Delete "
        "it, and the workflow makes it again before the next training.",
        folder,
    )
    return False


class Crops:
    """The images of a split as a student reads them, mapped into memory."""

    def __init__(self, array: np.ndarray) -> None:
        """`array` is uint8 [images, crop, crop, 3]."""
        self.array = array

    @classmethod
    def open(cls, folder: Path, reader: ShardReader, transform: ImageTransform) -> Crops | None:
        """The pixels of these shards by this transform; None if there are none. Raises DataError for damaged ones."""
        if not _is_of(folder, reader, transform):
            return None
        return cls(_mapped(folder / PIXELS, (len(reader), transform.crop, transform.crop, 3)))

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, positions: np.ndarray) -> Tensor:
        """Copies of images by position, uint8 [B, 3, crop, crop], channels last."""
        return torch.from_numpy(self.array[positions]).permute(0, 3, 1, 2)


class WholePictures:
    """The pictures of a split in the size that they have in the shards, mapped into memory."""

    def __init__(self, array: np.ndarray, sizes: np.ndarray) -> None:
        """`array` is uint8 [bytes], `sizes`, int32 [images, 2], are heights and widths."""
        self.array, self.sizes = array, sizes
        self.ends = np.cumsum(_bytes_of(sizes))

    @classmethod
    def open(cls, folder: Path, reader: ShardReader) -> WholePictures | None:
        """The pictures of these shards; None if there are none. Raises DataError for damaged ones."""
        if not _is_of(folder, reader, None):
            return None
        sizes = np.array(read_array(folder / SIZES, made_again(folder)))
        if sizes.shape != (len(reader), 2) or sizes.dtype != np.int32:
            raise DataError(f"{folder / SIZES} holds {sizes.dtype} of shape {sizes.shape}; {made_again(folder)}")
        return cls(_mapped(folder / PIXELS, (int(_bytes_of(sizes).sum()),)), sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, position: int) -> Tensor:
        """A copy of one picture, uint8 [3, H, W]; its numbers lie in memory as a decoder leaves them."""
        height, width = self.sizes[position].tolist()
        end = int(self.ends[position])
        picture = np.array(self.array[end - 3 * height * width : end]).reshape(height, width, 3)
        return torch.from_numpy(picture).permute(2, 0, 1)


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    again = made_again(path.parent)
    array = read_array(path, again)
    if array.shape != shape or array.dtype != np.uint8:
        raise DataError(f"{path} holds {array.dtype} of shape {array.shape}, expected uint8 of shape {shape}; {again}")
    # A plain array: indexing one of numpy's memmap class runs code of Python for each batch.
    return np.asarray(array).view(np.ndarray)
