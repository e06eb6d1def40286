"""The base of all sources of a gallery: entries in a fixed order, and a description that shows changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from cusa.common.text import unstorable
from cusa.gallery.store import GalleryModality, read_bytes

Wanted = Callable[[int], bool]


@dataclass(slots=True)
class Entry:
    """One item before it is embedded. `problem` says why it cannot be read, if that is known already.

    The picture is `content`, or the file `path`, or `size` bytes at `offset` of it. `in_shard` says that a shard of
    cusa holds it, shrunk and encoded already, and `plain` is what the shard's index says of it.
    """

    item: str
    path: str | None = None
    offset: int | None = None
    size: int | None = None
    captions: list[str] = field(default_factory=list)
    columns: dict[Any, Any] = field(default_factory=dict)
    content: bytes | None = None
    problem: str | None = None
    in_shard: bool = False
    plain: bool = False

    def picture(self) -> Path | bytes:
        """The picture to decode: a path, or bytes. Raises DataError if the bytes are not there."""
        if self.content is not None:
            return self.content
        path = Path(self.path or "")
        return path if self.offset is None else read_bytes(path, self.offset, self.size)


class Source(Protocol):
    """The items of a gallery. Entries have numbers from 0; the same source always gives the same ones."""

    modality: ClassVar[GalleryModality] = "image"
    copied_bytes: int = 0  # about the size of the pictures that have no place of their own, so that they are copied

    @property
    def total(self) -> int | None:
        """The number of entries, if it is known before they have been read."""
        ...

    def describe(self) -> dict[str, Any]:
        """The source for meta.json, with a digest or sizes and times, by which two runs are compared."""
        ...

    def entries(self, wanted: Wanted) -> Iterator[Entry | None]:
        """Every entry in order; None for an entry that is not wanted, so that skipping it costs little."""
        ...


def storable(name: str) -> str:
    """A name as text that Parquet can hold: bytes that are not UTF-8 are written as escapes."""
    if unstorable(name) is None:
        return name
    return name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def state_of_files(paths: Iterable[Path], names: Iterable[str]) -> str:
    """A digest of the names, sizes and times of files, so that a change is noticed without reading them."""
    digest = hashlib.sha256()
    for path, name in zip(paths, names, strict=True):
        status = path.stat()
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
