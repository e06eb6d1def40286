"""The problems of a data set: counts, examples, and how to mend each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from cusa.config.dataset import SkippableProblem
from cusa.errors import DataError

EXAMPLES = 5
JOINER = "\u200d"  # of emojis that are made of several
LONGEST_EXAMPLE = 400
WHAT_TO_DO = {
    "missing_image": "image files that do not exist: correct the paths, dataset.image_root or dataset.image_prefix",
    "unreadable_image": "image files that cannot be decoded, or are too large: replace them",
    "empty_caption": "captions without a word after clean-up: correct them",
    "malformed_row": "rows that are not records: correct them",
    "unknown_split": "names in a split column that mean no split for sure: say in dataset.split_names what each means",
    "two_paths": "image ids that name two different files: give each image its own id",
    "two_splits": "images in more than one split, which lets the test set leak: keep each in one",
    "unexpected_count": "splits whose size is not dataset.expected_images: take the files it means, or correct it",
    "empty_split": "splits without a usable image and caption: every one of train, val and test needs some; a "
    "table can draw one from train (dataset.held_out, for instance {val: 0.1})",
}
NOTES = {
    "several_pictures": "image files have several pictures (animations, pages): the first one is read",
    "two_captions": "captions have the id of another caption in their split, so that a benchmark with ground truth by "
    "caption ids cannot tell them apart",
    "one_file": "image ids name a file that another id of their split names too: their captions are kept apart",
    "copies": "images are byte-identical copies of another one in their split",
    "two_labels": "images have rows with different labels, of which the first one is taken",
    "one_picture_often": "pictures stand ten times or more, each time as another image; a picture that a site shows in "
    "the place of images that are gone does so, and then its rows have to go",
    "copies_across_splits": "images are byte-identical copies of one in another split, so that results on them are too "
    "good; dataset.leave_out_of_train: [copies] leaves out of train those that val or test has",
    "near_copies": "images are copies of one in another split in another size or quality, so that results on them are "
    "too good; dataset.leave_out_of_train: [near_copies] leaves out of train those that val or test has",
    "left_out_of_train": "images are left out of train, because val or test has a copy",
    "grey_range": "images have samples of 16 or 32 bits that do not fill 16 bits: they are scaled by their real range",
    "left_out": "rows are left out, because the data mark them as failed, or name no split for them",
    "no_value": "captions are the text nan, none, null or n/a, which may stand for a cell without a value; correct the "
    "table if they are not captions",
}


@dataclass
class Problems:
    """Everything wrong with a data set: counts and the first few examples of each kind.

    `notes` are counts of observations that are not errors, by the kinds of NOTES.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    note_examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, example: str) -> None:
        """Count one problem of a kind in WHAT_TO_DO."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        shown = self.examples.setdefault(kind, [])
        if len(shown) < EXAMPLES:
            shown.append(printable(example))

    def note(self, kind: str, example: str) -> None:
        """Count one observation of a kind in NOTES."""
        self.notes[kind] = self.notes.get(kind, 0) + 1
        shown = self.note_examples.setdefault(kind, [])
        if len(shown) < EXAMPLES:
            shown.append(printable(example))

    def merge(self, later: Problems) -> None:
        """Add the problems and notes of later records."""
        for counts, examples, more, more_examples in (
            (self.counts, self.examples, later.counts, later.examples),
            (self.notes, self.note_examples, later.notes, later.note_examples),
        ):
            for kind, count in more.items():
                counts[kind] = counts.get(kind, 0) + count
                examples[kind] = (examples.get(kind, []) + more_examples[kind])[:EXAMPLES]

    def note_sentences(self) -> Iterator[tuple[str, str]]:
        """Each kind of note with its sentence: the count and examples."""
        for kind, count in self.notes.items():
            yield kind, f"{count:,} {NOTES[kind]}. For instance: {'; '.join(self.note_examples[kind])}"

    def add_all(self, kind: str, rows: np.ndarray, describe: Callable[[int], str]) -> None:
        """Count a problem for each of `rows`; only those that are shown as examples are described."""
        _count_all(self.counts, self.examples, kind, rows, describe)

    def note_all(self, kind: str, rows: np.ndarray, describe: Callable[[int], str]) -> None:
        """Count an observation for each of `rows`, as `add_all` does a problem."""
        _count_all(self.notes, self.note_examples, kind, rows, describe)

    def refuse_unless_skipped(self, skip: Iterable[str]) -> None:
        """Raise DataError describing every kind that `skip` does not name."""
        skipped = set(skip)
        lines = []
        for kind, count in self.counts.items():
            if kind in skipped:
                continue
            option = f" (or add {kind} to dataset.skip)" if can_be_skipped(kind) else ""
            lines.append(f"{count} {WHAT_TO_DO[kind]}{option}.")
            lines += [f"    {example}" for example in self.examples[kind]]
            if count > EXAMPLES:
                lines.append(f"    ... and {count - EXAMPLES} more")
        if lines:
            raise DataError("the data set has problems:\n" + "\n".join(lines))


def _count_all(
    counts: dict[str, int],
    examples: dict[str, list[str]],
    kind: str,
    rows: np.ndarray,
    describe: Callable[[int], str],
) -> None:
    shown = examples.get(kind, [])
    shown += [printable(describe(row)) for row in rows[: EXAMPLES - len(shown)].tolist()]
    if len(rows):
        examples[kind] = shown
        counts[kind] = counts.get(kind, 0) + len(rows)


def printable(text: str) -> str:
    """A text as one line: marks that cannot be printed are escaped, and the middle of a long text is left out."""
    line = "".join(mark if mark.isprintable() or mark == JOINER else repr(mark)[1:-1] for mark in text)
    if len(line) <= LONGEST_EXAMPLE:
        return line
    half = LONGEST_EXAMPLE // 2
    return f"{line[:half]} ... {line[-half:]} ({len(text):,} characters)"


def can_be_skipped(kind: str) -> bool:
    """Whether `dataset.skip` may name a kind of problem."""
    return kind in get_args(SkippableProblem)
