"""A folder of pictures, with all folders in it, in the order of the names."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from cusa.annotations.labelled_images import is_hidden
from cusa.annotations.problems import printable
from cusa.common.image_files import IMAGE_ENDINGS
from cusa.common.text import unstorable
from cusa.errors import DataError
from cusa.gallery.sources.source import Entry, Wanted, storable
from cusa.gallery.store import GalleryModality

log = logging.getLogger(__name__)
HIDDEN, NO_PICTURES, LINKS = (
    "hidden files and folders",
    "files that are not pictures by their endings",
    "links to folders",
)
SHOWN_ENDINGS = 8
_Found = tuple[str, os.DirEntry[str] | str]  # the path from the folder; a text is the reason why it cannot be read


class FolderSource:
    """The pictures of a folder. Memory holds the names of one folder and of those that it lies in at a time."""

    modality: ClassVar[GalleryModality] = "image"
    copied_bytes = 0

    def __init__(self, folder: Path, ignored_folder: Path | None = None) -> None:
        """`ignored_folder` is left out: where the gallery is written, if that lies within the folder."""
        self.folder = folder.absolute()
        self.ignored_folder = None if ignored_folder is None else ignored_folder.absolute()

    @property
    def total(self) -> int:
        """The number of pictures and of folders that cannot be read."""
        return int(self._state[0])

    @property
    def has_pictures(self) -> bool:
        """Whether there is a picture, and not only folders that cannot be read."""
        return any(not isinstance(entry, str) for _, entry in self._files())

    def describe(self) -> dict[str, Any]:
        """The folder, its number of items, and a digest of their names, sizes and times."""
        count, digest = self._state
        return {"kind": "folder", "place": storable(str(self.folder)), "items": count, "digest": digest}

    def entries(self, wanted: Wanted) -> Iterator[Entry | None]:
        """Every picture, called by its path from the folder; a folder that cannot be read is an unreadable item."""
        for number, (name, entry) in enumerate(self._files()):
            if not wanted(number):
                yield None
                continue
            if isinstance(entry, str):
                yield Entry(storable(name), problem=entry)
                continue
            path = f"{self.folder}/{name}"
            if unstorable(name) is not None or unstorable(path) is not None:
                yield Entry(storable(name), problem="its name is not UTF-8 text; rename it, for instance with convmv")
            else:
                yield Entry(name, path)

    @cached_property
    def _state(self) -> tuple[int, str]:
        count, digest, ignored = 0, hashlib.sha256(), Counter[str]()
        for name, entry in self._files(ignored):
            state = entry if isinstance(entry, str) else _state_of(entry)
            digest.update(f"{name}\0{state}\n".encode("utf-8", "surrogateescape"))
            count += 1
        endings = {what: number for what, number in ignored.items() if what.startswith(".") or not what}
        counts = Counter({what: number for what, number in ignored.items() if what not in endings})
        if endings:
            shown = sorted(endings, key=lambda ending: -endings[ending])[:SHOWN_ENDINGS]
            named = ", ".join(f"{endings[ending]:,} {printable(ending) or 'without one'}" for ending in shown)
            more = ", ..." if len(endings) > SHOWN_ENDINGS else ""
            counts[f"{NO_PICTURES} ({named}{more})"] = sum(endings.values())
        for what, number in counts.items():
            log.info("%s: ignored %s %s", printable(str(self.folder)), f"{number:,}", what)
        return count, digest.hexdigest()

    def _files(self, ignored: Counter[str] | None = None) -> Iterator[_Found]:
        """The pictures. Folders wait in a list, not on Python's stack, so they may lie in each other to any depth."""
        ignored = Counter() if ignored is None else ignored
        waiting = [self._sorted(str(self.folder), "")]
        while waiting:
            name, entry = next(waiting[-1], ("", None))
            if entry is None:
                waiting.pop()
            elif isinstance(entry, str):
                yield name, entry
            elif is_hidden(entry.name):
                ignored[HIDDEN] += 1
            elif _is_folder(entry, follow=False):
                if self.ignored_folder is None or Path(entry.path) != self.ignored_folder:
                    waiting.append(self._sorted(entry.path, f"{name}/"))
            elif entry.is_symlink() and _is_folder(entry, follow=True):
                ignored[LINKS] += 1
            elif entry.name.lower().endswith(IMAGE_ENDINGS):
                yield name, entry
            else:
                ignored[os.path.splitext(entry.name)[1].lower()] += 1  # noqa: PTH122 - a Path per file would be slow

    def _sorted(self, folder: str, prefix: str) -> Iterator[_Found]:
        """What is in a folder, or why it cannot be read. Raises DataError if that is the folder that the user named."""
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            problem = f"cannot be read ({error.strerror or error}); give yourself the right to, or remove it"
            if not prefix:
                raise DataError(f"{printable(folder)} {problem}.") from None
            yield prefix, f"this folder {problem}"
            return
        yield from ((f"{prefix}{entry.name}", entry) for entry in entries)


def _is_folder(entry: os.DirEntry[str], follow: bool) -> bool:
    """Whether an entry is a folder. What cannot be told, as of links that lead in a circle, is taken for a file."""
    try:
        return entry.is_dir(follow_symlinks=follow)
    except OSError:
        return False


def _state_of(entry: os.DirEntry[str]) -> str:
    try:
        status = entry.stat()
    except OSError:  # a broken link, which the embedding reports
        return "none"
    return f"{status.st_size}\0{status.st_mtime_ns}"
