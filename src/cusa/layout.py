"""Where the files of one data set are, relative to a root that the caller chooses: the contract between stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Modality = Literal["image", "text"]


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

    def shards(self, split: str) -> Path:
        """Tars and index of a split."""
        return self.root / "shards" / split

    def features(self, modality: Modality, model_folder: str, split: str) -> Path:
        """Cached features of a frozen model; `model_folder` is ImageModel.folder or TextModel.folder."""
        return self.root / "teachers" / modality / model_folder / split
