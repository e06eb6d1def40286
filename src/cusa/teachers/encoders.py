"""The bases of image and text encoders, which are in one module a kind of model.

The same encoder serves as a teacher, as a frozen tower (its features are cached too) and as a trainable tower.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cusa.common.files import expanded
from cusa.config.models import ImageModel, TextModel
from cusa.teachers.weight_files import sha256_of_weights, weight_file_in

if TYPE_CHECKING:
    from cusa.teachers.token_use import Vocabulary
    from cusa.teachers.transform import ImageTransform


class ImageEncoder(nn.Module):
    """A vision model with its transform.

    A subclass sets `dimension`, the length of its features, and `transform`, which turns image files into pixels.
    `weights_file` is the file that the weights came from, or the index of several files; None if there is neither.
    `name` is set when the encoder is loaded.
    """

    name: str
    dimension: int
    transform: ImageTransform
    weights_file: Path | None = None

    @abstractmethod
    def features(self, pixels: Tensor) -> Tensor:
        """Pooled features [B, dimension] of normalised pixels, float32 [B, 3, H, W]."""

    def fuse(self) -> None:
        """Prepare for extraction: a network may take another form that gives the same features faster.

        It cannot be trained after that.
        """

    def forward(self, pixels: Tensor) -> Tensor:
        """Features [B, dimension] of uint8 pixels [B, 3, H, W], as `transform.pixels` gives them."""
        return self.features(self.transform.normalise(pixels))


class TextEncoder(nn.Module):
    """A sentence model with its tokeniser. For its attributes see ImageEncoder.

    `prompt` is the text that `tokenise` puts before every caption, "" for none; None if the encoder has no prompts.
    """

    name: str
    dimension: int
    weights_file: Path | None = None
    prompt: str | None = None

    @abstractmethod
    def tokenise(self, captions: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        """Token ids of each caption, special tokens included, truncated to `max_tokens` or the model's limit."""

    def vocabulary(self, max_tokens: int | None = None) -> Vocabulary | None:
        """The tokeniser's vocabulary, for reports, with the limits of `tokenise`; None if it is not known."""
        return None

    @property
    @abstractmethod
    def pad_token(self) -> int:
        """The padding id."""

    @abstractmethod
    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Sentence embeddings [B, dimension] of `input_ids` and `attention_mask`, int64 [B, T]."""


def weights_sha256(encoder: ImageEncoder | TextEncoder) -> str:
    """SHA-256 of the weights' file or files; without a file, of the tensors in the order of their names."""
    if encoder.weights_file is not None:
        return sha256_of_weights(encoder.weights_file)
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def configured_weights_sha256(model: ImageModel | TextModel) -> str | None:
    """The `weights_sha256` of a configured model whose weights are files in its folder, without loading the model.

    None for the names of hubs, packages and Python files.
    """
    weights = weight_file_in(expanded(model.name))
    if isinstance(model, ImageModel) and model.unicom is not None and model.unicom.weights is not None:
        weights = expanded(model.unicom.weights)
    return sha256_of_weights(weights) if weights is not None and weights.is_file() else None


def pad_tokens(tokens: Sequence[Sequence[int]], pad_token: int) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, int64 [B, T], padded to the longest of the captions."""
    longest = max(map(len, tokens))
    ids = torch.full((len(tokens), longest), pad_token, dtype=torch.int64)
    mask = torch.zeros((len(tokens), longest), dtype=torch.int64)
    for row, caption in enumerate(tokens):
        ids[row, : len(caption)] = torch.tensor(caption)
        mask[row, : len(caption)] = 1
    return {"input_ids": ids, "attention_mask": mask}
