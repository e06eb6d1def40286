"""Versions of an index on disk: the old one answers until the new one is complete and meta.json names it.

The files of a version are in index-versions/{fingerprint}/. index.faiss and duplicates.parquet beside meta.json are
symbolic links to them, for other programs; if the file system has no links, they are copies.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cusa.common.files import atomic_file, atomic_folder, read_json, sha256_of_file
from cusa.errors import DataError
from cusa.index.meta import (
    ADDED,
    DUPLICATES_FILE,
    INDEX_FILE,
    META,
    VERSIONS,
    IndexMeta,
    index_of,
    read_meta,
    write_index,
)

LINKS = (INDEX_FILE, DUPLICATES_FILE)


def new_fingerprint() -> str:
    """A name that no other version of any index has."""
    return uuid.uuid4().hex[:16]


def now() -> str:
    """The time as meta.json has it: ISO 8601, UTC."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def require_free(folder: Path) -> None:
    """Raise DataError if the folder holds an index.faiss or duplicates.parquet that `cusa index` did not write."""
    meta = folder / META
    content = read_json(meta) if meta.is_file() else {}
    ours = isinstance(content, dict) and content.get("index") is not None
    for name in LINKS:
        if (path := folder / name).exists() and not path.is_symlink() and not ours:
            raise DataError(
                f"{path} exists, and `cusa index` did not write it; move it away, or name another folder by --output."
            )


def publish(folder: Path, index: IndexMeta, write_files: Callable[[Path], None]) -> IndexMeta:
    """Publish a version of the index of `folder`: its files (`write_files` writes them into a folder), meta.json,
    links.

    Readers see the old version or the new one, and a crash at any moment leaves either. Versions that nothing names
    any more are deleted. Returns `index` with its size.
    """
    require_free(folder)
    version = folder / VERSIONS / index.fingerprint
    with atomic_folder(version) as temporary:
        write_files(temporary)
        for file in temporary.iterdir():
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
        digests = {file.name: sha256_of_file(file) for file in sorted(temporary.iterdir())}
    size = (version / INDEX_FILE).stat().st_size
    index = index.model_copy(update={"bytes": size, "files_sha256": digests})
    write_index(folder, index)
    for name in LINKS:
        _link(folder, name, version)
    sweep(folder)
    return index


def sweep(folder: Path) -> None:
    """Delete versions and added galleries that meta.json does not name, as a crash or a newer version leaves them."""
    index = index_of(folder, read_meta(folder))
    named = {folder / VERSIONS / index.fingerprint, *(folder / part.folder for part in index.galleries)}
    for parent in (folder / VERSIONS, folder / ADDED):
        for path in parent.iterdir() if parent.is_dir() else ():
            if path not in named:
                shutil.rmtree(path, ignore_errors=True)


def _link(folder: Path, name: str, version: Path) -> None:
    temporary = folder / f".{name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        temporary.symlink_to((version / name).relative_to(folder))
    except OSError:  # for instance exFAT has no symbolic links
        with atomic_file(folder / name) as copy:
            shutil.copyfile(version / name, copy)
    else:
        temporary.replace(folder / name)
