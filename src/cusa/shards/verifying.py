"""Whether shards still have the bytes that were written: the sha256 of each tar file in shards.json.

If a disk loses a few bytes of a picture, decoding raises no error, but gives another picture.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc

from cusa.common.files import made_again, read_mapping, read_parquet, sha256_of_file
from cusa.common.images import open_rgb
from cusa.errors import DataError
from cusa.shards.reading import INDEX, STATISTICS

ZEROS = re.compile(rb"\0{32,}")  # a compressed picture has no such long run of zeros


def require_intact(folder: str | Path) -> None:
    """Raise DataError, with shard and key, if a tar file of a split is missing or is not as it was written."""
    for sentence in damaged_shards(folder):
        raise DataError(sentence)


def damaged_shards(folder: str | Path) -> Iterator[str]:
    """A sentence for each tar file of a split that is missing or damaged. Raises DataError if shards.json is."""
    folder = Path(folder)
    again = made_again(folder)
    for name, written in read_mapping(folder / STATISTICS, again).get("shards", {}).items():
        tar = folder / name
        if not tar.is_file():
            yield f"{tar} is missing; {again}"
        elif (size := tar.stat().st_size) != written["bytes"]:
            yield f"{tar} has {size:,} bytes, but {written['bytes']:,} were written; {again}"
        elif sha256_of_file(tar) != written["sha256"]:
            key = _damaged_key(tar)
            where = "which of its samples is damaged cannot be told" if key is None else f"the sample {key} is damaged"
            yield f"{tar} has other bytes than were written (its sha256 differs): {where}; {again}"


def _damaged_key(tar: Path) -> str | None:
    """The key of the first sample that cannot be read, or else that seems to have lost bytes; None if there is none."""
    doubtful: str | None = None
    number = int(tar.stem.removeprefix("shard-"))
    index = read_parquet(tar.parent / INDEX, made_again(tar.parent))
    rows = index.filter(pc.equal(index["shard"], number)).select(["key", "offset", "size", "extension"]).to_pylist()
    with tar.open("rb") as file:
        for row in rows:
            file.seek(row["offset"] - tarfile.BLOCKSIZE)
            header, content = file.read(tarfile.BLOCKSIZE), file.read(row["size"])
            # The captions follow: a header and JSON.
            file.seek(-row["size"] % tarfile.BLOCKSIZE, 1)
            following = file.read(tarfile.BLOCKSIZE)
            captions = file.read(_size(following))
            key, extension = str(row["key"]), row["extension"]
            if _is_damaged(header, content, f"{key}.{extension}") or _are_lost(following, captions, f"{key}.json"):
                return key
            if doubtful is None and ZEROS.search(content):
                doubtful = key
    return doubtful


def _is_damaged(header: bytes, content: bytes, name: str) -> bool:
    if _name(header) != name or _size(header) != len(content):
        return True
    try:
        open_rgb(content)
    except DataError:
        return True
    return False


def _are_lost(header: bytes, content: bytes, name: str) -> bool:
    if _name(header) != name:
        return True
    try:
        json.loads(content)
    except ValueError:
        return True
    return False


def _name(header: bytes) -> str | None:
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
    except tarfile.HeaderError:
        return None


def _size(header: bytes) -> int:
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size
    except tarfile.HeaderError:
        return 0
