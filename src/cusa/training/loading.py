"""From files to the batches of an epoch."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader

from cusa.annotations.tables import CAPTIONS, IMAGES, read_table, split_rows
from cusa.common.files import read_json, sha256_of_file
from cusa.config.experiments import RunConfiguration
from cusa.config.models import StudentSettings, Teachers
from cusa.config.training import Train
from cusa.errors import DataError
from cusa.layout import META, DatasetFolder, Modality
from cusa.shards.reading import STATISTICS, ShardReader
from cusa.student.inputs import open_features, open_split
from cusa.student.student import Student
from cusa.training.batches import TrainingBatch, TrainingPairs
from cusa.training.distributed import Group
from cusa.training.sampling import PairSampler
from cusa.training.state import Progress
from cusa.training.streaming import StreamedPairs


def data_digests(
    student: StudentSettings, teachers: Teachers | None, folder: DatasetFolder, selection_split: str
) -> dict[str, str]:
    """SHA-256 of everything that training reads, by what it is: tables, shards, features.

    An interrupted run continues only on the same data, and run.json records which data that was. Tars and feature
    arrays were hashed when they were written, so nothing large is read here.
    """
    digests = {f"annotations/{name}": sha256_of_file(folder.annotations / name) for name in (IMAGES, CAPTIONS)}
    features: list[tuple[Modality, str, str]] = []
    for split in ("train", selection_split):
        if student.towers is None or student.towers.image.trainable:
            digests[f"shards/{split}"] = sha256_of_file(folder.shards(split) / STATISTICS)
        else:
            features.append(("image", student.towers.image.folder, split))
        if student.towers is not None and not student.towers.text.trainable:
            features.append(("text", student.towers.text.folder, split))
    if teachers is not None:
        features += [("image", teachers.image.folder, "train"), ("text", teachers.text.folder, "train")]
    for modality, model, split in features:
        path = folder.features(modality, model, split) / META
        if (digest := read_json(path).get("features_sha256")) is None:
            raise DataError(f"{path} has no `features_sha256`; delete its folder and run `snakemake features` again.")
        digests[f"teachers/{modality}/{model}/{split}"] = digest
    return digests


def open_training_pairs(student: Student, configuration: RunConfiguration, folder: DatasetFolder) -> TrainingPairs:
    """The training pairs with the teacher features that the losses need."""
    inputs = open_split(student.backbone, configuration.student, folder, "train")
    teacher_image = teacher_text = None
    if (teachers := configuration.teachers) is not None:
        images, captions = len(inputs.images), len(inputs.image_of_caption)
        image, text = teachers.image, teachers.text
        teacher_image = open_features(folder.features("image", image.folder, "train"), images, image)
        teacher_text = open_features(folder.features("text", text.folder, "train"), captions, text)
    return TrainingPairs(inputs, teacher_image, teacher_text)


def open_stream(
    student: Student, configuration: RunConfiguration, folder: DatasetFolder, pairs: TrainingPairs, group: Group
) -> StreamedPairs | None:
    """The training pairs as they come out of shards elsewhere; None where the images or their features are here."""
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
    """The batches of an epoch that are still to come.

    In the sampler's order whatever the number of workers, or without end as they are streamed.
    """
    # The generator keeps the loader from drawing its workers' seed out of torch's global random state.
    return DataLoader(
        pairs,
        batch_size=None,
        sampler=None if isinstance(pairs, StreamedPairs) else sampler.epoch(progress.epoch, progress.step),
        num_workers=settings.workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(0),
    )
