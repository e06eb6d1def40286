"""Opens files as the tensors that a student reads: pixels or cached features, tokens or cached features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cusa.annotations.tables import SplitTables
from cusa.config.models import ImageModel, StudentSettings, TextModel
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.shards.reading import ShardReader
from cusa.student.backbones import Backbone, FrozenDimensions, TextInput, each_tensor
from cusa.teachers.encoders import configured_weights_sha256, pad_tokens
from cusa.teachers.store import Features, FeatureStore, feature_dimension
from cusa.teachers.transform import ImageTransform


class PixelInputs:
    """Images of shards, decoded by position: uint8 [B, 3, H, W]."""

    def __init__(self, reader: ShardReader, transform: ImageTransform) -> None:
        self.reader = reader
        self.transform = transform

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, positions: np.ndarray) -> Tensor:
        return self.transform.batch([self.encoded(position) for position in positions])

    def encoded(self, position: int) -> tuple[bytes, bool]:
        """The bytes of an image file, and whether it is plain, see ImageTransform.pixels."""
        return self.reader.encoded(position), self.reader.plain(position)


class FeatureInputs:
    """Features of a frozen tower, from a feature store or from memory: float32 [B, d]."""

    def __init__(self, features: Features | np.ndarray) -> None:
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, positions: np.ndarray) -> Tensor:
        return torch.from_numpy(self.features[positions])


class TokenInputs:
    """Captions, tokenised once and padded for each batch: `input_ids` and `attention_mask`, int64 [B, T]."""

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
        """The number of tokens of each caption, int64 [captions]."""
        return self.ends - self.starts

    def __getitem__(self, positions: np.ndarray) -> dict[str, Tensor]:
        captions = [self.ids[self.starts[place] : self.ends[place]].tolist() for place in positions]
        return pad_tokens(captions, self.pad_token)


@dataclass(frozen=True)
class SplitInputs:
    """The images and captions of one split, as a student reads them. Positions count from 0 in row order."""

    images: PixelInputs | FeatureInputs
    texts: TokenInputs | FeatureInputs | None
    image_of_caption: np.ndarray


def open_split(backbone: Backbone, student: StudentSettings, folder: DatasetFolder, split: str) -> SplitInputs:
    """A split's images and captions as `backbone` reads them. Raises DataError when files are missing or do not fit."""
    tables = SplitTables.open(folder, split, captions=["cleaned"])
    return SplitInputs(
        open_images(backbone, student, folder, tables),
        open_texts(backbone, student, folder, tables),
        tables.image_of_caption,
    )


def open_images(
    backbone: Backbone, student: StudentSettings, folder: DatasetFolder, tables: SplitTables
) -> PixelInputs | FeatureInputs:
    """A split's images: pixels from its shards, or the cached features of a frozen tower."""
    if backbone.image_transform is None:
        assert student.towers is not None
        tower = student.towers.image
        features = folder.features("image", tower.folder, tables.split)
        return FeatureInputs(open_features(features, len(tables.image_rows), tower))
    reader = ShardReader(folder.shards(tables.split))
    if not np.array_equal(reader.rows, tables.image_rows):
        raise DataError(
            f"{reader.folder} holds {len(reader)} images, but the annotations list {len(tables.image_rows)} other "
            "ones; delete the folder and run `snakemake shards` again."
        )
    return PixelInputs(reader, backbone.image_transform)


def open_texts(
    backbone: Backbone, student: StudentSettings, folder: DatasetFolder, tables: SplitTables
) -> TokenInputs | FeatureInputs | None:
    """A split's captions: tokens, or the cached features of a frozen tower; None where the split has no caption."""
    if not len(tables.caption_rows):
        return None
    if backbone.tokenises:
        return TokenInputs(*backbone.tokenise(tables.captions["cleaned"].to_pylist()))
    assert student.towers is not None
    tower = student.towers.text
    features = folder.features("text", tower.folder, tables.split)
    return FeatureInputs(open_features(features, len(tables.caption_rows), tower))


def open_features(folder: Path, rows: int, model: ImageModel | TextModel) -> FeatureStore:
    """A model's features.

    Raises DataError unless they have `rows` rows and were made with the weights that the model has on disk now.
    """
    return FeatureStore(folder, rows, model.identity, configured_weights_sha256(model))


def frozen_dimensions(student: StudentSettings, folder: DatasetFolder, split: str) -> FrozenDimensions:
    """The lengths of the cached features of the student's frozen towers. Raises DataError when they are missing."""
    if (towers := student.towers) is None:
        return FrozenDimensions()
    image, text = towers.image, towers.text
    return FrozenDimensions(
        image=0 if image.trainable else feature_dimension(folder.features("image", image.folder, split)),
        text=0 if text.trainable else feature_dimension(folder.features("text", text.folder, split)),
    )


def to_device(texts: TextInput, device: torch.device) -> TextInput:
    """Token tensors or features on another device."""
    return each_tensor(texts, lambda tensor: tensor.to(device, non_blocking=True))
