"""The sections `experiments` and `checkpoints`, and the configuration of one run."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cusa.common.files import expand_home
from cusa.config.captions import PUBLISHED, CaptionCleaning
from cusa.config.interpolation import Interpolation
from cusa.config.losses import LossConfiguration, TeacherName
from cusa.config.models import ImageModel, StudentSettings, Teachers, TextModel
from cusa.config.section import Section, added_key
from cusa.config.shards import Stream
from cusa.config.training import Train


class Experiment(LossConfiguration):
    """One experiment: its losses, or a baseline without training, and the keys in which it differs from the others."""

    baseline: Literal["zero_shot", "teachers"] | None = Field(
        default=None,
        description="Scores a model without training: `zero_shot` is the student as it is loaded, without heads; "
        "`teachers` are the two teachers, on the benchmarks within one modality. null trains.",
    )

    student: StudentSettings | None = Field(
        default=None, description="Another student for this experiment; null uses the common one."
    )
    train: dict[str, Any] | None = Field(
        default=None, description="Keys of `train` that differ for this experiment; null uses the common recipe."
    )

    interpolate: Interpolation | None = added_key(
        None, "Weights between those before and after the training of another experiment; nothing else is trained."
    )

    @model_validator(mode="after")
    def _trained_or_baseline(self) -> Self:
        has_loss = any(getattr(self, name) is not None for name in LossConfiguration.model_fields)
        if self.interpolate is not None:
            if has_loss or any(each is not None for each in (self.baseline, self.student, self.train)):
                raise ValueError("interpolate takes all from the other experiment; leave out everything else")
            return self
        if self.baseline is None and not has_loss:
            raise ValueError(
                "every loss is off; give at least one of contrastive, cross_softlabel, uni_softlabel ({} is enough), "
                "or a baseline"
            )
        if self.baseline is not None and (has_loss or self.train is not None):
            raise ValueError(f"baseline {self.baseline} is not trained; leave out its losses and `train`")
        if self.baseline == "teachers" and self.student is not None:
            raise ValueError("baseline teachers uses the teachers as its student; leave out `student`")
        return self

    @property
    def losses(self) -> LossConfiguration:
        """The losses, without the student and the recipe."""
        return LossConfiguration(**{name: getattr(self, name) for name in LossConfiguration.model_fields})


class Checkpoint(Section):
    """A published checkpoint that is scored together with the experiments."""

    file: str = Field(description="Path of checkpoint_best.pth.")
    student: str = Field(
        description="Name or folder of the CLIP that it was fine-tuned from, for its tokeniser and image transform."
    )

    @property
    def path(self) -> str:
        """The path of the file with `~` expanded, as Snakemake expects its input files."""
        return expand_home(self.file)


class RunConfiguration(Section):
    """The configuration of one run: everything that its result depends on. run.json records it."""

    dataset: str
    experiment: str
    seed: int
    student: StudentSettings
    losses: LossConfiguration
    teachers: Teachers | None
    train: Train
    stream: Stream | None = None
    captions: CaptionCleaning = added_key(
        PUBLISHED, "How the captions were cleaned. Not written where they were cleaned as published."
    )
    interpolate: Interpolation | None = added_key(None, "The weights are between those before and after a training.")

    @property
    def teachers_read(self) -> tuple[TeacherName, ...]:
        """The teachers whose features training reads: those of the losses, and the one that chooses hard negatives."""
        return teachers_read(self.losses, self.train) if self.teachers is not None else ()

    def teachers_of(self, modality: TeacherName) -> list[tuple[ImageModel | TextModel, float]]:
        """The teachers of a modality that training reads, with their shares; none if it reads none."""
        if self.teachers is None or modality not in self.teachers_read:
            return []
        return self.teachers.mixture(modality)


def teachers_read(losses: LossConfiguration, train: Train) -> tuple[TeacherName, ...]:
    """The teachers whose features a training with these losses and this recipe reads."""
    neighbours = () if train.hard_negatives is None else (train.hard_negatives.teacher,)
    return tuple(sorted({*losses.teachers, *neighbours}))
