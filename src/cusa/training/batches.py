"""From files to the tensors a student takes: pixels or cached features, tokens or cached features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cusa.student.backbones import TextInput
from cusa.student.inputs import SplitInputs, to_device
from cusa.teachers.store import FeatureStore


@dataclass
class TrainingBatch:
    """B pairs. Teacher features are None where no soft label is on; `image_ids` are positions, int64 [B]."""

    images: Tensor
    texts: TextInput
    teacher_image: Tensor | None
    teacher_text: Tensor | None
    image_ids: Tensor

    def to(self, device: torch.device) -> TrainingBatch:
        """The same batch on another device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return TrainingBatch(
            images=self.images.to(device, non_blocking=True),
            texts=to_device(self.texts, device),
            teacher_image=move(self.teacher_image),
            teacher_text=move(self.teacher_text),
            image_ids=self.image_ids.to(device, non_blocking=True),
        )

    def split(self, size: int) -> list[TrainingBatch]:
        """The same pairs in batches of `size`, in order; the last may be smaller."""

        def part(tensor: Tensor | None, pairs: slice) -> Tensor | None:
            return None if tensor is None else tensor[pairs]

        parts = []
        for start in range(0, len(self.image_ids), size):
            pairs = slice(start, start + size)
            texts = self.texts
            parts.append(
                TrainingBatch(
                    images=self.images[pairs],
                    texts=texts[pairs] if isinstance(texts, Tensor) else {key: texts[key][pairs] for key in texts},
                    teacher_image=part(self.teacher_image, pairs),
                    teacher_text=part(self.teacher_text, pairs),
                    image_ids=self.image_ids[pairs],
                )
            )
        return parts

    def pin_memory(self) -> TrainingBatch:
        """Page-locked copies, which the loader makes for GPUs."""
        self.images = self.images.pin_memory()
        return self


class TrainingPairs(Dataset[TrainingBatch]):
    """Whole batches by pair numbers; a pair is a caption's position, its image follows from it."""

    def __init__(
        self, inputs: SplitInputs, teacher_image: FeatureStore | None, teacher_text: FeatureStore | None
    ) -> None:
        assert inputs.texts is not None
        self.images, self.texts = inputs.images, inputs.texts
        self.image_of_caption = inputs.image_of_caption
        self.teacher_image, self.teacher_text = teacher_image, teacher_text

    def __len__(self) -> int:
        return len(self.image_of_caption)

    def __getitem__(self, pairs: np.ndarray) -> TrainingBatch:
        images = self.image_of_caption[pairs]
        # Captions of one image in a batch share one decode.
        distinct, where = np.unique(images, return_inverse=True)
        return self.batch(images, pairs, self.images[distinct][torch.from_numpy(where)])

    def batch(self, images: np.ndarray, captions: np.ndarray, inputs: Tensor) -> TrainingBatch:
        """Pairs of images and captions by position, int64 [B]; `inputs` is what the student takes of the images."""
        teacher_image = teacher_text = None
        if self.teacher_image is not None:
            teacher_image = torch.from_numpy(self.teacher_image[images])
        if self.teacher_text is not None:
            teacher_text = torch.from_numpy(self.teacher_text[captions])
        return TrainingBatch(inputs, self.texts[captions], teacher_image, teacher_text, torch.from_numpy(images))
