"""Opens files as the tensors that a student reads: pixels or cached features, tokens or cached features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cusa.annotations.tables import SplitTables
from cusa.common.transfer import pinned
from cusa.common.workflow_files import workflow_command
from cusa.config.models import ImageModel, StudentSettings, TextModel
from cusa.config.student_inputs import WHOLE_PICTURES, pixels_folder, tokens_folder
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.shards.reading import ShardReader
from cusa.student.backbones import Backbone, FrozenDimensions, TextInput, each_tensor
from cusa.student.pixels import Crops, WholePictures
from cusa.student.tokens import Tokens, open_tokens
from cusa.teachers.encoders import configured_weights_sha256
from cusa.teachers.store import Features, FeatureStore, feature_dimension
from cusa.teachers.transform import ImageTransform


class PixelInputs:
    """Images by position, uint8 [B, 3, H, W]: decoded from shards, or mapped into memory if they were decoded before.

    `crops` are the images of the shards by `transform`, `pictures` those in the size that they have there; None if
    they were not stored. What is read is the same, see pixels.py.
    """

    def __init__(
        self,
        reader: ShardReader,
        transform: ImageTransform,
        crops: Crops | None = None,
        pictures: WholePictures | None = None,
    ) -> None:
        self.reader = reader
        self.transform = transform
        self.crops = crops
        self.pictures = pictures

    @classmethod
    def open(
        cls, backbone: Backbone, student: StudentSettings, folder: DatasetFolder, reader: ShardReader, split: str
    ) -> PixelInputs:
        """The images of shards, with their stored pixels. Raises DataError if those are damaged."""
        transform, own = backbone.image_transform, pixels_folder(student)
        assert transform is not None
        crops = None if own is None else Crops.open(folder.pixels(own, split), reader, transform)
        return cls(reader, transform, crops, WholePictures.open(folder.pixels(WHOLE_PICTURES, split), reader))

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, positions: np.ndarray) -> Tensor:
        if self.crops is not None:
            return self.crops[positions]
        return self.transform.batch([self.encoded(position) for position in positions])

    def encoded(self, position: int) -> tuple[bytes, bool]:
        """The bytes of an image file, and whether it is plain, see ImageTransform.pixels."""
        return self.reader.encoded(position), self.reader.plain(position)

    def decoded(self, position: int) -> Tensor:
        """An image in the size that it has in the shards, uint8 [3, H, W]."""
        if self.pictures is not None:
            return self.pictures[position]
        return self.transform.decoded(*self.encoded(position))


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

    def __init__(self, tokens: Tokens) -> None:
        self.ids, self.starts, self.ends, self.pad_token = tokens.ids, tokens.starts, tokens.ends, tokens.pad_token

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each caption, int64 [captions]."""
        lengths: np.ndarray = self.ends - self.starts
        return lengths

    def __getitem__(self, positions: np.ndarray) -> dict[str, Tensor]:
        starts = self.starts[positions][:, None]
        lengths = self.ends[positions][:, None] - starts
        steps = np.arange(lengths.max())
        inside = steps < lengths
        ids = np.full(inside.shape, self.pad_token, dtype=np.int64)
        ids[inside] = self.ids[(starts + steps)[inside]]
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(inside.astype(np.int64))}


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
            f"ones; delete the folder and run `{workflow_command('shards')}` again."
        )
    return PixelInputs.open(backbone, student, folder, reader, tables.split)


def open_texts(
    backbone: Backbone, student: StudentSettings, folder: DatasetFolder, tables: SplitTables
) -> TokenInputs | FeatureInputs | None:
    """A split's captions: tokens, or the cached features of a frozen tower; None if the split has no caption."""
    if not len(tables.caption_rows):
        return None
    if backbone.tokenises:
        own = tokens_folder(student)
        stored = None if own is None else open_tokens(folder, own, tables, backbone.tokenise)
        return TokenInputs(stored or Tokens.of(*backbone.tokenise(tables.captions["cleaned"].to_pylist())))
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
    """Token tensors or features on another device; a GPU copies them without the host."""
    return each_tensor(texts, lambda tensor: pinned(tensor, device).to(device, non_blocking=True))
