"""The student: a backbone and the four heads of the paper."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from cusa.config.losses import LossConfiguration
from cusa.config.models import StudentSettings
from cusa.student.backbones import Backbone, DualEncoder, FrozenDimensions, OpenClip, TextInput, TowerPair

HeadName = Literal["cross", "uni"]
HEAD_STD = 0.02


# CLIPs that transformers has no model for; open_clip has, with OpenAI's weights.
RESNETS = ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")
NOTHING_FROZEN = FrozenDimensions()


class Student(nn.Module):
    """A backbone and the heads that the losses need."""

    def __init__(self, backbone: Backbone, losses: LossConfiguration) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict()
        if losses.contrastive is not None or losses.cross_softlabel is not None:
            self._add_heads("cross")
        if losses.uni_softlabel is not None:
            self._add_heads("uni")

    def _add_heads(self, family: HeadName) -> None:
        for modality in ("image", "text"):
            dimension = self.backbone.dimension
            linear = nn.Linear(dimension, dimension)
            nn.init.normal_(linear.weight, std=HEAD_STD)
            self.heads[f"{family}_{modality}"] = nn.Sequential(nn.LayerNorm(dimension), linear)

    def head(self, features: Tensor, family: HeadName, modality: str) -> Tensor:
        """Apply a head to backbone features [B, D]; the features themselves where the head does not exist."""
        name = f"{family}_{modality}"
        return self.heads[name](features) if name in self.heads else features

    def encode_image(self, images: Tensor, head: HeadName) -> Tensor:
        """Image inputs (see Backbone.image_features) -> embeddings [B, D], not normalised."""
        return self.head(self.backbone.image_features(images), head, "image")

    def encode_text(self, texts: TextInput, head: HeadName) -> Tensor:
        """Text inputs (see Backbone.text_features) -> embeddings [B, D], not normalised."""
        return self.head(self.backbone.text_features(texts), head, "text")


def build_student(
    settings: StudentSettings, losses: LossConfiguration, frozen: FrozenDimensions = NOTHING_FROZEN
) -> Student:
    """Load the pre-trained parts and initialise the rest from torch's random state.

    Frozen towers are not loaded: `frozen` says how long their cached features are.
    """
    backbone: Backbone
    if settings.name is not None:
        kind = OpenClip if settings.name in RESNETS else DualEncoder
        backbone = kind.load(settings.name, settings.max_tokens)
    else:
        assert settings.towers is not None
        backbone = TowerPair(settings.towers, settings.max_tokens, frozen)
    return Student(backbone, losses)
