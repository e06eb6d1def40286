"""Input formats: one module each, registered in MODULES. A source yields records; checking is annotations'."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Record(NamedTuple):
    """One caption of one image, or an image without caption (caption None). COCO gives captions ids of their own."""

    split: str
    image_id: str
    image_path: str
    caption: str | None
    label: str | None = None
    caption_id: int | None = None


@dataclass(frozen=True)
class MalformedRow:
    """A row that is no record; `where` and `why` go into the problem report."""

    where: str
    why: str


class SentencePair(NamedTuple):
    """Two sentences and how alike they are, higher is more alike."""

    first: str
    second: str
    score: float


class Source:
    """Base class: a format reads its files in `records` and offers extra benchmark data where it has some."""

    def records(self) -> Iterator[Record | MalformedRow]:
        """Every (image, caption) pair and every caption-less image, in the order of the files."""
        raise TypeError(f"{type(self).__name__} has to define records()")

    def extended_positives(self) -> Iterator[tuple[str, str]]:
        """(query caption, image id) for every right answer among the test images."""
        yield from ()

    def sentence_pairs(self) -> Iterator[SentencePair]:
        """Sentence pairs with a gold score."""
        yield from ()
