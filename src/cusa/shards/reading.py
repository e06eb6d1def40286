"""Reading shards: by position from this machine's disk, or one after the other from a URL."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from cusa.config.shards import Stream
from cusa.errors import DataError

if TYPE_CHECKING:
    pass


INDEX = "index.parquet"
STATISTICS = "shards.json"
OPEN_SHARDS = 256


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
