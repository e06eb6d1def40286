"""Compares and restores the times of files, and checks whether a file's content has changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cusa.common.files import sha256_of_file

# Archives and some file systems keep times to two seconds.
RESOLUTION = 2.0
# Snakemake uses the time of this file in a folder as the folder's time.
FOLDER_TIME = ".snakemake_timestamp"


def lost_times(recorded: Mapping[str, float]) -> bool:
    """Whether files were copied without their times: none of those that exist has the time recorded for it.

    A file that was made again or edited has another time too, but then the others have theirs.
    """
    existing = {path: time for path, time in recorded.items() if os.path.lexists(path)}
    return bool(existing) and not any(abs(_time(path) - time) <= RESOLUTION for path, time in existing.items())


def newest_time(folders: Iterable[str]) -> float | None:
    """The time of the newest file under some folders; None if there is no file."""
    return max((path.lstat().st_mtime for folder in folders for path in Path(folder).rglob("*")), default=None)


def set_times(times: Mapping[str, float]) -> bool:
    """Give files that exist their times. False if the file system or the owner does not allow it."""
    try:
        for path, time in times.items():
            for place in (path, f"{path}/{FOLDER_TIME}"):
                if os.path.exists(place) and os.stat(place).st_mtime != time:  # noqa: PTH110, PTH116
                    os.utime(place, (time, time))
                # Links have times of their own, which Snakemake compares too.
                if os.path.islink(place) and os.lstat(place).st_mtime != time:  # noqa: PTH114
                    os.utime(place, (time, time), follow_symlinks=False)
    except OSError:
        return False
    return True


def _time(path: str) -> float:
    stamp = f"{path}/{FOLDER_TIME}"
    return os.lstat(stamp if os.path.lexists(stamp) else path).st_mtime


def is_newer(path: str | Path, other: str | Path) -> bool:
    """Whether a file is newer than another; False if one of them is not there."""
    try:
        return Path(path).stat().st_mtime > Path(other).stat().st_mtime
    except OSError:
        return False


def none_is_newer(paths: Iterable[str | Path], other: str | Path) -> bool:
    """Whether a file is there, and none of `paths` is newer."""
    return Path(other).exists() and not any(is_newer(path, other) for path in paths)


def description(path: str | Path) -> dict[str, int | str]:
    """The identity of a file's content: its size in bytes and its SHA-256."""
    return {"bytes": Path(path).stat().st_size, "sha256": sha256_of_file(path)}


def is_same(path: str | Path, described: Mapping[str, int | str]) -> bool:
    """Whether a file has the size and the SHA-256 of a description. False if it cannot be read."""
    try:
        return Path(path).stat().st_size == described.get("bytes") and description(path) == dict(described)
    except OSError:
        return False
