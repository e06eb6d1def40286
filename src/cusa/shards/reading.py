"""Reading shards: images by position from a local disk, or shard after shard from a URL."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from cusa.config.shards import Stream
from cusa.errors import DataError

INDEX = "index.parquet"
STATISTICS = "shards.json"
OPEN_SHARDS = 256


# File extensions of the image formats whose bytes can be stored unchanged, by Pillow's name of the format.
EXTENSION_OF = {
    "JPEG": "jpg",
    "MPO": "jpg",  # a JPEG that further ones follow
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
    "PPM": "ppm",
    "AVIF": "avif",
    "HEIF": "heic",
    "JPEG2000": "jp2",
}


class ShardReader:
    """Random access to the images of one split, by position within the split (0 .. len - 1)."""

    def __init__(self, folder: str | Path) -> None:
        """Read the index of a split's shards. Raises DataError when it does not exist."""
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
        """The bytes of an image file. Raises DataError when the tar file is shorter than the index says."""
        shard = _open_shard(self.folder / f"shard-{self.shard[position]:06d}.tar")
        size = int(self.size[position])
        content = os.pread(shard.fileno(), size, int(self.offset[position]))
        if len(content) != size:
            raise DataError(
                f"{self.folder}/shard-{self.shard[position]:06d}.tar is shorter than its index says; delete the "
                "folder and run `snakemake shards` again."
            )
        return content

    def plain(self, position: int) -> bool:
        """Whether the image is upright 8-bit RGB that torchvision decodes, not original bytes or a very long PNG."""
        return bool(self.written[position])


@dataclass(frozen=True)
class StreamedImage:
    """The bytes of an image file from a shard, its position in the split, and the rows of its captions."""

    position: int
    encoded: bytes
    caption_rows: tuple[int, ...]


def read_shards(stream: Stream, reader: ShardReader, shards: Sequence[int]) -> Iterator[StreamedImage]:
    """Read the images of some shards in order, from the URL of `stream`. `reader` has the index of all shards.

    Raises DataError when a shard cannot be read, or does not hold the images that the index lists for it.
    """
    import webdataset

    for shard in shards:
        url = stream.of_shard(shard)
        dataset = webdataset.WebDataset([url], shardshuffle=False, nodesplitter=None, workersplitter=None)
        count = 0
        try:
            for sample in dataset:
                metadata = json.loads(sample["json"])
                encoded = next(sample[name] for name in (*EXTENSION_OF.values(), "img") if name in sample)
                position = int(np.searchsorted(reader.rows, metadata["row"]))
                if position == len(reader) or reader.rows[position] != metadata["row"]:
                    raise KeyError(f"row {metadata['row']}")
                yield StreamedImage(position, encoded, tuple(metadata["caption_rows"]))
                count += 1
        except (OSError, tarfile.TarError, ValueError, KeyError, StopIteration) as error:
            raise DataError(
                f"{url} could not be read as shard {shard} of {reader.folder} ({type(error).__name__}: {error}); "
                "check stream.url, and that the shards there are the ones that index.parquet in this folder lists."
            ) from None
        if count != (expected := int((reader.shard == shard).sum())):
            raise DataError(
                f"{url} has {count} images, but {reader.folder} lists {expected} for it; either the shards there are "
                "different ones, or the connection broke. Copy the shards again."
            )


@lru_cache(maxsize=OPEN_SHARDS)
def _open_shard(path: Path) -> io.FileIO:
    """A shard that is open for reading. It is closed when the cache drops it and no one reads it any more."""
    return io.FileIO(path)
