"""The files in a tar, one after another, plain or compressed, and damage of the tar as a sentence."""

from __future__ import annotations

import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from cusa.common.files import refuse_unreadable
from cusa.common.text import refuse_pipe, refuse_stand_in
from cusa.errors import DataError, reason_of

LARGEST_MEMBER = 1 << 30  # bytes
CHUNK = 1 << 20  # bytes
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"(\xb5/\xfd")
EMPTY_BLOCK = bytes(tarfile.BLOCKSIZE)
DAMAGE = (tarfile.TarError, zlib.error, LZMAError, EOFError, OSError, ValueError, OverflowError)


class Member(NamedTuple):
    """A file in a tar: its sample's key, its ending in lower case, its name, and its bytes.

    `content` is a text, the reason, if the file cannot be read. The bytes are `size` bytes at `offset` of the tar,
    unless it is compressed.
    """

    key: str
    ending: str
    name: str
    content: bytes | str
    offset: int = 0
    size: int = 0


def tar_members(
    path: Path, endings: tuple[str, ...], contents: bool = True, others: Counter[str] | None = None
) -> Iterator[Member]:
    """The files whose names end in one of `endings`, in the order of the tar. Hidden files are left out.

    `others` counts the endings of the files that are left out for theirs.

    A key is the name without its ending, folders included, so names may contain dots. One file is in memory at a
    time; without `contents` none is read, and every `content` of a sound file is empty. Raises DataError if the tar
    is not there, is a pipe, is cut off or is damaged.
    """
    refuse_pipe(path)
    try:
        with tarfile.open(path, "r:*", errors="backslashreplace") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
                name = PurePosixPath(member.name)
                ending = name.suffix.lower()
                if member.isdir() or _is_hidden(name):
                    continue
                if ending not in endings:
                    if others is not None:
                        others[ending] += 1
                    continue
                key = name.as_posix()[: -len(ending)]
                yield Member(
                    key, ending, name.as_posix(), _content(tar, member, contents), member.offset_data, member.size
                )
            _require_end(tar, path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except DAMAGE as error:
        refuse_unreadable(path, error)
        refuse_stand_in(path)
        reason = reason_of(error).rstrip(":")  # tarfile lists what it has tried in further lines
        raise DataError(f"{path} is not a tar, or not a complete one ({reason}); it may have been cut off.") from None


def _is_hidden(name: PurePosixPath) -> bool:
    return any(part.startswith(".") and part != ".." for part in name.parts)


def is_compressed(path: Path) -> bool:
    """Whether a tar is compressed, so that its files have no offsets. The tar must exist."""
    with path.open("rb") as file:
        return file.read(6).startswith(COMPRESSED)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, read: bool) -> bytes | str:
    if not member.isreg():
        return "is not a file but a link or a device"
    if member.issparse():
        return "is a sparse file, which has holes"
    if member.size > LARGEST_MEMBER:
        return f"has {member.size:,} bytes, more than the {LARGEST_MEMBER:,} that a picture or a text may have"
    if not read:
        return b""
    file = tar.extractfile(member)
    assert file is not None
    # In chunks, so that a wrong size does not reserve memory.
    return b"".join(iter(lambda: file.read(CHUNK), b""))


def _require_end(tar: tarfile.TarFile, path: Path) -> None:
    """Raise DataError unless the tar ends where its last file ends.

    tarfile treats a damaged header, and a tar that was cut off between two files, as the end.
    """
    file: IO[bytes] = tar.fileobj  # type: ignore[assignment]
    file.seek(tar.offset)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise DataError(f"{path} has no end: it was cut off after {tar.offset:,} bytes.")
    if block != EMPTY_BLOCK:
        raise DataError(f"{path} has a damaged header at byte {tar.offset:,}; what follows cannot be read.")
    while rest := file.read(CHUNK):
        if rest.strip(b"\0"):
            raise DataError(
                f"{path} goes on after the end of a tar at byte {tar.offset:,}, as when tars are joined with cat; name "
                "the tars one by one."
            )
