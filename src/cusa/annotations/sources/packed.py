"""Base for formats whose files contain the pictures: the folder that pictures are written to, and their splits."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cusa.annotations.sources.several_files import SeveralFiles
from cusa.annotations.sources.source import LeftOut, MalformedRow, Record
from cusa.common.files import atomic_folder, link_or_copy, require_space
from cusa.config.dataset import PackedDataset

# (place of the signature, signature, ending) of the picture formats that people have. The name of a file in a tar may
# lie about its format, and a table has no name.
SIGNATURES = (
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"\x89PNG\r\n\x1a\n", ".png"),
    (8, b"WEBP", ".webp"),
    (0, b"GIF8", ".gif"),
    (0, b"BM", ".bmp"),
    (0, b"II*\0", ".tif"),
    (0, b"MM\0*", ".tif"),
    (4, b"ftypavif", ".avif"),
    (4, b"ftypheic", ".heic"),
)
OTHER_ENDING = ".img"


class PictureFolder:
    """Writes pictures as {first two digits}/{other digits of their SHA-256}{ending}, for instance 3f/9a0c....jpg.

    Equal pictures are one file, so a picture in two splits has the same path in both. The same data always give the
    same paths. Memory does not grow with the pictures. `place` is where they are written; if that is not `folder`,
    which the paths name, they are part of its pictures.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = self.place = self.temporary = folder.absolute()
        self.most: int | None = None
        self.kept: list[str] = []
        self.names: set[str] = set()
        self.seen = 0
        self.random = random.Random(0)

    @contextmanager
    def open(self, sources: Sequence[str]) -> Iterator[None]:
        """Make the folder at `place`, which appears when the block ends.

        Raises DataError if `sources` do not fit on its disk.

        The pictures need about the size of the files that they come from.
        """
        if self.most is None:
            needed = sum(Path(path).stat().st_size for path in sources if Path(path).is_file())
            require_space(self.place, needed, f"{self.place}, for the pictures of {len(sources):,} files,")
        with atomic_folder(self.place) as self.temporary:
            yield

    def add(self, content: bytes) -> tuple[str, str]:
        """Write a picture. Returns the path that it will have and its digest, 32 hexadecimal digits."""
        digest = hashlib.sha256(content).hexdigest()[:32]
        name = f"{digest[:2]}/{digest[2:]}{ending_of(content)}"
        if self._is_wanted(name):
            path = self.temporary / name
            path.parent.mkdir(exist_ok=True)
            if not path.exists():
                path.write_bytes(content)
        return f"{self.folder.as_posix()}/{name}", digest

    def add_all(self, folder: Path) -> None:
        """Add the pictures of another such folder, without copying them where the file system has hard links."""
        for path in folder.glob("*/*"):
            mine = self.temporary / path.parent.name / path.name
            mine.parent.mkdir(exist_ok=True)
            if not mine.exists():
                link_or_copy(path, mine)

    def _is_wanted(self, name: str) -> bool:
        """Whether to write a picture; with a largest number, a later picture replaces a random one (algorithm R)."""
        if self.most is None:
            return True
        if name in self.names:
            return False
        self.seen += 1
        place = len(self.kept) if len(self.kept) < self.most else self.random.randrange(self.seen)
        if place >= self.most:
            return False
        if place < len(self.kept):
            (self.temporary / self.kept[place]).unlink()
            self.names.remove(self.kept[place])
        self.kept[place : place + 1] = [name]
        self.names.add(name)
        return True

    def has(self, path: str) -> bool:
        """Whether a picture was written; true for pictures outside this folder."""
        prefix = f"{self.folder.as_posix()}/"
        return self.most is None or not path.startswith(prefix) or path.removeprefix(prefix) in self.names


def ending_of(content: bytes) -> str:
    """The ending of a picture by its first bytes; OTHER_ENDING where no signature is known."""
    found = (ending for start, sign, ending in SIGNATURES if content.startswith(sign, start))
    return next(found, OTHER_ENDING)


class PackedSource(SeveralFiles):
    """Reads files that hold pictures, one after the other."""

    def __init__(self, dataset: PackedDataset, image_folder: Path) -> None:
        super().__init__(dataset)
        self.pictures = PictureFolder(image_folder)

    def sample_images(self, count: int) -> None:
        """Write at most `count` pictures."""
        self.pictures.most = count

    def has_image(self, path: str) -> bool:
        """Whether the picture at `path` was written, or is a file of the user's."""
        return self.pictures.has(path)

    def records(self) -> Iterator[Record | MalformedRow | LeftOut]:
        """Every caption of every file. The folder of pictures is complete when the last one has been yielded."""
        files = self.files()
        with self.pictures.open([str(path) for path, _ in files]):
            yield from self.records_of(files)
