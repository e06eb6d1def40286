"""Frozen uni-modal models and their cached features. One module a kind of model; the registry is at the end.

The same encoders serve as teachers, as frozen towers (cached like a teacher) and as trainable towers of a student.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cusa.common.files import sha256_of_file
from cusa.config.models import ImageModel, TextModel

if TYPE_CHECKING:
    from cusa.teachers.transform import ImageTransform


class ImageEncoder(nn.Module):
    """A vision model with its transform. `weights_file` is None when the weights came from no single file."""

    name: str
    dimension: int
    transform: ImageTransform
    weights_file: Path | None = None

    @abstractmethod
    def features(self, pixels: Tensor) -> Tensor:
        """Normalised float pixels [B, 3, H, W] -> pooled features [B, dimension]."""

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 pixels [B, 3, H, W], as `transform.pixels` gives them -> features [B, dimension]."""
        return self.features(self.transform.normalise(pixels))


class TextEncoder(nn.Module):
    """A sentence model with its tokeniser."""

    name: str
    dimension: int
    weights_file: Path | None = None

    @abstractmethod
    def tokenise(self, captions: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        """Token ids of each caption, special tokens included, truncated to `max_tokens` or the model's limit."""

    @property
    @abstractmethod
    def pad_token(self) -> int:
        """The id that fills short captions up."""

    @abstractmethod
    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """`input_ids` and `attention_mask`, int64 [B, T] -> sentence embeddings [B, dimension]."""


def weights_sha256(encoder: ImageEncoder | TextEncoder) -> str:
    """SHA-256 of the weights' file, or of the tensors in the order of their names where there is no one file."""
    if encoder.weights_file is not None:
        return sha256_of_file(encoder.weights_file)
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def configured_weights_sha256(model: ImageModel | TextModel) -> str | None:
    """What `weights_sha256` would say of a configured model, as far as a file on disk tells without loading it.

    None for hub names: their weights are pinned by the hub's own cache.
    """
    weights = Path(model.name).expanduser() / "model.safetensors"
    if isinstance(model, ImageModel) and model.unicom is not None and model.unicom.weights is not None:
        weights = Path(model.unicom.weights).expanduser()
    return sha256_of_file(weights) if weights.is_file() else None


def pad_tokens(tokens: Sequence[Sequence[int]], pad_token: int) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, int64 [B, longest]."""
    longest = max(map(len, tokens))
    ids = torch.full((len(tokens), longest), pad_token, dtype=torch.int64)
    mask = torch.zeros((len(tokens), longest), dtype=torch.int64)
    for row, caption in enumerate(tokens):
        ids[row, : len(caption)] = torch.tensor(caption)
        mask[row, : len(caption)] = 1
    return {"input_ids": ids, "attention_mask": mask}
