"""The interface of input formats: they yield records, which cusa.annotations checks in the same way for all formats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Record(NamedTuple):
    """One caption of one image, or an image without a caption (`caption` is None).

    `split` is train, val, test or a split of labelled images; `image_path` is absolute. `label` is the class of the
    image if the data has classes. `caption_id` is the caption's own id; only COCO has them. `place` says where the
    picture comes from if its path does not: a file that holds many, and the row or key in it. `language` is that of the
    caption if the data say it.
    """

    split: str
    image_id: str
    image_path: str
    caption: str | None
    label: str | None = None
    caption_id: int | None = None
    place: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class MalformedRow:
    """A row that is not a record. The problem report prints `place` and `reason` one after the other.

    `kind` is the kind of the problem, a key of cusa.annotations.problems.WHAT_TO_DO.
    """

    place: str
    reason: str
    kind: str = "malformed_row"


@dataclass(frozen=True)
class LeftOut:
    """A row that the data mark as failed or unused. It is counted, but is not a problem."""

    place: str
    reason: str


class SentencePair(NamedTuple):
    """Two sentences and their similarity; a higher score is more similar."""

    first: str
    second: str
    score: float


class Source:
    """The base of every source. A format defines `records`, and the other methods where `provides` names their data.

    `threads` are the threads or processes that it may use, set before the first call.
    """

    threads: int = 1

    def sample_images(self, count: int) -> None:
        """Write at most `count` of the images that the source makes, for a check that looks at a sample of them.

        It is called before `records`. Sources that make no images, or few, ignore it.
        """

    def has_image(self, path: str) -> bool:
        """Whether the image at `path` exists: false if `sample_images` left it out."""
        return True

    def records(self) -> Iterator[Record | MalformedRow | LeftOut]:
        """Every (image, caption) pair and every image without a caption, in the order of the files."""
        raise TypeError(f"{type(self).__name__} has to define records()")

    def extended_positives(self) -> Iterator[tuple[str, str]]:
        """(caption, image id) for every test image that is a right answer to the caption as a query."""
        yield from ()

    def sentence_pairs(self) -> Iterator[SentencePair]:
        """Sentence pairs with a gold score."""
        yield from ()
