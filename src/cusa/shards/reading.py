"""Reading shards: images by position from a local disk, or shard after shard from a URL."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from cusa.common.files import made_again, parquet_damage, read_json
from cusa.common.workflow_files import workflow_command
from cusa.config.shards import Shards, Stream
from cusa.errors import DataError

INDEX = "index.parquet"
STATISTICS = "shards.json"
OPEN_SHARDS = 256
READ_BYTES = 1 << 20
SIGNALLED = 128  # a shell's exit status is this plus the number of the signal that ended the command
MEANING = {126: " (a file that cannot be run)", 127: " (no such command)"}


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
        """Read the index of a split's shards. Raises DataError when it does not exist or is damaged."""
        self.folder = Path(folder)
        path = self.folder / INDEX
        if not path.is_file():
            raise DataError(f"{path} does not exist; run `{workflow_command('shards')}` first.")
        with parquet_damage(path, made_again(folder)):
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
        size, offset = int(self.size[position]), int(self.offset[position])
        end = os.fstat(shard.fileno()).st_size
        content = os.pread(shard.fileno(), size, offset) if 0 <= offset <= end - size <= end else b""
        if not content or len(content) != size:
            raise DataError(
                f"{self.folder}/shard-{self.shard[position]:06d}.tar is shorter than its index says; "
                f"{made_again(self.folder)}"
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

    Raises DataError when a shard cannot be read, when the command that writes it fails (also after its last image), or
    when it does not contain the images that the index lists for it.
    """
    for shard in shards:
        url, count, expected = stream.of_shard(shard), 0, int((reader.shard == shard).sum())
        try:
            for sample in _samples(url):
                metadata = json.loads(sample["json"])
                encoded = next(sample[name] for name in (*EXTENSION_OF.values(), "img") if name in sample)
                position = int(np.searchsorted(reader.rows, metadata["row"]))
                if position == len(reader) or reader.rows[position] != metadata["row"]:
                    raise KeyError(f"row {metadata['row']}")
                yield StreamedImage(position, encoded, tuple(metadata["caption_rows"]))
                count += 1
        except ChildProcessError as error:
            raise _unreadable(url, shard, reader, f"{error} after {count} of {expected} images") from None
        except (OSError, tarfile.TarError, EOFError, zlib.error, ValueError, KeyError, StopIteration) as error:
            first = getattr(error, "strerror", None) or next(iter(error.args), "")
            raise _unreadable(url, shard, reader, f"{type(error).__name__}: {first}") from None
        if count != expected:
            raise DataError(
                f"{url} has {count} images, but {reader.folder} lists {expected} for it; either the shards there are "
                "different ones, or the connection broke. Copy the shards again."
            )


def _unreadable(url: str, shard: int, reader: ShardReader, reason: str) -> DataError:
    return DataError(
        f"{url} could not be read as shard {shard} of {reader.folder} ({reason}); "
        "check stream.url, and that the shards there are the ones that index.parquet in this folder lists."
    )


def _samples(url: str) -> Iterator[dict[str, Any]]:
    """The samples of the tar at a URL, in its order.

    For `pipe:` and most schemes, a command writes the tar. If the command fails, raises ChildProcessError with its exit
    status; the messages of the command are on standard error.
    """
    from webdataset.gopen import Pipe, gopen
    from webdataset.tariterators import group_by_keys, tar_file_expander

    stream = gopen(url)
    process = stream.proc if isinstance(stream, Pipe) else None
    if process is not None:
        stream.ignore_errors = True  # webdataset checks the exit status only sometimes, and accepts some failures
    try:
        try:
            yield from group_by_keys(tar_file_expander([{"url": url, "stream": stream}]))
        except GeneratorExit:
            raise
        except Exception:
            _require_success(process)
            raise
        _require_success(process)
    finally:
        if process is not None:
            process.stdout.close()
            process.terminate()
            process.wait()
        else:
            stream.close()


def _require_success(process: subprocess.Popen[bytes] | None) -> None:
    """Wait until a command has ended. Raises ChildProcessError when its exit status is not 0."""
    if process is None or process.stdout is None:
        return
    # A command that cannot write its last bytes would be ended by SIGPIPE.
    while process.stdout.read(READ_BYTES):
        pass
    if (status := process.wait()) == 0:
        return
    command = process.args if isinstance(process.args, str) else shlex.join(map(str, process.args))  # type: ignore[arg-type]
    number = -status if status < 0 else status - SIGNALLED
    killed = number in set(signal.Signals)
    what = f" (killed by {signal.Signals(number).name})" if killed else MEANING.get(status, "")
    status = SIGNALLED + number if killed else status
    raise ChildProcessError(f"the command `{command}` ended with exit status {status}{what}")


def settings_of(folder: Path) -> Shards:
    """How the images in a folder of shards are stored; the defaults if the folder does not exist.

    Shards of earlier releases do not say it, so it is read off their index.
    """
    if not (folder / INDEX).is_file():
        return Shards()
    if (settings := read_json(folder / STATISTICS, made_again(folder)).get("settings")) is not None:
        return Shards.model_validate(settings)
    with parquet_damage(folder / INDEX, made_again(folder)):
        index = pq.read_table(folder / INDEX, columns=["extension", "width", "height", "written"]).to_pydict()
    if not index["written"] or not index["written"][0]:
        return Shards(shorter_side=None)
    sides = zip(index["width"], index["height"], strict=True)
    return Shards(shorter_side=max(map(min, sides)), image_format=index["extension"][0])


@lru_cache(maxsize=OPEN_SHARDS)
def _open_shard(path: Path) -> io.FileIO:
    """A shard that is open for reading. It is closed when the cache drops it and no one reads it any more."""
    return io.FileIO(path)
