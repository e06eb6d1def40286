"""Paths of all files of a data set, and which of them a run reads. All stages take their paths from here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from cusa.config.dataset import SPLITS
from cusa.config.experiments import RunConfiguration
from cusa.config.models import MODALITIES, StudentSettings
from cusa.config.views import views_of_training

RESULTS = Path("results")  # all data sets have their folders here, in the working directory
Modality = Literal["image", "text"]
META = "meta.json"
# A folder beside those of the data sets. It holds the labelled images and sentence pairs of the benchmarks; the runs of
# every data set are scored on them.
BENCHMARK_DATA = "benchmark-data"


@dataclass(frozen=True)
class DatasetFolder:
    """The folder that holds everything computed for one data set, results/{dataset}."""

    root: Path

    def benchmark_data(self, name: str) -> DatasetFolder:
        """The folder of a benchmark's own data, which all data sets share."""
        return DatasetFolder(self.root.parent / BENCHMARK_DATA / name)

    @property
    def annotations(self) -> Path:
        """The folder of the JSON files in the published format and of the Parquet tables."""
        return self.root / "annotations"

    def table(self, name: str) -> Path:
        """The file of one Parquet table, for instance of `images`."""
        return self.annotations / f"{name}.parquet"

    @property
    def images(self) -> Path:
        """The folder of the images that the data set's format makes itself."""
        return self.root / "images"

    def shards(self, split: str) -> Path:
        """The folder of a split's tar files and index."""
        return self.root / "shards" / split

    def features(self, modality: Modality, model_folder: str, split: str) -> Path:
        """The folder of a frozen model's cached features; `model_folder` is ImageModel.folder or TextModel.folder."""
        return self.root / "teachers" / modality / model_folder / split

    def pixels(self, student_folder: str, split: str) -> Path:
        """The folder of decoded images; `student_folder` is that of config.student_inputs.pixels_folder."""
        return self.root / "pixels" / student_folder / split

    def tokens(self, student_folder: str, split: str) -> Path:
        """The folder of tokenised captions; `student_folder` is that of config.student_inputs.tokens_folder."""
        return self.root / "tokens" / student_folder / split

    @classmethod
    def of_run(cls, run: str | Path) -> DatasetFolder:
        """The folder of the data set that a run folder lies in."""
        return cls(Path(run).absolute().parents[2])

    def run(self, experiment: str, seed: int | str) -> Path:
        """The folder of one training run, checkpoint or baseline."""
        return self.root / "runs" / experiment / f"seed{seed}"

    def study(self, name: str) -> Path:
        """The folder of a sweep over settings."""
        return self.root / "sweep" / name

    def trial_runs(self, seed: int) -> list[Path]:
        """The run folders of the trials of all sweeps that were trained with a seed."""
        return sorted(self.root.glob(f"sweep/*/trials/*/seed{seed}"))


class CachedFeatures(NamedTuple):
    """The features of a frozen model for the images or captions of one split, or for the texts of a table."""

    modality: Modality
    model_folder: str
    split: str


@dataclass(frozen=True)
class RunInputs:
    """The files of a data set that are read besides its tables: shards of splits, and features of frozen models.

    They are listed in the order in which they are first read, each once.
    """

    shards: tuple[str, ...] = ()
    features: tuple[CachedFeatures, ...] = ()

    @classmethod
    def of_split(cls, student: StudentSettings, split: str, captions: bool | None = None) -> RunInputs:
        """The files of a split that a student reads.

        `captions` says whether the split has captions; by default the splits in SPLITS have some.
        """
        towers, features = student.towers, []
        as_shards = towers is None or towers.image.trainable
        if towers is not None and not towers.image.trainable:
            features.append(CachedFeatures("image", towers.image.folder, split))
        has_captions = split in SPLITS if captions is None else captions
        if towers is not None and not towers.text.trainable and has_captions:
            features.append(CachedFeatures("text", towers.text.folder, split))
        return cls((split,) if as_shards else (), tuple(features))

    @classmethod
    def of_texts(cls, student: StudentSettings, table: str) -> RunInputs:
        """The features of a frozen text tower for the texts of a table; none if the student reads their tokens."""
        if student.towers is None or student.towers.text.trainable:
            return cls()
        return cls((), (CachedFeatures("text", student.towers.text.folder, table),))

    @classmethod
    def of_training(cls, configuration: RunConfiguration) -> RunInputs:
        """The files that training reads: the train split, the split that selects the epoch, the teachers' features.

        The train split has the features of changed pictures and captions too, if frozen towers read some.
        """
        student, views = configuration.student, views_of_training(configuration)
        inputs = cls.of_split(student, "train").and_also(cls.of_split(student, configuration.train.selection_split))
        if views.image is not None:
            inputs = inputs.and_also(cls((), (CachedFeatures("image", views.image.folder, "train"),)))
        if views.text is not None:
            inputs = inputs.and_also(cls((), (CachedFeatures("text", views.text.folder, "train"),)))
        read = [
            CachedFeatures(modality, model.folder, "train")
            for modality in MODALITIES
            for model, _ in configuration.teachers_of(modality)
        ]
        return inputs.and_also(cls((), tuple(read)))

    def and_also(self, other: RunInputs) -> RunInputs:
        """The files of both, each once."""
        return RunInputs(
            tuple(dict.fromkeys((*self.shards, *other.shards))), tuple(dict.fromkeys((*self.features, *other.features)))
        )

    def paths(self, folder: DatasetFolder) -> list[Path]:
        """The folders of the shards, and one meta.json for each of the features.

        meta.json represents the features: it is written together with them, and it exists also when the features are
        stored in several parts.
        """
        return [folder.shards(split) for split in self.shards] + [
            folder.features(*features) / META for features in self.features
        ]
