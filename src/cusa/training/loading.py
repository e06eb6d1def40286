"""Opens the data of a training: the batches of an epoch, and the inputs of validation."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader

from cusa.annotations.tables import CAPTIONS, IMAGES, read_table, split_rows
from cusa.common.files import made_again, read_json, sha256_of_file
from cusa.config.experiments import RunConfiguration
from cusa.config.training import Train
from cusa.errors import DataError
from cusa.false_negatives import similarity_to_other_captions
from cusa.layout import META, DatasetFolder, Modality, RunInputs
from cusa.runs.record import FROZEN_WEIGHTS
from cusa.shards.reading import STATISTICS, ShardReader
from cusa.shards.verifying import require_intact
from cusa.student.inputs import open_features, open_split
from cusa.student.student import Student
from cusa.teachers.mixture import MixedFeatures
from cusa.teachers.store import Features, feature_dimension
from cusa.training.augmentation import open_augmentation
from cusa.training.batches import TrainingBatch, TrainingPairs
from cusa.training.caption_groups import GroupedOrder
from cusa.training.costs import Spent
from cusa.training.device_copy import DeviceCopies
from cusa.training.distributed import Group
from cusa.training.flops import BatchFlops
from cusa.training.hard_negatives import NeighbourOrder, reduced
from cusa.training.interruption import ignore_stopping
from cusa.training.sampling import Order, PairSampler
from cusa.training.state import Progress
from cusa.training.streaming import StreamedPairs


def data_digests(configuration: RunConfiguration, folder: DatasetFolder) -> dict[str, str]:
    """SHA-256 of the tables, shards and features that training reads, by their name within the data set's folder.

    An interrupted run continues only on the same data, and run.json records which data that was. Tars and feature
    arrays were hashed when they were written, so nothing large is read here.
    """
    inputs = RunInputs.of_training(configuration)
    digests = {f"annotations/{name}": sha256_of_file(folder.annotations / name) for name in (IMAGES, CAPTIONS)}
    digests |= {f"shards/{split}": sha256_of_file(folder.shards(split) / STATISTICS) for split in inputs.shards}
    for features in inputs.features:
        path = folder.features(*features) / META
        if (digest := read_json(path, made_again(path)).get("features_sha256")) is None:
            raise DataError(f"{path} has no `features_sha256`; {made_again(path)}")
        digests["/".join(("teachers", *features))] = digest
    return digests


def verify_shards(configuration: RunConfiguration, folder: DatasetFolder) -> None:
    """Raise DataError if shards on this disk that a training reads have other bytes than were written."""
    for split in RunInputs.of_training(configuration).shards:
        if split != "train" or configuration.stream is None:
            require_intact(folder.shards(split))


def base_digest(student: Student) -> dict[str, str]:
    """SHA-256 of the weights that `student.adapt` has frozen, by FROZEN_WEIGHTS; empty if all are trained.

    No file of the run contains them, so an interrupted training continues only if they are the same.
    """
    return {} if student.base is None else {FROZEN_WEIGHTS: student.base.sha256}


class TrainingData:
    """The data of one process of a training: its share of the training pairs, and the split that selects the epoch."""

    stream: StreamedPairs | None = None  # the pairs come from shards one after the other

    def __init__(self, student: Student, configuration: RunConfiguration, folder: DatasetFolder, group: Group) -> None:
        """Open tables, shards and features.

        Raises DataError if a file is missing or does not fit the others, ConfigurationError if a step needs more
        pairs, or streaming more shards, than there are.
        """
        pairs = open_training_pairs(student, configuration, folder)
        self._start(configuration, folder, group, pairs)
        self.validation = open_split(student.backbone, configuration.student, folder, self.settings.selection_split)
        self.stream = open_stream(student, configuration, folder, pairs, group)

    def _start(
        self, configuration: RunConfiguration, folder: DatasetFolder, group: Group, pairs: TrainingPairs
    ) -> None:
        """Put some pairs into the order of the epochs."""
        settings = configuration.train
        self.settings, self.group, self.pairs = settings, group, pairs
        self.sampler = PairSampler(
            pairs=len(pairs),
            batch_size=settings.pairs_per_batch,
            seed=configuration.seed,
            rank=group.rank,
            world_size=group.world_size,
            accumulate=settings.accumulate,
            order=open_order(configuration, folder, pairs),
        )
        # The operations of a batch, if they were counted; see flops.py.
        self.flops: BatchFlops | None = None
        self.spent = Spent()
        self.copies = DeviceCopies(group.device)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps an epoch, the same in every process."""
        return self.sampler.steps_per_epoch

    def steps(self, progress: Progress) -> Iterator[tuple[int, Iterator[TrainingBatch]]]:
        """The steps of an epoch from `progress` on: each step's number, and its `train.accumulate` batches.

        The batches are on the group's device. Each is loaded when it is requested, and must be used before the next
        step. `spent` grows by the loading time and by the costs of the batches.
        """
        self.pairs.augmentation.epoch = progress.epoch
        if self.stream is not None:
            self.stream.start_at(progress.epoch, progress.step)
        loader = iter(open_loader(self.stream or self.pairs, self.sampler, progress, self.settings, self.group.device))
        for step in range(progress.step, self.steps_per_epoch):
            yield step, self._batches(loader)

    def _batches(self, loader: Iterator[TrainingBatch]) -> Iterator[TrainingBatch]:
        for _ in range(self.settings.accumulate):
            started = time.monotonic()
            batch = self.copies.copy(next(loader))
            self.spent += self._costs(batch, time.monotonic() - started)
            yield batch

    def _costs(self, batch: TrainingBatch, seconds: float) -> Spent:
        """The costs of a batch, with the seconds of waiting for it."""
        others = self.group.world_size if self.settings.gather == "global" else 1
        flops = 0.0 if self.flops is None else self.flops.of(batch, others * len(batch.image_ids))
        return Spent(seconds, len(batch.images), flops)


def open_training_pairs(student: Student, configuration: RunConfiguration, folder: DatasetFolder) -> TrainingPairs:
    """The training pairs, with teacher features if the losses need them. Raises DataError if files do not fit."""
    inputs = open_split(student.backbone, configuration.student, folder, "train")
    rows = {"image": len(inputs.images), "text": len(inputs.image_of_caption)}
    needed = configuration.losses.teachers
    teacher = {name: open_teacher(configuration, folder, name, rows[name]) for name in needed}
    contrastive, positive_text = configuration.losses.contrastive, None
    if contrastive is not None and (judges := contrastive.false_negatives) is not None and "text" in judges.teachers:
        positive_text = similarity_to_other_captions(teacher["text"], np.asarray(inputs.image_of_caption))
    augmentation = open_augmentation(student.backbone, configuration, folder, inputs)
    return TrainingPairs(inputs, teacher.get("image"), teacher.get("text"), augmentation, positive_text)


def open_teacher(configuration: RunConfiguration, folder: DatasetFolder, modality: Modality, rows: int) -> Features:
    """The features of a teacher, or of a mixture, for the train split. Raises DataError if they do not fit."""
    parts = [
        (open_features(folder.features(modality, model.folder, "train"), rows, model), share)
        for model, share in configuration.teachers_of(modality)
    ]
    return parts[0][0] if len(parts) == 1 else MixedFeatures(parts)


def teacher_dimensions(configuration: RunConfiguration, folder: DatasetFolder) -> dict[Modality, int]:
    """The lengths of the teachers' features that the losses read, by modality. Raises DataError if they are missing."""
    return {
        modality: sum(
            feature_dimension(folder.features(modality, model.folder, "train"))
            for model, _ in configuration.teachers_of(modality)
        )
        for modality in configuration.losses.teachers
    }


def open_order(configuration: RunConfiguration, folder: DatasetFolder, pairs: TrainingPairs) -> Order | None:
    """The order for `train.hard_negatives` and `train.captions_per_image`; None without. Raises DataError as above."""
    recipe, image_of_caption = configuration.train, np.asarray(pairs.image_of_caption)
    if (settings := recipe.hard_negatives) is None:
        if recipe.captions_per_image == 1:
            return None
        return GroupedOrder(image_of_caption, recipe.largest_caption_group, configuration.seed)
    captions = np.arange(len(image_of_caption))
    rows = {"image": len(pairs.images), "text": len(captions)}[settings.teacher]
    return NeighbourOrder(
        codes=reduced(open_teacher(configuration, folder, settings.teacher, rows)),
        row_of_pair=image_of_caption if settings.teacher == "image" else captions,
        image_of_caption=image_of_caption,
        group=settings.group,
        seed=configuration.seed,
        captions_per_image=recipe.largest_caption_group,
    )


def open_stream(
    student: Student, configuration: RunConfiguration, folder: DatasetFolder, pairs: TrainingPairs, group: Group
) -> StreamedPairs | None:
    """The training pairs from shards on another machine; None if the shards are local, or if no pixels are read.

    Raises ConfigurationError if there are fewer shards than readers.
    """
    transform = student.backbone.image_transform
    if configuration.stream is None or transform is None:
        return None
    captions = read_table(folder.annotations, CAPTIONS, ["split"])
    return StreamedPairs(
        stream=configuration.stream,
        reader=ShardReader(folder.shards("train")),
        transform=transform,
        pairs=pairs,
        caption_rows=split_rows(captions, "train"),
        settings=configuration.train,
        seed=configuration.seed,
        group=group,
    )


def open_loader(
    pairs: TrainingPairs | StreamedPairs,
    sampler: PairSampler,
    progress: Progress,
    settings: Train,
    device: torch.device,
) -> DataLoader[TrainingBatch]:
    """A loader of the batches of an epoch from `progress` on; for streamed pairs it has no end.

    The order is that of `sampler`, with any number of workers. Streamed pairs have an order of their own.
    """
    # With a generator of its own, the loader does not draw the workers' seed from torch's global random state.
    return DataLoader(
        pairs,
        batch_size=None,
        sampler=None if isinstance(pairs, StreamedPairs) else sampler.epoch(progress.epoch, progress.step),
        num_workers=settings.workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=ignore_stopping,
    )
