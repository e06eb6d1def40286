"""Where the images are that annotations name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from cusa.common.files import expanded

MOST = 0.5  # of the names that have to be files
ABSOLUTE = re.compile(r"/|[A-Za-z]:")


def image_path(root: str | None, beside: Path, name: str, prefix: str | None = None) -> str:
    """The absolute path of an image: `name` without `prefix` under `root`, or else in the folder of the file `beside`.

    Backslashes are those of Windows, unless there is a file with such a name.
    """
    name = without_prefix(name, prefix)
    folder = _folder(root, beside, os.getcwd())  # noqa: PTH109 - a Path per row would take a third of the time of reading
    if "\\" in name and not os.path.lexists(f"{folder}{name}"):
        name = name.replace("\\", "/")
    if "//" in name or "./" in name or name.startswith("/") or name.endswith(("/", ".")) or not name:
        return (Path(folder) / name).as_posix()
    return f"{folder}{name}"


@lru_cache(maxsize=64)
def _folder(root: str | None, beside: Path, here: str) -> str:
    folder = here / (expanded(root) if root is not None else beside.parent)
    return folder.as_posix().rstrip("/") + "/"


def image_paths(root: str | None, beside: Path, names: Sequence[Any], prefix: str | None) -> list[str] | None:
    """`image_path` of each name without `prefix`; None if one is not a text, or empty."""
    if set(map(type, names)) != {str} or "" in names:
        return None
    if prefix is not None:
        names = [without_prefix(name, prefix) for name in names]
    together = "\0".join(names)
    ends = ("//", "./", "\\", "\0/", "/\0", ".\0")
    if any(end in f"\0{together}\0" for end in ends):
        return [image_path(root, beside, name) for name in names]
    folder = _folder(root, beside, os.getcwd())  # noqa: PTH109 - see image_path
    return [folder + name for name in names]


def without_prefix(name: str, prefix: str | None) -> str:
    r"""A name without the folders `prefix` at its start; the name itself if it starts otherwise.

    Backslashes are those of Windows: `C:\data\a\1.jpg` without `C:/data` is `a/1.jpg`.
    """
    if prefix is None:
        return name
    plain, start = name.replace("\\", "/"), prefix.replace("\\", "/").rstrip("/") + "/"
    return plain.removeprefix(start) if plain.startswith(start) else name


def find_prefix(names: Sequence[str], folders: Iterable[Path], beside: Path) -> tuple[str, Path] | None:
    """The shortest prefix without which most of the names are files in one of `folders`, and this folder; or None.

    The first name says which prefixes there are. Of a relative path at least one folder stays: a file that has only its
    last name may be another image.
    """
    parts = PurePosixPath(names[0].replace("\\", "/")).parts if names else ()
    is_absolute = bool(parts) and ABSOLUTE.match(parts[0]) is not None
    for prefix in (str(PurePosixPath(*parts[:count])) for count in range(1, len(parts) - (not is_absolute))):
        shortened = [rest for name in names if (rest := without_prefix(name, prefix)) != name]
        for folder in folders:
            if count_files(shortened, folder, beside) > MOST * len(names):
                return prefix, folder
    return None


def count_files(names: Iterable[str], folder: Path, beside: Path) -> int:
    """How many of the names are files in a folder, which starts where the file `beside` does if it is relative."""
    return sum(is_file(image_path(str(folder), beside, name)) for name in names)


def is_file(path: str) -> bool:
    """Whether a text is the path of a file; also false for what no file can be called."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False
