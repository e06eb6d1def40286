"""Writing shards: WebDataset tar files with an index, readable by the package `webdataset` and by row in any order.

A sample is an image {key}.jpg (or png, webp) and a {key}.json with its captions and row numbers. index.parquet gives
the byte range of every image inside its tar file, so training reads each image that it needs with one pread.
"""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cusa.annotations.tables import CAPTIONS, IMAGES, read_table, split_rows
from cusa.common.files import atomic_folder, sha256_of_file, write_json
from cusa.common.images import decoded_rgb, resize_shorter_side
from cusa.common.progress import progress, stopwatch
from cusa.config.dataset_section import MAX_PIXELS
from cusa.config.shards import Shards
from cusa.errors import DataError, first_lines
from cusa.shards.image_files import describe_files, write_image_files
from cusa.shards.reading import EXTENSION_OF, INDEX, STATISTICS

log = logging.getLogger(__name__)
INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.int32()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("extension", pa.string()),
        ("row", pa.int64()),
        ("caption_rows", pa.list_(pa.int64())),
        ("written", pa.bool_()),
    ]
)
PILLOW_FORMAT = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
IMAGES_AHEAD = 64
# Longest sides in pixels that JPEG and WebP can store, and that libpng decodes by default.
LONGEST_SIDE = {"jpg": 65_500, "webp": 16_383, "png": 1_000_000}


def write_split(
    annotations: str | Path,
    split: str,
    folder: str | Path,
    settings: Shards,
    threads: int = 1,
    max_pixels: int = MAX_PIXELS,
    part: int = 0,
    parts: int = 1,
) -> None:
    """Write the shards and index.parquet of one split into `folder`, which appears only when it is complete.

    With `parts`, only the shards of one of them, `part` counted from 0; `join_shards` makes the same files of all
    parts. Images are decoded, converted to upright RGB, shrunk to `settings.shorter_side` pixels and encoded once. If
    `shorter_side` is None, the original bytes of each file are stored. An image that is still longer than
    `settings.image_format` can store becomes a PNG. image_files.parquet has the sizes and times of the files.
    Raises DataError when the split has no image, and when images cannot be decoded, or have more than `max_pixels`
    pixels: the message counts them and shows the first ten.
    """
    done = stopwatch(log)
    images = read_table(annotations, IMAGES)
    rows = split_rows(images, split)
    if not len(rows):
        raise DataError(
            f"{annotations}/{IMAGES} has no image of the split `{split}`; if only a benchmark needs this split, switch "
            "that benchmark off with null."
        )
    first, end = (-(-len(rows) // settings.samples_per_shard) * edge // parts for edge in (part, part + 1))
    rows = rows[first * settings.samples_per_shard : end * settings.samples_per_shard]
    captions_of = _captions_by_image(read_table(annotations, CAPTIONS), rows)
    paths = images.column("image_path").take(pa.array(rows)).to_pylist()
    image_ids = images.column("image_id").take(pa.array(rows)).to_pylist()

    failed: list[str] = []
    index: list[dict[str, Any]] = []
    statistics: dict[str, dict[str, Any]] = {}
    with atomic_folder(folder) as temporary:
        # Before the images are read, so that a change while they are read is noticed.
        write_image_files(describe_files(paths), temporary)
        encoded = _encode_all(paths, settings, threads, max_pixels)
        samples = progress(zip(rows, paths, image_ids, encoded, strict=True), len(rows), "images", f"{split} shards")
        for number in range(first, end):
            tar = temporary / f"shard-{number:06d}.tar"
            entries = _write_shard(tar, islice(samples, settings.samples_per_shard), captions_of, failed)
            index += entries
            statistics[tar.name] = {
                "samples": len(entries),
                "bytes": tar.stat().st_size,
                "sha256": sha256_of_file(tar),
            }
        _refuse_undecodable(failed, split)
        pq.write_table(pa.Table.from_pylist(index, schema=INDEX_SCHEMA), temporary / INDEX)
        content = {"split": split, "samples": len(index), "settings": settings.model_dump(mode="json")}
        write_json(temporary / STATISTICS, {**content, "shards": statistics})
    size = sum(each["bytes"] for each in statistics.values())
    done(f"{split}: {len(index):,} images in {len(statistics):,} tar files of {size / 1e6:,.1f} MB together")


def _refuse_undecodable(failed: list[str], split: str) -> None:
    if not failed:
        return
    raise DataError(
        f"{len(failed)} images of {split} could not be decoded; replace them. Images of the data set are left out if "
        "you add unreadable_image to dataset.skip and set dataset.check_images: decode; labelled images of a "
        f"benchmark, if you take them out of its folder or table:{first_lines(failed, 10)}"
    )


def _captions_by_image(captions: pa.Table, images: np.ndarray) -> dict[int, tuple[list[int], list[str]]]:
    """The row numbers and texts of each image's captions, by the image's row number, of the images at these rows."""
    grouped: dict[int, tuple[list[int], list[str]]] = {}
    wanted = np.flatnonzero(np.isin(captions["image"].to_numpy(), images))
    mine = captions.select(["image", "caption"]).take(pa.array(wanted))
    columns = (wanted.tolist(), mine["image"].to_pylist(), mine["caption"].to_pylist())
    for row, image, caption in zip(*columns, strict=True):
        rows, texts = grouped.setdefault(image, ([], []))
        rows.append(row)
        texts.append(caption)
    return grouped


def _encode_all(paths: list[str], settings: Shards, threads: int, max_pixels: int) -> Iterator[_Encoded | str]:
    """Encode images in order, the next ones while one is written. Threads are enough: Pillow releases Python's lock.

    At most IMAGES_AHEAD images a thread are encoded and not yet taken. An image that cannot be decoded gives the
    reason. It is a text, because an exception keeps the image in memory.
    """

    def encode(path: str) -> _Encoded | str:
        try:
            return _Encoded(path, settings, max_pixels)
        except DataError as error:
            return str(error)

    started: deque[Future[_Encoded | str]] = deque()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            for path in paths:
                if len(started) == IMAGES_AHEAD * threads:
                    yield started.popleft().result()
                started.append(pool.submit(encode, path))
            while started:
                yield started.popleft().result()
        finally:  # if the caller does not take the rest
            pool.shutdown(wait=False, cancel_futures=True)


class _Encoded:
    """An image as it is stored: its bytes, file extension, width and height in pixels.

    `written` is true for upright 8-bit RGB that torchvision decodes, as this module writes images.
    """

    def __init__(self, path: str, settings: Shards, max_pixels: int) -> None:
        self.written = settings.shorter_side is not None
        with decoded_rgb(path, max_pixels) as image:
            if settings.shorter_side is None:
                self.content = Path(path).read_bytes()
                self.extension = EXTENSION_OF.get(image.format or "", "img")
                self.width, self.height = image.size
            else:
                shrunk = resize_shorter_side(image, settings.shorter_side)
                self.content, self.extension, self.written = encode_image(shrunk, settings)
                self.width, self.height = shrunk.size


def encode_image(image: Image.Image, settings: Shards) -> tuple[bytes, str, bool]:
    """The bytes and file extension of an 8-bit RGB image as shards store it, and whether torchvision decodes it.

    An image that is too long for `settings.image_format` becomes a PNG, which Pillow decodes and torchvision does not.
    """
    too_long = max(image.size) > LONGEST_SIDE[settings.image_format]
    extension = "png" if too_long else settings.image_format
    buffer = io.BytesIO()
    image.save(buffer, PILLOW_FORMAT[extension], quality=settings.quality)
    return buffer.getvalue(), extension, not too_long


def bytes_per_image(paths: Sequence[str], settings: Shards, max_pixels: int = MAX_PIXELS) -> float:
    """The mean size in bytes of some images as they are stored in shards, without those that cannot be decoded."""
    everything = _encode_all(list(paths), settings, threads=2, max_pixels=max_pixels)
    encoded = [image for image in everything if isinstance(image, _Encoded)]
    return sum(len(image.content) for image in encoded) / max(1, len(encoded))


def _write_shard(
    tar: Path,
    samples: Iterator[tuple[int, str, str, _Encoded | str]],
    captions_of: dict[int, tuple[list[int], list[str]]],
    failed: list[str],
) -> list[dict[str, Any]]:
    """Write one tar file and return the index entries of its images; descriptions of failed images go to `failed`."""
    entries: list[dict[str, Any]] = []
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as writer:
        for row, _, image_id, encoded in samples:
            if isinstance(encoded, str):
                failed.append(f"{image_id}: {encoded}")
                continue
            key = f"{row:09d}"
            caption_rows, texts = captions_of.get(int(row), ([], []))
            metadata = {"image_id": image_id, "row": int(row), "captions": texts, "caption_rows": caption_rows}
            _add_member(writer, f"{key}.{encoded.extension}", encoded.content)
            _add_member(writer, f"{key}.json", json.dumps(metadata, ensure_ascii=False).encode("utf-8"))
            entries.append(
                {
                    "key": key,
                    "shard": int(tar.stem.removeprefix("shard-")),
                    "extension": encoded.extension,
                    "width": encoded.width,
                    "height": encoded.height,
                    "row": int(row),
                    "caption_rows": caption_rows,
                    "written": encoded.written,
                }
            )
    with tarfile.open(tar) as written:
        members = {member.name: member for member in written}
    for entry in entries:
        member = members[f"{entry['key']}.{entry['extension']}"]
        entry["offset"], entry["size"] = member.offset_data, member.size
    return entries


def _add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file without time and owner, so that the same data always give the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
