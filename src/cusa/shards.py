"""WebDataset tars with an index beside them: written once, readable by plain `webdataset`, and by row at random.

A sample is {key}.jpg (or png, webp) with {key}.json holding its captions and row numbers. index.parquet gives the
byte range of every image inside its tar, so that training reads exactly the rows it wants with one pread each.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cusa.annotations import CAPTIONS, IMAGES, read_table, split_rows
from cusa.config import Shards, Stream
from cusa.errors import DataError
from cusa.files import sha256_of_file, whole_folder, write_json
from cusa.images import ImageTransform, open_rgb, resize_shorter_side
from cusa.progress import progress

if TYPE_CHECKING:
    import torch

INDEX = "index.parquet"
STATISTICS = "shards.json"
OPEN_SHARDS = 256
PILLOW_FORMAT = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
# Formats whose bytes may be kept as they are, by what Pillow calls them.
EXTENSION_OF = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
    "PPM": "ppm",
}


def write_split(annotations: str | Path, split: str, folder: str | Path, settings: Shards, threads: int = 1) -> None:
    """Write the shards and index.parquet of one split into `folder`, which appears whole or not at all.

    Images are decoded, turned upright and into RGB, shrunk to `settings.shorter_side` and encoded once; with
    `shorter_side` None the file's own bytes are stored. Raises DataError listing every image that fails.
    """
    images = read_table(annotations, IMAGES)
    captions = read_table(annotations, CAPTIONS)
    rows = split_rows(images, split)
    if not len(rows):
        raise DataError(
            f"{annotations}/{IMAGES} has no image of the split `{split}`; where that is a benchmark's, switch the "
            "benchmark off with null."
        )
    captions_of = _captions_by_image(captions)
    paths = images.column("image_path").take(pa.array(rows)).to_pylist()
    image_ids = images.column("image_id").take(pa.array(rows)).to_pylist()

    failed: list[str] = []
    index: list[dict[str, Any]] = []
    statistics: dict[str, dict[str, Any]] = {}
    with whole_folder(folder) as temporary:
        encoded = _encode_all(paths, settings, threads)
        samples = progress(zip(rows, paths, image_ids, encoded, strict=True), len(rows), "images", f"{split} shards")
        for number in range(-(-len(rows) // settings.samples_per_shard)):
            tar = temporary / f"shard-{number:06d}.tar"
            placed = _write_shard(tar, islice(samples, settings.samples_per_shard), captions_of, failed)
            index += placed
            statistics[tar.name] = {
                "samples": len(placed),
                "bytes": tar.stat().st_size,
                "sha256": sha256_of_file(tar),
            }
        if failed:
            shown = "\n    ".join(failed[:10])
            raise DataError(
                f"{len(failed)} images of {split} could not be decoded; replace them, or add unreadable_image to "
                f"dataset.skip and set dataset.check_images: decode:\n    {shown}"
            )
        pq.write_table(_index_table(index), temporary / INDEX)
        write_json(temporary / STATISTICS, {"split": split, "samples": len(index), "shards": statistics})


class ShardReader:
    """Random access to the images of one split, by position within the split (0 .. len - 1)."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / INDEX
        if not path.is_file():
            raise DataError(f"{path} does not exist; run `snakemake shards` first.")
        index = pq.read_table(path, columns=["shard", "offset", "size", "written", "row"])
        self.shard = index["shard"].to_numpy()
        self.offset = index["offset"].to_numpy()
        self.size = index["size"].to_numpy()
        self.written = index["written"].to_numpy(zero_copy_only=False)
        self.rows = index["row"].to_numpy()

    def __len__(self) -> int:
        return len(self.shard)

    def encoded(self, position: int) -> bytes:
        """The image file's bytes."""
        descriptor = _open_shard(self.folder / f"shard-{self.shard[position]:06d}.tar")
        size = int(self.size[position])
        found = os.pread(descriptor, size, int(self.offset[position]))
        if len(found) != size:
            raise DataError(
                f"{self.folder}/shard-{self.shard[position]:06d}.tar is shorter than its index says; delete the "
                "folder and run `snakemake shards` again."
            )
        return found

    def plain(self, position: int) -> bool:
        """Whether this project wrote the image itself: upright 8-bit RGB."""
        return bool(self.written[position])

    def pixels(self, positions: Sequence[int] | np.ndarray, transform: ImageTransform) -> torch.Tensor:
        """The images at `positions` as a model takes them: uint8 [B, 3, crop, crop], channels last."""
        return transform.batch([(self.encoded(position), self.plain(position)) for position in positions])


@dataclass(frozen=True)
class StreamedImage:
    """An image file as it came out of a shard, and its position in the split."""

    position: int
    encoded: bytes
    caption_rows: tuple[int, ...]


def read_shards(stream: Stream, reader: ShardReader, shards: Sequence[int]) -> Iterator[StreamedImage]:
    """The images of some shards, in their order. Raises DataError when a shard cannot be read, or is another one."""
    import webdataset

    for shard in shards:
        url = stream.of_shard(shard)
        dataset = webdataset.WebDataset([url], shardshuffle=False, nodesplitter=None, workersplitter=None)
        found = 0
        try:
            for sample in dataset:
                about = json.loads(sample["json"])
                encoded = next(sample[name] for name in (*EXTENSION_OF.values(), "img") if name in sample)
                position = int(np.searchsorted(reader.rows, about["row"]))
                if position == len(reader) or reader.rows[position] != about["row"]:
                    raise KeyError(f"row {about['row']}")
                yield StreamedImage(position, encoded, tuple(about["caption_rows"]))
                found += 1
        except (OSError, tarfile.TarError, ValueError, KeyError, StopIteration) as error:
            raise DataError(
                f"{url} could not be read as shard {shard} of {reader.folder} ({type(error).__name__}: {error}); "
                "check stream.url, and that the shards there are those that this folder's index.parquet lists."
            ) from None
        if found != (expected := int((reader.shard == shard).sum())):
            raise DataError(
                f"{url} has {found} images, but {reader.folder} lists {expected} for it; the shards there are others, "
                "or the connection broke. Copy them again."
            )


@lru_cache(maxsize=OPEN_SHARDS)
def _open_shard(path: Path) -> _Descriptor:
    return _Descriptor(path)


class _Descriptor(int):
    """A read-only file descriptor that closes itself when the cache lets it go."""

    def __new__(cls, path: Path) -> _Descriptor:
        return super().__new__(cls, os.open(path, os.O_RDONLY))

    def __del__(self) -> None:
        os.close(self)


def _captions_by_image(captions: pa.Table) -> dict[int, tuple[list[int], list[str]]]:
    grouped: dict[int, tuple[list[int], list[str]]] = {}
    columns = (captions["image"].to_pylist(), captions["caption"].to_pylist())
    for row, (image, caption) in enumerate(zip(*columns, strict=True)):
        rows, texts = grouped.setdefault(image, ([], []))
        rows.append(row)
        texts.append(caption)
    return grouped


def _encode_all(paths: list[str], settings: Shards, threads: int) -> Iterator[_Encoded | DataError]:
    """Encode in order with at most a few images a thread in memory; Pillow lets go of the interpreter lock."""

    def encode(path: str) -> _Encoded | DataError:
        try:
            return _Encoded(path, settings)
        except DataError as error:
            return error

    with ThreadPoolExecutor(max_workers=threads) as pool:
        for start in range(0, len(paths), 64 * threads):
            yield from pool.map(encode, paths[start : start + 64 * threads])


class _Encoded:
    def __init__(self, path: str, settings: Shards) -> None:
        self.written = settings.shorter_side is not None
        image = open_rgb(path)
        if settings.shorter_side is None:
            self.content = Path(path).read_bytes()
            self.extension = _extension(self.content)
        else:
            image = resize_shorter_side(image, settings.shorter_side)
            buffer = io.BytesIO()
            image.save(buffer, PILLOW_FORMAT[settings.image_format], quality=settings.quality)
            self.content = buffer.getvalue()
            self.extension = settings.image_format
        self.width, self.height = image.size


def bytes_per_image(paths: Sequence[str], settings: Shards) -> float:
    """The mean size of some images as shards would hold them; those that cannot be decoded do not count."""
    encoded = [image for image in _encode_all(list(paths), settings, threads=2) if isinstance(image, _Encoded)]
    return sum(len(image.content) for image in encoded) / max(1, len(encoded))


def _extension(content: bytes) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return EXTENSION_OF.get(image.format or "", "img")


def _write_shard(
    tar: Path,
    samples: Iterator[tuple[int, str, str, _Encoded | DataError]],
    captions_of: dict[int, tuple[list[int], list[str]]],
    failed: list[str],
) -> list[dict[str, Any]]:
    placed: list[dict[str, Any]] = []
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as writer:
        for row, path, image_id, encoded in samples:
            if isinstance(encoded, DataError):
                failed.append(f"{image_id}: {path}: {encoded}")
                continue
            key = f"{row:09d}"
            caption_rows, texts = captions_of.get(int(row), ([], []))
            about = {"image_id": image_id, "row": int(row), "captions": texts, "caption_rows": caption_rows}
            _add_member(writer, f"{key}.{encoded.extension}", encoded.content)
            _add_member(writer, f"{key}.json", json.dumps(about, ensure_ascii=False).encode("utf-8"))
            placed.append(
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
    for sample in placed:
        member = members[f"{sample['key']}.{sample['extension']}"]
        sample["offset"], sample["size"] = member.offset_data, member.size
    return placed


def _add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """No times, no owner: the same data gives the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _index_table(index: list[dict[str, Any]]) -> pa.Table:
    schema = pa.schema(
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
    return pa.Table.from_pylist(index, schema=schema)


def caption_count(folder: str | Path) -> int:
    """How many (image, caption) pairs a split's index holds."""
    index = pq.read_table(Path(folder) / INDEX, columns=["caption_rows"])
    return int(pc.sum(pc.list_value_length(index["caption_rows"])).as_py() or 0)
