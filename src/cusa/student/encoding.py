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
from cusa.common.transfer import on_host, pinned
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

    def encode_images(
        self, images: ImageInputs, heads: Sequence[HeadName] = HEADS, rows: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """`image_{head}`: float32 [rows, D], not normalised. `rows` are positions, int64 [rows]; None means all."""
        rows = np.arange(len(images)) if rows is None else rows

        def outputs() -> Iterator[list[Tensor]]:
            for batch in self._batches(rows, "images"):
                inputs = pinned(images[batch], self.device).to(self.device, non_blocking=True)
                with autocast(self.device, self.precision):
                    found = self._heads(self.student.image_features(inputs), heads, "image")
                yield found

        return self._collected(outputs(), heads, "image")

    def encode_texts(
        self,
        texts: TokenInputs | FeatureInputs,
        heads: Sequence[HeadName] = HEADS,
        rows: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """`text_{head}`: float32 [rows, D], not normalised. `rows` are positions, int64 [rows]; None means all."""
        rows = np.arange(len(texts)) if rows is None else rows
        # Texts of similar length share a batch, which saves padding.
        lengths = texts.lengths[rows] if isinstance(texts, TokenInputs) else np.zeros(len(rows), dtype=np.int64)
        order = np.argsort(lengths, kind="stable")

        def outputs() -> Iterator[list[Tensor]]:
            for batch in self._batches(rows[order], "texts"):
                inputs = to_device(texts[batch], self.device)
                with autocast(self.device, self.precision):
                    found = self._heads(self.student.text_features(inputs), heads, "text")
                yield found

        back = np.argsort(order, kind="stable")
        return {name: array[back] for name, array in self._collected(outputs(), heads, "text").items()}

    def _heads(self, features: Tensor, heads: Sequence[HeadName], modality: str) -> list[Tensor]:
        return [self.student.head(features, head, modality).float() for head in heads]

    # No inference mode: weights that FSDP gathers in it for the first time could never have a gradient.
    @torch.no_grad()
    def _collected(
        self, batches: Iterator[list[Tensor]], heads: Sequence[HeadName], modality: str
    ) -> dict[str, np.ndarray]:
        """The outputs of the heads by name, in the order of the batches."""
        parts: dict[str, list[np.ndarray]] = {f"{modality}_{head}": [] for head in heads}
        for batch in on_host(batches):
            for collected, output in zip(parts.values(), batch, strict=True):
                collected.append(output.numpy())
        return {name: np.concatenate(part) for name, part in parts.items()}

    def _batches(self, rows: np.ndarray, unit: str) -> Iterator[np.ndarray]:
        batches = (rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size))
        if len(rows) <= self.batch_size:  # of many small calls, no one wants to see the progress of each
            return batches
        return progress(batches, len(rows), unit, "embedding", self.batch_size)
