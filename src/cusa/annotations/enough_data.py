"""Checks that a data set is large enough for its trainings and benchmarks, before shards and features are made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import ceil
from pathlib import Path

from cusa.annotations.tables import CAPTIONS, IMAGES, read_table, split_rows
from cusa.config.configuration import Configuration
from cusa.config.dataset_section import DatasetSection
from cusa.config.section import Section, added_key, validate
from cusa.errors import DataError


class TrainingNeeds(Section):
    """The amount of data that trainings with one recipe need.

    `experiments` are their names. `readers` is the number of processes that read the shards of a stream, 0 without one.
    """

    experiments: list[str]
    batch_size: int
    processes: int
    accumulate: int
    selection_split: str
    readers: int = 0
    samples_per_shard: int = 1
    group: int = added_key(1, "Pairs of a group of neighbours, which are of different images (train.hard_negatives).")

    def shortfalls(self, images: Mapping[str, int], captions: Mapping[str, int]) -> Iterator[str]:
        """A sentence about each shortage; `images` and `captions` are counts by split."""
        pairs, others = captions.get("train", 0), self.processes * self.accumulate
        if pairs < (step := self.batch_size * others):
            fitting = pairs // others
            lower = f"lower train.batch_size to {fitting} or less" if fitting else "lower train.batch_size and these"
            yield (
                f"{self._names}: the split train has {pairs:,} pairs of image and caption, but a step takes {step:,} "
                f"(train.batch_size {self.batch_size} x {self.processes} processes x train.accumulate "
                f"{self.accumulate}); {lower}, or add data."
            )
        uses = {"train": "each image is compared with others", self.selection_split: "its recall selects the epoch"}
        for split, why in uses.items():
            if images.get(split, 0) < 2 or captions.get(split, 0) < 2:
                yield (
                    f"{self._names}: the split {split} has {images.get(split, 0)} images and {captions.get(split, 0)} "
                    f"captions, but {why}, which needs two of each at least; add data, or divide it otherwise."
                )
        if (shards := ceil(images.get("train", 0) / self.samples_per_shard)) < self.readers:
            yield (
                f"{self._names}: the split train has {shards} shards of shards.samples_per_shard "
                f"{self.samples_per_shard}, but the stream has {self.readers} readers ({self.processes} processes x "
                f"{self.readers // self.processes} workers); lower train.workers, or write smaller shards."
            )
        if self.group > max(1, images.get("train", 0)):
            yield (
                f"{self._names}: train.hard_negatives.group is {self.group}, but the split train has "
                f"{images.get('train', 0)} images, and captions of one image are not negatives of each other, so no "
                "group of neighbours would be full; lower the group."
            )

    @property
    def _names(self) -> str:
        more = f" and {len(self.experiments) - 1} more" if len(self.experiments) > 1 else ""
        return f"experiment {self.experiments[0]}{more}"


def needs_of(configuration: Configuration) -> list[TrainingNeeds]:
    """The needs of a configuration's trainings; experiments with equal needs share one entry."""
    found: dict[str, TrainingNeeds] = {}
    for name in configuration.active_experiments:
        recipe = configuration.recipe(name)
        needs = TrainingNeeds(
            experiments=[],
            batch_size=2 if recipe.batch_size == "auto" else recipe.batch_size,
            processes=recipe.processes,
            accumulate=recipe.accumulate,
            selection_split=recipe.selection_split,
            readers=recipe.processes * max(1, recipe.workers) if configuration.stream is not None else 0,
            samples_per_shard=configuration.shards.samples_per_shard,
            group=1 if recipe.hard_negatives is None else recipe.hard_negatives.group,
        )
        found.setdefault(needs.as_json(), needs).experiments.append(name)
    return list(found.values())


class DataNeeds(Section):
    """The needs of all trainings of a configuration, and the number of folds that the test images are divided into."""

    trainings: list[TrainingNeeds]
    folds: int | None

    @property
    def splits(self) -> set[str]:
        """The splits that are needed."""
        trained = {"train", *(each.selection_split for each in self.trainings)} if self.trainings else set()
        return trained | ({"test"} if self.folds is not None else set())

    def shortfalls(self, images: Mapping[str, int], captions: Mapping[str, int]) -> Iterator[str]:
        """A sentence about each need that the data do not meet; `images` and `captions` are counts by split."""
        for each in self.trainings:
            yield from each.shortfalls(images, captions)
        yield from self.unequal_folds(images.get("test", 0))

    def unequal_folds(self, images: int) -> Iterator[str]:
        """A sentence if this number of test images cannot be divided into equal folds."""
        if self.folds is None or (images and images % self.folds == 0):
            return
        possible = [str(folds) for folds in range(2, images // 2 + 1) if images % folds == 0]
        near = sorted(possible, key=lambda folds: abs(int(folds) - (self.folds or 0)))[:3]
        *more, last = sorted(near, key=int) or [""]
        correct = f"; {', '.join(more)} and {last} do" if more else (last and f"; {last} does")
        yield (
            f"benchmarks.itr.folds is {self.folds}, but the split test has {images:,} images, which it does not "
            f"divide{correct}. Write null for no folds."
        )


def data_needs(configuration: Configuration) -> DataNeeds:
    """The amount of data that a configuration needs."""
    itr = configuration.benchmarks.itr
    return DataNeeds(trainings=needs_of(configuration), folds=None if itr is None else itr.folds)


def needs_json(configuration: Configuration) -> str:
    """`data_needs` as one line of JSON, for `require_enough`; empty if nothing is needed."""
    needs = data_needs(configuration)
    return needs.as_json() if needs.splits else ""


def require_enough(needs: str | None, folder: str | Path) -> None:
    """Raise DataError, with one line for each shortage, if the tables in `folder` are too small.

    `needs` is the text of `needs_json`; nothing is checked if it is empty or None.
    """
    if not needs:
        return
    counts = []
    wanted = validate(DataNeeds, json.loads(needs))
    for name in (IMAGES, CAPTIONS):
        table = read_table(folder, name, ["split"])
        counts.append({split: len(split_rows(table, split)) for split in wanted.splits})
    images, captions = counts
    if problems := list(wanted.shortfalls(images, captions)):
        raise DataError("\n".join(problems))


def unexpected_counts(dataset: DatasetSection, folder: str | Path) -> bool:
    """Whether the tables in `folder` have other numbers of images than `dataset.expected_images`.

    False if the tables do not exist or cannot be read: they are then made again in any case.
    """
    expected = getattr(dataset, "expected_images", None)
    if not expected:
        return False
    try:
        table = read_table(folder, IMAGES, ["split"])
    except DataError:
        return False
    return any(len(split_rows(table, split)) != count for split, count in expected.items())
