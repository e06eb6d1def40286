"""The stored pixels and tokens of trainings: decoded and tokenised once for all runs with the same student."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cusa.config.models import StudentSettings
from cusa.config.student_inputs import WHOLE_PICTURES, pixels_folder, reads_whole_pictures, tokens_folder
from cusa.layout import META
from cusa.plan.plan import Plan
from cusa.plan.recorded_jobs import RecordedJobs

TRAIN = "train"


@dataclass(frozen=True)
class StudentInputsPlan:
    """The stored pixels and tokens, by the folders of config.student_inputs."""

    plan: Plan

    @cached_property
    def students_of_pixels(self) -> dict[str, StudentSettings | None]:
        """The student of each folder of pixels, None for whole pictures; none without `shards.pixels`."""
        found: dict[str, StudentSettings | None] = {}
        for experiment in self.plan.experiments:
            for folder, _ in self._pixels(experiment):
                student = self.plan.configuration.student_of(experiment)
                found.setdefault(folder, None if folder == WHOLE_PICTURES else student)
        return found

    @cached_property
    def students_of_tokens(self) -> dict[str, StudentSettings]:
        """The student of each folder of tokens."""
        students = [self.plan.configuration.student_of(experiment) for experiment in self.plan.experiments]
        return {folder: student for student in reversed(students) if (folder := tokens_folder(student)) is not None}

    def code_of_pixels(self, folder: str) -> list[str]:
        """The Python files of the student of a folder of pixels."""
        student = self.students_of_pixels[folder]
        return [] if student is None else student.python_files

    def files(self, experiment: str) -> list[str]:
        """A file of each of the pixels and tokens of an experiment; embeddings of its runs read the same pixels."""
        folder, student = self.plan.folder, self.plan.configuration.student_of(experiment)
        paths = [folder.pixels(name, split) for name, split in self._pixels(experiment)]
        if (tokens := tokens_folder(student)) is not None:
            paths.append(folder.tokens(tokens, TRAIN))
        return [str(path / META) for path in paths]

    def files_of_run(self, experiment: str, weights: str, jobs: RecordedJobs, is_same: bool) -> list[str]:
        """The `files` that the training of a run waits for; `weights` is its best.safetensors.

        The result does not depend on them, so a run that was trained without them is not trained again because of them:
        another set of inputs would be a reason for Snakemake, so a run keeps its set while its configuration `is_same`.
        """
        files = self.files(experiment)
        if not Path(weights).is_file():
            return files
        recorded = jobs.inputs(weights)
        if recorded is None:
            return []
        return [file for file in files if file in recorded or not is_same]

    def _pixels(self, experiment: str) -> list[tuple[str, str]]:
        """The folders of the pixels of an experiment, and their splits."""
        run = self.plan.run_configuration(experiment)
        own = pixels_folder(run.student)
        if self.plan.configuration.shards.pixels is None or own is None:
            return []
        whole = reads_whole_pictures(run)
        return [(WHOLE_PICTURES if whole and split == TRAIN else own, split) for split in self.plan.splits]
