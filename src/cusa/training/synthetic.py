"""Synthetic training pairs of the right shapes: what a student reads, without files.

They serve to count operations, to find the largest batch that fits, and to measure a training whose data do not exist
yet. The values are random and mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from cusa.config.losses import LossConfiguration
from cusa.config.models import MODALITIES
from cusa.layout import Modality
from cusa.student.backbones import Backbone, FrozenDimensions
from cusa.student.inputs import FeatureInputs, PixelInputs, SplitInputs, TokenInputs
from cusa.student.tokens import Tokens
from cusa.training.batches import TrainingPairs

# So many rows are drawn; others repeat them. Features of 37,632 numbers for each pair would fill the memory.
DISTINCT_ROWS = 256
WORD = "word "


def _numbered(tokens: list[int], number: int) -> list[int]:
    """As many tokens, which differ from number to number: a batch would encode equal captions once.

    A token between the first and the last one becomes the token before it if its bit of `number` is 1.
    """
    inner = [max(0, token - (number >> place & 1)) for place, token in enumerate(tokens[1:-1])]
    return [*tokens[:1], *inner, *tokens[1:][-1:]]


class SyntheticFeatures:
    """Features of `rows` rows, float32; every DISTINCT_ROWS-th has the same values."""

    def __init__(self, rows: int, dimension: int) -> None:
        self.rows, self.dimension = rows, dimension
        distinct = (min(rows, DISTINCT_ROWS), dimension)
        self.values = np.random.default_rng([rows, dimension]).standard_normal(distinct, dtype=np.float32)

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Copies of rows, float32 [len(rows), dimension]."""
        copies: np.ndarray = self.values[rows % len(self.values)]
        return copies


class SyntheticPixels(PixelInputs):
    """Pixels of `images` square images, uint8 [B, 3, side, side]; every DISTINCT_ROWS-th is the same."""

    def __init__(self, images: int, side: int) -> None:
        self.images = images
        shape = (min(images, DISTINCT_ROWS), 3, side, side)
        self.pixels = torch.from_numpy(np.random.default_rng([images, side]).integers(0, 256, shape, dtype=np.uint8))

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, positions: np.ndarray) -> Tensor:
        return self.pixels[torch.from_numpy(positions % len(self.pixels))]


def synthetic_pairs(
    backbone: Backbone,
    losses: LossConfiguration,
    frozen: FrozenDimensions,
    teachers: Mapping[Modality, int],
    *,
    images: int,
    captions_per_image: int = 1,
    words: int,
) -> TrainingPairs:
    """Training pairs for a student and its losses, with the features of `teachers`, by their dimensions.

    `frozen` gives the dimensions of the student's frozen towers. Every caption has `words` words, or as many as the
    student reads.
    """
    captions = images * captions_per_image
    transform = backbone.image_transform
    pixels = FeatureInputs(SyntheticFeatures(images, frozen.image)) if transform is None else None
    texts: TokenInputs | FeatureInputs
    if backbone.tokenises:
        (tokens,), pad = backbone.tokenise([WORD * words])
        texts = TokenInputs(Tokens.of([_numbered(tokens, number) for number in range(captions)], pad))
    else:
        texts = FeatureInputs(SyntheticFeatures(captions, frozen.text))
    rows = dict(zip(MODALITIES, (images, captions), strict=True))
    features = {name: SyntheticFeatures(rows[name], dimension) for name, dimension in teachers.items()}
    inputs = SplitInputs(
        images=pixels or SyntheticPixels(images, 0 if transform is None else transform.crop),
        texts=texts,
        image_of_caption=np.repeat(np.arange(images), captions_per_image),
    )
    judges = None if losses.contrastive is None else losses.contrastive.false_negatives
    positive_text = None
    if judges is not None and "text" in judges.teachers:
        positive_text = np.full(captions, 0.5, dtype=np.float32)
    return TrainingPairs(inputs, features.get("image"), features.get("text"), positive_text=positive_text)
