"""Where the files of one data set are, and which of them a run reads: the contract between stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from cusa.config.dataset import SPLITS
from cusa.config.experiments import RunConfiguration
from cusa.config.models import StudentSettings

Modality = Literal["image", "text"]
META = "meta.json"
# Beside the folders of the data sets: labelled images and sentence pairs that every data set's runs are scored on.
BENCHMARK_DATA = "benchmark-data"


@dataclass(frozen=True)
class DatasetFolder:
    """The folder that holds everything computed for one data set."""

    root: Path

    def benchmark_data(self, name: str) -> DatasetFolder:
        """The folder of a benchmark's own data, shared by all data sets."""
        return DatasetFolder(self.root.parent / BENCHMARK_DATA / name)

    @property
    def annotations(self) -> Path:
        """Published-format JSON and the Parquet tables."""
        return self.root / "annotations"

    def table(self, name: str) -> Path:
        """One of the Parquet tables, `images` for instance."""
        return self.annotations / f"{name}.parquet"

    @property
    def images(self) -> Path:
        """Images that a format makes itself."""
        return self.root / "images"

    def shards(self, split: str) -> Path:
        """Tars and index of a split."""
        return self.root / "shards" / split

    def features(self, modality: Modality, model_folder: str, split: str) -> Path:
        """Cached features of a frozen model; `model_folder` is ImageModel.folder or TextModel.folder."""
        return self.root / "teachers" / modality / model_folder / split

    def run(self, experiment: str, seed: int | str) -> Path:
        """The folder of one training run, checkpoint or baseline."""
        return self.root / "runs" / experiment / f"seed{seed}"


class CachedFeatures(NamedTuple):
    """The features of a frozen model for the images or captions of one split."""

    modality: Modality
    model_folder: str
    split: str


@dataclass(frozen=True)
class RunInputs:
    """What is read of a data set besides its tables: splits as shards, and cached features of frozen models.

    The order is that in which they are first read; nothing is listed twice.
    """

    shards: tuple[str, ...] = ()
    features: tuple[CachedFeatures, ...] = ()

    @classmethod
    def of_split(cls, student: StudentSettings, split: str, captions: bool | None = None) -> RunInputs:
        """What a student reads of a split; `captions` says whether it has any, by default if it is one of SPLITS."""
        towers, features = student.towers, []
        as_shards = towers is None or towers.image.trainable
        if towers is not None and not towers.image.trainable:
            features.append(CachedFeatures("image", towers.image.folder, split))
        has_captions = split in SPLITS if captions is None else captions
        if towers is not None and not towers.text.trainable and has_captions:
            features.append(CachedFeatures("text", towers.text.folder, split))
        return cls((split,) if as_shards else (), tuple(features))

    @classmethod
    def of_training(cls, configuration: RunConfiguration) -> RunInputs:
        """What training reads: the train split, the split that selects the epoch, and the teachers' features."""
        student, teachers = configuration.student, configuration.teachers
        inputs = cls.of_split(student, "train").and_also(cls.of_split(student, configuration.train.selection_split))
        if teachers is None:
            return inputs
        images = CachedFeatures("image", teachers.image.folder, "train")
        return inputs.and_also(cls((), (images, CachedFeatures("text", teachers.text.folder, "train"))))

    def and_also(self, other: RunInputs) -> RunInputs:
        """Both, each once."""
        return RunInputs(
            tuple(dict.fromkeys((*self.shards, *other.shards))), tuple(dict.fromkeys((*self.features, *other.features)))
        )

    def paths(self, folder: DatasetFolder) -> list[Path]:
        """The folders of the shards, and the meta.json of the features.

        meta.json stands for the features: it is written with them, and exists also where they stay in parts.
        """
        return [folder.shards(split) for split in self.shards] + [
            folder.features(*features) / META for features in self.features
        ]
