"""The files that a training reads: their sizes, their opening and their digests."""

from __future__ import annotations

from dataclasses import dataclass

from cusa.annotations.tables import CAPTIONS, read_table, split_rows
from cusa.config.experiments import RunConfiguration
from cusa.layout import DatasetFolder, Modality
from cusa.student.backbones import FrozenDimensions
from cusa.student.inputs import frozen_dimensions
from cusa.student.student import Student
from cusa.training.distributed import Group
from cusa.training.loading import TrainingData, data_digests, teacher_dimensions
from cusa.training.notes import notes_on_tokens


@dataclass(frozen=True)
class TrainingFiles:
    """The files of a data set that a training reads, as one of its processes opens them.

    All methods raise DataError if files are missing or do not fit each other.
    """

    configuration: RunConfiguration
    folder: DatasetFolder
    group: Group

    def dimensions(self) -> tuple[FrozenDimensions, dict[Modality, int]]:
        """The lengths of the cached features of the frozen towers, and of the teachers that the losses read."""
        frozen = frozen_dimensions(self.configuration.student, self.folder, "train")
        return frozen, teacher_dimensions(self.configuration, self.folder)

    def pairs(self) -> int:
        """The number of training pairs."""
        return len(split_rows(read_table(self.folder.annotations, CAPTIONS, ["split"]), "train"))

    def open(self, student: Student) -> TrainingData:
        """The training pairs, and the split that selects the epoch."""
        return TrainingData(student, self.configuration, self.folder, self.group)

    def digests(self) -> dict[str, str]:
        """SHA-256 of the files that are read, by name; see `data_digests`."""
        return data_digests(self.configuration, self.folder)

    def notes(self, student: Student) -> list[str]:
        """A sentence for each property of the data that may make the results worse than necessary."""
        return notes_on_tokens(student, self.configuration, self.folder)
