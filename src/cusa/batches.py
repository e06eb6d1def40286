"""From files to the tensors a student takes: pixels or cached features, tokens or cached features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cusa import config
from cusa.annotations import CAPTIONS, IMAGES, read_table, split_rows
from cusa.errors import DataError
from cusa.files import read_json, sha256_of_file
from cusa.images import ImageTransform
from cusa.layout import DatasetFolder, Modality
from cusa.shards import STATISTICS, ShardReader
from cusa.student import Backbone, FrozenDimensions, TextInput
from cusa.teachers import configured_weights_sha256
from cusa.teachers.extraction import pad_tokens
from cusa.teachers.store import META, FeatureStore, feature_dimension


class PixelInputs:
    """Images decoded from shards by position: uint8 [B, 3, H, W]."""

    def __init__(self, reader: ShardReader, transform: ImageTransform) -> None:
        self.reader = reader
        self.transform = transform

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, positions: np.ndarray) -> Tensor:
        return self.reader.pixels(positions, self.transform)


class FeatureInputs:
    """Rows of a feature store: float32 [B, d]."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, positions: np.ndarray) -> Tensor:
        return torch.from_numpy(self.store[positions])


class TokenInputs:
    """Captions tokenised once, padded a batch at a time: input_ids and attention_mask, int64 [B, T]."""

    def __init__(self, tokens: Sequence[Sequence[int]], pad_token: int) -> None:
        lengths = np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens))
        self.ends = np.cumsum(lengths)
        self.starts = self.ends - lengths
        self.ids = np.fromiter((token for caption in tokens for token in caption), np.int32, count=lengths.sum())
        self.pad_token = pad_token

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each caption, int64."""
        return self.ends - self.starts

    def __getitem__(self, positions: np.ndarray) -> dict[str, Tensor]:
        captions = [self.ids[self.starts[place] : self.ends[place]].tolist() for place in positions]
        return pad_tokens(captions, self.pad_token)


@dataclass(frozen=True)
class SplitInputs:
    """What a student needs of one split. Positions count from 0 within the split, in row order."""

    images: PixelInputs | FeatureInputs
    texts: TokenInputs | FeatureInputs | None
    image_of_caption: np.ndarray


def open_split(backbone: Backbone, student: config.Student, folder: DatasetFolder, split: str) -> SplitInputs:
    """Open a split's images and captions as `backbone` wants them. Raises DataError when files do not fit."""
    images = read_table(folder.annotations, IMAGES, ["split"])
    captions = read_table(folder.annotations, CAPTIONS, ["cleaned", "image", "split"])
    image_rows, caption_rows = split_rows(images, split), split_rows(captions, split)
    if not len(image_rows):
        raise DataError(f"{folder.annotations}/{IMAGES} has no image of the split `{split}`.")
    image_inputs: PixelInputs | FeatureInputs
    if backbone.image_transform is not None:
        reader = ShardReader(folder.shards(split))
        if not np.array_equal(reader.rows, image_rows):
            raise DataError(
                f"{folder.shards(split)} holds {len(reader)} images, but the annotations list {len(image_rows)} other "
                "ones; delete the folder and run `snakemake shards` again."
            )
        image_inputs = PixelInputs(reader, backbone.image_transform)
    else:
        assert student.towers is not None
        image_tower = student.towers.image
        features = folder.features("image", image_tower.folder, split)
        image_inputs = FeatureInputs(open_features(features, len(image_rows), image_tower))
    text_inputs: TokenInputs | FeatureInputs | None = None
    if len(caption_rows) and backbone.tokenises:
        cleaned = captions["cleaned"].take(pa.array(caption_rows)).to_pylist()
        text_inputs = TokenInputs(*backbone.tokenise(cleaned))
    elif len(caption_rows):
        assert student.towers is not None
        text_tower = student.towers.text
        features = folder.features("text", text_tower.folder, split)
        text_inputs = FeatureInputs(open_features(features, len(caption_rows), text_tower))
    image_of_caption = captions["image"].to_numpy()[caption_rows] - image_rows[0]
    return SplitInputs(image_inputs, text_inputs, image_of_caption)


@dataclass
class TrainingBatch:
    """B pairs. Teacher features are None where no soft label is on; `image_ids` are positions, int64 [B]."""

    images: Tensor
    texts: TextInput
    teacher_image: Tensor | None
    teacher_text: Tensor | None
    image_ids: Tensor

    def to(self, device: torch.device) -> TrainingBatch:
        """The same batch on another device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return TrainingBatch(
            images=self.images.to(device, non_blocking=True),
            texts=to_device(self.texts, device),
            teacher_image=move(self.teacher_image),
            teacher_text=move(self.teacher_text),
            image_ids=self.image_ids.to(device, non_blocking=True),
        )

    def split(self, size: int) -> list[TrainingBatch]:
        """The same pairs in batches of `size`, in order; the last may be smaller."""

        def part(tensor: Tensor | None, pairs: slice) -> Tensor | None:
            return None if tensor is None else tensor[pairs]

        parts = []
        for start in range(0, len(self.image_ids), size):
            pairs = slice(start, start + size)
            texts = self.texts
            parts.append(
                TrainingBatch(
                    images=self.images[pairs],
                    texts=texts[pairs] if isinstance(texts, Tensor) else {key: texts[key][pairs] for key in texts},
                    teacher_image=part(self.teacher_image, pairs),
                    teacher_text=part(self.teacher_text, pairs),
                    image_ids=self.image_ids[pairs],
                )
            )
        return parts

    def pin_memory(self) -> TrainingBatch:
        """Page-locked copies, which the loader makes for GPUs."""
        self.images = self.images.pin_memory()
        return self


def open_features(folder: Path, rows: int, model: config.ImageModel | config.TextModel) -> FeatureStore:
    """A model's features, checked to be of `rows` rows and of the weights that the model has on disk now."""
    return FeatureStore(folder, rows, model.identity, configured_weights_sha256(model))


def data_digests(
    student: config.Student, teachers: config.Teachers | None, folder: DatasetFolder, selection_split: str
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


def frozen_dimensions(student: config.Student, folder: DatasetFolder, split: str) -> FrozenDimensions:
    """How long the cached features of the student's frozen towers are. Raises DataError when they are missing."""
    if (towers := student.towers) is None:
        return FrozenDimensions()
    image, text = towers.image, towers.text
    return FrozenDimensions(
        image=0 if image.trainable else feature_dimension(folder.features("image", image.folder, split)),
        text=0 if text.trainable else feature_dimension(folder.features("text", text.folder, split)),
    )


class TrainingPairs(Dataset[TrainingBatch]):
    """Whole batches by pair numbers; a pair is a caption's position, its image follows from it."""

    def __init__(
        self, inputs: SplitInputs, teacher_image: FeatureStore | None, teacher_text: FeatureStore | None
    ) -> None:
        assert inputs.texts is not None
        self.images, self.texts = inputs.images, inputs.texts
        self.image_of_caption = inputs.image_of_caption
        self.teacher_image, self.teacher_text = teacher_image, teacher_text

    def __len__(self) -> int:
        return len(self.image_of_caption)

    def __getitem__(self, pairs: np.ndarray) -> TrainingBatch:
        images = self.image_of_caption[pairs]
        # Captions of one image in a batch share one decode.
        distinct, where = np.unique(images, return_inverse=True)
        return self.batch(images, pairs, self.images[distinct][torch.from_numpy(where)])

    def batch(self, images: np.ndarray, captions: np.ndarray, inputs: Tensor) -> TrainingBatch:
        """Pairs of images and captions by position, int64 [B]; `inputs` is what the student takes of the images."""
        teacher_image = teacher_text = None
        if self.teacher_image is not None:
            teacher_image = torch.from_numpy(self.teacher_image[images])
        if self.teacher_text is not None:
            teacher_text = torch.from_numpy(self.teacher_text[captions])
        return TrainingBatch(inputs, self.texts[captions], teacher_image, teacher_text, torch.from_numpy(images))


def to_device(texts: TextInput, device: torch.device) -> TextInput:
    """Token tensors or features on another device."""
    if isinstance(texts, Tensor):
        return texts.to(device, non_blocking=True)
    return {key: value.to(device, non_blocking=True) for key, value in texts.items()}
