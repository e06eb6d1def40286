"""The split of a row: that of its file, that of a column or key, or one that is drawn."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal

from cusa.annotations.sources.rows import identity, is_empty
from cusa.annotations.sources.source import MalformedRow
from cusa.config.dataset_section import AMBIGUOUS_SPLIT_NAMES, Split, split_named
from cusa.config.dataset_tables import OneWayToSplit


class SplitsOfRows:
    """Assigns rows to splits, and collects the names in the split column whose meaning is unclear."""

    def __init__(self, dataset: OneWayToSplit) -> None:
        self.dataset, self.column = dataset, dataset.split_column
        self.of_name: dict[str, Split | Literal["skip"] | None] = {}
        self.seen: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def explains(self, value: object) -> bool:
        """Whether `split_names` says what a cell without a value means."""
        return is_empty(value) and "" in self.dataset.split_names

    def of_row(self, file_split: Split | None, drawn_by: str, value: str | float | None, place: str) -> str | None:
        """The split of a row, or None if it is left out.

        `file_split` is the split of its file, None if the file has several; `value` is the cell of the split column;
        and `drawn_by` decides a random draw: rows with equal texts get the same split.
        """
        if file_split is None and self.column is not None:
            split = self._named(identity("" if value is None or self.explains(value) else value).strip(), place)
        else:
            split = file_split or "train"
        if split == "train" and self.dataset.held_out is not None:
            return drawn_split(drawn_by, self.dataset.held_out, self.dataset.split_seed)
        return None if split == "skip" else split

    def _named(self, name: str, place: str) -> Split | Literal["skip"] | None:
        if name not in self.of_name:
            self.of_name[name] = self.dataset.split_names.get(name) or split_named(name)
            self.first[name] = place
        self.seen[name] += 1
        return self.of_name[name]

    def add_all(self, other: SplitsOfRows) -> None:
        """Add the names of later rows."""
        self.seen.update(other.seen)
        self.of_name = other.of_name | self.of_name
        self.first = other.first | self.first

    def unknown(self) -> Iterator[MalformedRow]:
        """A MalformedRow for each name that the configuration does not explain. Call this after all rows were read."""
        place, explained = f"{self.dataset.file} has", self.dataset.split_names
        vals = [name for name in self.seen if self.of_name[name] == "val" and name not in explained]
        for name, count in self.seen.items():
            what = f"{count:,} rows with `{name}` in `{self.column}` (the first: {self.first[name]})"
            if self.of_name[name] is None:
                yield MalformedRow(place, f"{what}, which is not a valid name of a split", "unknown_split")
            elif name.casefold() in AMBIGUOUS_SPLIT_NAMES and name in vals and len(vals) > 1:
                other = next(each for each in vals if each != name)
                yield MalformedRow(place, f"{what} beside `{other}`, so it may mean test", "unknown_split")


def drawn_split(image_id: str, held_out: Mapping[Literal["val", "test"], float], seed: int) -> Split:
    """The split of an image by a hash of its id and the seed: images keep their splits when others are added."""
    digest = hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    test = held_out.get("test", 0.0)
    if place < test:
        return "test"
    return "val" if place < test + held_out.get("val", 0.0) else "train"
