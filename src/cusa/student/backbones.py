"""The backbone of a student: everything before the heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from cusa.layout import Modality
from cusa.teachers.token_use import Vocabulary
from cusa.teachers.transform import ImageTransform

TextInput = Tensor | Mapping[str, Tensor]


def each_tensor(inputs: TextInput, change: Callable[[Tensor], Tensor]) -> TextInput:
    """The same inputs with each of their tensors changed."""
    return change(inputs) if isinstance(inputs, Tensor) else {key: change(part) for key, part in inputs.items()}


class Backbone(nn.Module):
    """The base of every backbone.

    A subclass sets `dimension`, the length of its features, and `image_transform`, which turns image files into pixels.
    `image_transform` is None if the image tower is frozen, and `tokenises` is False if the text tower is: their
    inputs are cached features. Students other than a pair of towers have no frozen tower.
    """

    dimension: int
    image_transform: ImageTransform | None = None
    tokenises: bool = True
    feature_dropout: float = 0.0
    feature_noise: float = 0.0

    def image_features(self, images: Tensor) -> Tensor:
        """Image features, float [B, dimension].

        `images` are uint8 pixels [B, 3, H, W], as `image_transform` gives them, or a frozen tower's features [B, d].
        """
        raise TypeError(f"{type(self).__name__} has to define image_features()")

    def text_features(self, texts: TextInput) -> Tensor:
        """Text features, float [B, dimension].

        `texts` are `input_ids` and `attention_mask`, int64 [B, T], or a frozen tower's features [B, d].
        """
        raise TypeError(f"{type(self).__name__} has to define text_features()")

    def tower_features(self, side: Modality, inputs: TextInput) -> Tensor:
        """The features that noise and dropout change in training, [B, d]: those before the projection, if any."""
        if side == "text":
            return self.text_features(inputs)
        assert isinstance(inputs, Tensor)
        return self.image_features(inputs)

    def projected(self, side: Modality, features: Tensor) -> Tensor:
        """The features [B, dimension] that the heads read, of `tower_features`."""
        return features

    def regularised(self, features: Tensor) -> Tensor:
        """Features [B, d] with the noise and the dropout of training; outside of training, unchanged."""
        if self.training and self.feature_noise:
            deviation = features.detach().std(dim=0, correction=0)
            features = features + self.feature_noise * deviation * torch.randn_like(features)
        return dropout(features, self.feature_dropout, self.training)

    def tokenise(self, captions: Sequence[str]) -> tuple[list[list[int]], int]:
        """The token ids of each caption, special tokens included, and the padding id."""
        raise TypeError(f"{type(self).__name__} has to define tokenise()")

    def vocabulary(self) -> Vocabulary | None:
        """The tokeniser's vocabulary, for reports; None if the backbone does not give it."""
        return None

    def parameters_after_towers(self) -> set[nn.Parameter]:
        """The parameters of `projected`, which are few. All others belong to `tower_features`."""
        return set()

    def pretrained_parameters(self) -> set[Tensor]:
        """The parameters whose learning rate is `train.tower_lr`."""
        return set()


@dataclass(frozen=True)
class FrozenDimensions:
    """Lengths of the cached features of the frozen towers; 0 if the tower is trainable."""

    image: int = 0
    text: int = 0
