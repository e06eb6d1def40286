"""Base of the formats whose data may be in several files, which several jobs can read side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cusa.annotations.sources.source import LeftOut, MalformedRow, Record, Source
from cusa.annotations.sources.splits import SplitsOfRows
from cusa.common.files import expanded
from cusa.config.dataset_section import Split
from cusa.config.dataset_tables import OneWayToSplit


class SeveralFiles(Source):
    """Reads files one after the other. A format defines `file_records`.

    With `parts`, it reads the files of one of them only, `part` counted from 0.
    """

    part, parts = 0, 1

    def __init__(self, dataset: OneWayToSplit) -> None:
        self.dataset = dataset
        self.splits = SplitsOfRows(dataset)

    def files(self) -> list[tuple[Path, Split | None]]:
        """The files to read, each with its split; None stands for the key `file`."""
        places = self.dataset.places
        every = [(expanded(path), split) for split in places for path in self.dataset.files_of(split)]
        return every[len(every) * self.part // self.parts : len(every) * (self.part + 1) // self.parts]

    def records(self) -> Iterator[Record | MalformedRow | LeftOut]:
        """Every caption of every file, in the order of the files."""
        yield from self.records_of(self.files())

    def records_of(self, files: list[tuple[Path, Split | None]]) -> Iterator[Record | MalformedRow | LeftOut]:
        """The records of `files`, which `files()` returned."""
        self.splits = SplitsOfRows(self.dataset)
        for path, split in files:
            yield from self.file_records(path, split)
        if self.parts == 1:
            yield from self.splits.unknown()

    def file_records(self, path: Path, split: Split | None) -> Iterator[Record | MalformedRow | LeftOut]:
        """The records of one file, which is of `split`, or of the key `file` if it is None."""
        raise TypeError(f"{type(self).__name__} has to define file_records()")
