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
        """The number of pictures."""
        return int(self._state[0])

    def describe(self) -> dict[str, Any]:
        """The folder, its number of pictures, and a digest of their names, sizes and times."""
        count, digest = self._state
        return {"kind": "folder", "place": storable(str(self.folder)), "items": count, "digest": digest}

    def entries(self, wanted: Wanted) -> Iterator[Entry | None]:
        """Every picture, called by its path from the folder."""
        for number, (name, _) in enumerate(self._files()):
            if not wanted(number):
                yield None
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
            try:
                status = entry.stat()
                state = f"{status.st_size}\0{status.st_mtime_ns}"
            except OSError:  # a broken link, which the embedding reports
                state = "none"
            digest.update(f"{name}\0{state}\n".encode("utf-8", "surrogateescape"))
            count += 1
        for what, number in ignored.items():
            log.info("%s: ignored %s %s", printable(str(self.folder)), f"{number:,}", what)
        return count, digest.hexdigest()

    def _files(self, ignored: Counter[str] | None = None) -> Iterator[tuple[str, os.DirEntry[str]]]:
        yield from self._within(str(self.folder), "", Counter() if ignored is None else ignored)

    def _within(self, folder: str, prefix: str, ignored: Counter[str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(
                f"{printable(folder)} cannot be read ({error.strerror}); give yourself the right to, or remove it."
            ) from None
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_hidden(entry.name):
                ignored[HIDDEN] += 1
            elif is_folder:
                if self.ignored_folder is None or Path(entry.path) != self.ignored_folder:
                    yield from self._within(entry.path, f"{prefix}{entry.name}/", ignored)
            elif entry.is_symlink() and entry.is_dir():
                ignored[LINKS] += 1
            elif entry.name.lower().endswith(IMAGE_ENDINGS):
                yield f"{prefix}{entry.name}", entry
            else:
                ignored[NO_PICTURES] += 1
