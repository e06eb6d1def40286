"""The student: a backbone and the four heads of the paper.

Each head is LayerNorm(D), Linear(D, D), which starts at random values, as published, or at the identity. Cross heads
serve image-text retrieval, uni heads serve image-image and text-text retrieval. A loss family that is off has no heads;
the backbone's features are then used in their place, as the published evaluation does.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from cusa.config.adaptation import Adaptation
from cusa.config.losses import HeadName, LossConfiguration
from cusa.config.models import HeadStart, StudentSettings
from cusa.layout import Modality
from cusa.student.adaptation import Base, adapt, frozen_normalisation
from cusa.student.adapters import is_adapter, merge_adapters
from cusa.student.backbones import Backbone, FrozenDimensions, TextInput
from cusa.student.registry import load_backbone
from cusa.student.towers import TowerPair

HEAD_STD = 0.02
NOTHING_FROZEN = FrozenDimensions()


class Student(nn.Module):
    """A backbone and the heads that the losses need."""

    def __init__(self, backbone: Backbone, losses: LossConfiguration, head_start: HeadStart = "random") -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict()
        self.head_dropout = 0.0
        # What `adapt` has frozen; None if all weights are trained.
        self.base: Base | None = None
        for family in losses.heads:
            self._add_heads(family, head_start)

    def _add_heads(self, family: HeadName, start: HeadStart) -> None:
        for modality in ("image", "text"):
            dimension = self.backbone.dimension
            linear = nn.Linear(dimension, dimension)
            nn.init.normal_(linear.weight, std=HEAD_STD)
            if start == "identity":
                nn.init.eye_(linear.weight)
                nn.init.zeros_(linear.bias)
            self.heads[f"{family}_{modality}"] = nn.Sequential(nn.LayerNorm(dimension), linear)

    def set_dropout(self, features: float, heads: float, noise: float = 0.0) -> None:
        """Set the shares of features that training drops: of the towers' features, and of those inside the heads.

        `noise` is that of the towers' features, as a share of their standard deviations.
        """
        self.backbone.feature_dropout, self.head_dropout, self.backbone.feature_noise = features, heads, noise

    def train(self, mode: bool = True) -> Self:
        """Set train or eval mode; frozen BatchNorm stays in eval mode."""
        super().train(mode)
        if self.base is not None:
            for module in frozen_normalisation(self.backbone):
                module.eval()
        return self

    def adapt(self, settings: Adaptation) -> None:
        """Train only what `settings` say of the pre-trained weights; see adaptation.py."""
        self.base = adapt(self.backbone, settings)

    def merge(self) -> None:
        """Merge the adapters into the weights; the student is then as one that was trained whole."""
        if self.base is not None:
            merge_adapters(self.backbone)
            self.base = None

    def pretrained_parameters(self) -> set[Tensor]:
        """The parameters whose learning rate is `train.tower_lr`: those of the backbone without the adapters."""
        adapters = {weight for name, weight in self.backbone.named_parameters() if is_adapter(name)}
        return self.backbone.pretrained_parameters() - adapters

    def frozen_names(self) -> set[str]:
        """The names, in the student, of the weights that stay as they were loaded; see adaptation.py."""
        if self.base is None:
            return set()
        frozen = set(self.base.weights.values())
        return {name for name, weight in self.named_parameters(remove_duplicate=False) if weight in frozen}

    def image_features(self, images: Tensor) -> Tensor:
        """Image features [B, D], which the heads read; for `images` see Backbone.image_features."""
        return self.regularised("image", self.backbone.tower_features("image", images))

    def text_features(self, texts: TextInput) -> Tensor:
        """Text features [B, D], which the heads read; for `texts` see Backbone.text_features."""
        return self.regularised("text", self.backbone.tower_features("text", texts))

    def regularised(self, side: Modality, features: Tensor) -> Tensor:
        """Features [B, D], which the heads read, of a tower's, [B, d], with the noise and dropout of training."""
        return self.backbone.projected(side, self.backbone.regularised(features))

    @property
    def draws_by_pair(self) -> bool:
        """Whether a step draws noise or dropout after the towers, for each pair: then pairs do not share heads."""
        backbone = self.backbone
        return self.training and max(backbone.feature_dropout, backbone.feature_noise, self.head_dropout) > 0

    def head(self, features: Tensor, family: HeadName, modality: str) -> Tensor:
        """Apply a head to the features [B, D]; if there is no such head, return the features."""
        if (name := f"{family}_{modality}") not in self.heads:
            return features
        block = self.heads[name]
        assert isinstance(block, nn.Sequential)
        norm, linear = block
        output: Tensor = linear(dropout(norm(features), self.head_dropout, self.training))
        return output

    def encode_image(self, images: Tensor, head: HeadName) -> Tensor:
        """Image embeddings [B, D], not normalised; for `images` see Backbone.image_features."""
        return self.head(self.image_features(images), head, "image")

    def encode_text(self, texts: TextInput, head: HeadName) -> Tensor:
        """Text embeddings [B, D], not normalised; for `texts` see Backbone.text_features."""
        return self.head(self.text_features(texts), head, "text")


def trained_parameters(student: Student) -> int | None:
    """The number of weights of a student that are trained; None if all are."""
    if student.base is None:
        return None
    return sum(weight.numel() for weight in student.parameters() if weight.requires_grad)


def build_student(
    settings: StudentSettings, losses: LossConfiguration, frozen: FrozenDimensions = NOTHING_FROZEN
) -> Student:
    """A student with its pre-trained parts loaded and the rest initialised from torch's random state.

    `frozen` gives the lengths of the features of frozen towers, which are not loaded. Raises ConfigurationError if a
    part cannot be loaded.
    """
    with torch.inference_mode(False):  # weights that are made in inference mode never get a gradient
        if settings.towers is None:
            student = Student(load_backbone(settings), losses, settings.head_start)
        else:
            towers = TowerPair(settings.towers, settings.max_tokens, frozen)
            student = Student(towers, losses, settings.head_start)
        if settings.adapt is not None:
            student.adapt(settings.adapt)
    return student
