"""WebDataset tars, as img2dataset writes them: KEY.jpg with KEY.txt, KEY.json or both, read where they lie.

Of a plain tar, only the headers are read in passing, and the pictures by the threads that decode them. A compressed tar
is unpacked from its first to its last byte.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from cusa.annotations.problems import printable
from cusa.annotations.sources.rows import captions_in
from cusa.annotations.sources.tar_members import Member, is_compressed, tar_members
from cusa.annotations.sources.webdataset import CAPTION, ENDINGS, RARE_ENDINGS, TEXT
from cusa.common.image_files import IMAGE_ENDINGS, file_problem
from cusa.common.json_stream import unrepeated
from cusa.common.text import text_of, unstorable
from cusa.config.data_files import TAR_ENDINGS, matching_files
from cusa.errors import ConfigurationError, DataError, reason_of
from cusa.gallery.sources.source import Entry, Wanted, state_of_files, storable
from cusa.gallery.store import GalleryModality, read_bytes

log = logging.getLogger(__name__)
SCALAR = (str, int, float, bool)
WITHOUT_PICTURE, BROKEN_TEXT = "texts without a picture beside them", "captions or JSON files that cannot be read"
OTHER_ENDINGS = "files whose endings are none of a picture, .txt or .json"
MASKS = "files with endings of masks or depth beside a picture"
SHOWN = 5  # endings that the log names


@dataclass
class _Sample:
    """The files of one key that stand one after another."""

    key: str
    pictures: list[Member] = field(default_factory=list)
    texts: list[Member] = field(default_factory=list)

    def take_masks(self) -> list[Member]:
        """Remove the pictures that are mostly masks or depth of another one, and return them."""
        rare = [picture for picture in self.pictures if picture.ending in RARE_ENDINGS]
        usual = [picture for picture in self.pictures if picture.ending not in RARE_ENDINGS]
        self.pictures = usual or rare
        return rare if usual else []


@dataclass
class _LeftOut:
    """What is left out of the tars, counted by its kind, with an example of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    endings: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, example: str) -> None:
        self.counts[kind] += 1
        self.examples.setdefault(kind, example)

    def log(self) -> None:
        for kind, count in self.counts.items():
            log.warning("%s %s in the tars are left out; for instance, %s", f"{count:,}", kind, self.examples[kind])
        if self.endings:
            shown = ", ".join(printable(ending) or "none" for ending, _ in self.endings.most_common(SHOWN))
            more = ", ..." if len(self.endings) > SHOWN else ""
            log.info("%s %s in the tars are left out (%s%s)", f"{self.endings.total():,}", OTHER_ENDINGS, shown, more)


class TarSource:
    """The pictures of tars, called `{tar}/{name in it}`. `caption_key` is the key of the JSON that has the caption."""

    modality: ClassVar[GalleryModality] = "image"
    total: int | None = None

    def __init__(self, files: Sequence[Path], caption_key: str | None = None) -> None:
        """Raises DataError if a tar is not there."""
        for path in files:
            if (found := file_problem(path)) is not None:
                raise DataError(f"{path}: {found[0]}; correct its name, or the pattern that names it.")
        self.files, self.caption_key = [path.absolute() for path in files], caption_key
        self.copied_bytes = sum(path.stat().st_size for path in self.files if is_compressed(path))
        common = os.path.commonpath([path.parent for path in self.files])
        self.names = [storable(path.relative_to(common).as_posix()) for path in self.files]

    def describe(self) -> dict[str, Any]:
        """The tars, their number, and a digest of their names, sizes and times."""
        digest = state_of_files(self.files, self.names)
        place = storable(os.path.commonpath(self.files))
        return {
            "kind": "tars",
            "place": place,
            "files": len(self.files),
            "digest": digest,
            "caption_key": self.caption_key,
        }

    def entries(self, wanted: Wanted) -> Iterator[Entry | None]:
        """Every picture of every tar. A damaged tar gives its sound pictures, then an entry with its problem."""
        number, odd = 0, _LeftOut()
        for path, name in zip(self.files, self.names, strict=True):
            packed, seen = is_compressed(path), set[str]()
            try:
                for sample in _samples(path, packed, odd.endings):
                    for mask in sample.take_masks():
                        odd.add(MASKS, f"{name}/{printable(storable(mask.name))}")
                    if sample.texts and not sample.pictures:
                        odd.add(WITHOUT_PICTURE, f"{name}/{printable(storable(sample.texts[0].name))}")
                    for picture in sample.pictures:
                        entry = self._entry(path, name, sample, picture, packed, odd) if wanted(number) else None
                        if entry is not None and picture.name in seen:
                            entry.item, entry.problem = f"{entry.item} ({number})", "its tar has its name twice"
                        seen.add(picture.name)
                        number += 1
                        yield entry
            except DataError as error:
                yield Entry(name, problem=str(error)) if wanted(number) else None
                number += 1
        odd.log()

    def _entry(self, path: Path, name: str, sample: _Sample, picture: Member, packed: bool, odd: _LeftOut) -> Entry:
        entry = Entry(f"{name}/{storable(picture.name)}", str(path))
        if isinstance(picture.content, str):
            entry.problem = f"it {picture.content}"
            return entry
        if packed:
            entry.path, entry.content = None, picture.content
        else:
            entry.offset, entry.size = picture.offset, picture.size
        text, metadata = None, dict[str, Any]()
        for member in sample.texts:
            try:
                content = _read(path, member, packed)
                if member.ending == TEXT:
                    text = text_of(content, "its text")
                else:
                    metadata = _object(content)
            except (ValueError, RecursionError, DataError) as error:
                odd.add(BROKEN_TEXT, f"{name}/{printable(storable(member.name))}: {printable(reason_of(error))}")
        entry.captions, reason = self._captions(text, metadata)
        if reason is not None:
            odd.add(BROKEN_TEXT, f"that of {printable(entry.item)} {printable(reason)}")
        columns = {key: value for key, value in metadata.items() if key not in (CAPTION, self.caption_key)}
        entry.columns = {key: value for key, value in columns.items() if _is_storable(key, value)}
        return entry

    def _captions(self, text: str | None, metadata: dict[str, Any]) -> tuple[list[str], str | None]:
        """The captions of a sample, and the reason why there is none if they cannot be read."""
        key = self.caption_key or CAPTION
        if self.caption_key is None and text is not None:
            metadata = {key: text}
        if metadata.get(key) is None:
            return [], None
        captions, reason = captions_in(metadata, key)
        return [caption for caption in captions if caption.strip()], reason


def tar_files(place: str) -> list[Path]:
    """The tars that a file, a pattern or a folder names. Raises ConfigurationError for an invalid pattern."""
    try:
        return [Path(path) for path in matching_files(place, TAR_ENDINGS)]
    except ValueError as error:
        raise ConfigurationError(f"{error}.") from None


def _read(path: Path, member: Member, packed: bool) -> bytes:
    if isinstance(member.content, str):
        raise DataError(f"{member.name} {member.content}")
    return member.content if packed else read_bytes(path, member.offset, member.size)


def _object(content: bytes) -> dict[str, Any]:
    """The object of a JSON file. Raises ValueError for anything else, and for a key with two values."""
    found = json.loads(content, object_pairs_hook=unrepeated)
    if not isinstance(found, dict):
        raise ValueError(f"is a {type(found).__name__}, expected a JSON object")
    return found


def _is_storable(key: str, value: Any) -> bool:
    if not isinstance(value, SCALAR) or unstorable(key) is not None:
        return False
    return unstorable(value) is None if isinstance(value, str) else True


def _samples(path: Path, packed: bool, others: Counter[str]) -> Iterator[_Sample]:
    current = _Sample("")
    for member in tar_members(path, ENDINGS, packed, others):
        if member.key != current.key:
            yield current
            current = _Sample(member.key)
        (current.pictures if member.ending in IMAGE_ENDINGS else current.texts).append(member)
    yield current
