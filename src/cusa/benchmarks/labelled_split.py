"""The labelled images of a split, as the benchmarks on labels read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cusa.annotations.tables import IMAGES, read_table, split_rows
from cusa.benchmarks.queries import Items, Queries
from cusa.config.classification import DATASET, Classification
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.runs.record import RunFolder


@dataclass(frozen=True)
class LabelledSplit:
    """The images of a split that have a label.

    `rows` is the number of all images of the split; `positions` int64 [n] are those of the labelled ones among them,
    and `labels` [n] their labels. `embedded` is the name of the split's embeddings in a run folder.
    """

    embedded: str
    rows: int
    positions: np.ndarray
    labels: np.ndarray

    @classmethod
    def open(cls, folder: DatasetFolder, split: str, embedded: str) -> LabelledSplit:
        """Read the labels of a split. Raises DataError if no image has one."""
        table = read_table(folder.annotations, IMAGES, ["split", "label"])
        rows = split_rows(table, split)
        labels = table["label"].to_numpy(zero_copy_only=False)[rows]
        positions = np.flatnonzero([label is not None for label in labels])
        if not len(positions):
            raise DataError(
                f"{folder.annotations}/{IMAGES} has no labelled image in the split `{split}`; name the column of "
                "labels in dataset.columns.label, or leave the benchmark's dataset_images out."
            )
        return cls(embedded, len(rows), positions, labels[positions].astype(str))

    @property
    def classes(self) -> list[str]:
        """The distinct labels, sorted."""
        return sorted(set(self.labels.tolist()))

    def images(self, run: RunFolder, head: str) -> np.ndarray:
        """The embeddings of the labelled images by a run, float32 [n, D]."""
        images: np.ndarray = run.embeddings(self.embedded, f"image_{head}", self.rows)[self.positions]
        return images


def test_data(folder: DatasetFolder, settings: Classification) -> Iterator[tuple[str, LabelledSplit]]:
    """The images that are classified, by name: those of the data set itself, which is called `dataset`, then others."""
    available = settings.available()
    if settings.dataset_images:
        yield DATASET, LabelledSplit.open(folder, "test", "test")
    for name in settings.labelled_images:
        if name in available:
            yield name, LabelledSplit.open(folder.benchmark_data(name), "test", name)


def classified_images(folder: DatasetFolder, metric: str, array: Literal["image_cross", "image_uni"]) -> Queries:
    """The images whose classes a metric counts, of the test split or of named data. Their gallery is not an array."""
    name = metric.rpartition("/")[0]
    place, embedded = (folder.benchmark_data(name), name) if name else (folder, "test")
    split = LabelledSplit.open(place, "test", embedded)
    return Queries(Items(place, embedded, "test", array, split.rows, split.positions), None)


def prefix_of(name: str) -> str:
    """The prefix of the metrics' names for some data; empty for the data set's own images."""
    return "" if name == DATASET else f"{name}/"
