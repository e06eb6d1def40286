"""Runs a student over the images and texts of a split, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cusa.common.compute import Precision, autocast
from cusa.common.progress import progress
from cusa.config.losses import HeadName
from cusa.student.inputs import FeatureInputs, SplitInputs, TokenInputs, to_device
from cusa.student.student import Student

HEADS: tuple[HeadName, ...] = ("cross", "uni")


class ImageInputs(Protocol):
    """Images by position, as the student's backbone reads them: pixels, or the features of a frozen tower."""

    def __len__(self) -> int: ...

    def __getitem__(self, positions: np.ndarray, /) -> Tensor: ...


@dataclass(frozen=True)
class Encoder:
    """A student on `device`. `batch_size` is the number of items a batch, `precision` that of the towers."""

    student: Student
    device: torch.device
    batch_size: int
    precision: Precision = "fp32"

    def encode(self, inputs: SplitInputs, heads: Sequence[HeadName] = HEADS) -> dict[str, np.ndarray]:
        """`image_{head}`, and `text_{head}` if the split has captions: float32 [rows, D], not normalised."""
        embeddings = self.encode_images(inputs.images, heads)
        return embeddings if inputs.texts is None else embeddings | self.encode_texts(inputs.texts, heads)

    @torch.inference_mode()
    def encode_images(self, images: ImageInputs, heads: Sequence[HeadName] = HEADS) -> dict[str, np.ndarray]:
        """`image_{head}`: float32 [rows, D], not normalised."""
        parts: dict[str, list[np.ndarray]] = {f"image_{head}": [] for head in heads}
        for positions in self._batches(len(images), "images"):
            with autocast(self.device, self.precision):
                features = self.student.backbone.image_features(images[positions].to(self.device))
                for head in heads:
                    parts[f"image_{head}"].append(_to_numpy(self.student.head(features, head, "image")))
        return {name: np.concatenate(part) for name, part in parts.items()}

    @torch.inference_mode()
    def encode_texts(
        self, texts: TokenInputs | FeatureInputs, heads: Sequence[HeadName] = HEADS
    ) -> dict[str, np.ndarray]:
        """`text_{head}`: float32 [rows, D], not normalised."""
        parts: dict[str, list[np.ndarray]] = {f"text_{head}": [] for head in heads}
        # Texts of similar length share a batch, which saves padding.
        order = np.argsort(texts.lengths, kind="stable") if isinstance(texts, TokenInputs) else np.arange(len(texts))
        for positions in self._batches(len(texts), "texts"):
            with autocast(self.device, self.precision):
                features = self.student.backbone.text_features(to_device(texts[order[positions]], self.device))
                for head in heads:
                    parts[f"text_{head}"].append(_to_numpy(self.student.head(features, head, "text")))
        back = np.argsort(order, kind="stable")
        return {name: np.concatenate(part)[back] for name, part in parts.items()}

    def _batches(self, rows: int, unit: str) -> Iterator[np.ndarray]:
        starts = range(0, rows, self.batch_size)
        batches = (np.arange(start, min(start + self.batch_size, rows)) for start in starts)
        if rows <= self.batch_size:  # of many small calls, no one wants to see the progress of each
            return batches
        return progress(batches, rows, unit, "embedding", self.batch_size)


def _to_numpy(embeddings: Tensor) -> np.ndarray:
    return embeddings.float().cpu().numpy()
