"""Training pairs as tensors: pixels or cached features, tokens or cached features, and teacher features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cusa.student.backbones import TextInput
from cusa.student.inputs import SplitInputs, to_device
from cusa.teachers.store import Features
from cusa.training.augmentation import PairAugmentation


@dataclass
class TrainingBatch:
    """B training pairs.

    `images`: uint8 [B, 3, H, W], or float32 [B, d] if the student's image tower is frozen.
    `texts`: token ids and attention mask, int64 [B, T] each, or float32 [B, d] if the text tower is frozen.
    `teacher_image`, `teacher_text`: [B, d], or None if no loss needs that teacher.
    `positive_text`: float32 [B], see false_negatives.py, or None if no negative is judged by its caption.
    `image_ids`: positions of the images in the train split, int64 [B]; equal for captions of one image.
    """

    images: Tensor
    texts: TextInput
    teacher_image: Tensor | None
    teacher_text: Tensor | None
    image_ids: Tensor
    positive_text: Tensor | None = None

    def to(self, device: torch.device) -> TrainingBatch:
        """The same batch on `device`; the copy from page-locked memory is asynchronous."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return TrainingBatch(
            images=self.images.to(device, non_blocking=True),
            texts=to_device(self.texts, device),
            teacher_image=move(self.teacher_image),
            teacher_text=move(self.teacher_text),
            image_ids=self.image_ids.to(device, non_blocking=True),
            positive_text=move(self.positive_text),
        )

    def split(self, size: int) -> list[TrainingBatch]:
        """The same pairs in batches of `size`, in order; the last batch may be smaller."""

        def rows(tensor: Tensor | None, pairs: slice) -> Tensor | None:
            return None if tensor is None else tensor[pairs]

        batches = []
        for start in range(0, len(self.image_ids), size):
            pairs = slice(start, start + size)
            texts = self.texts
            batches.append(
                TrainingBatch(
                    images=self.images[pairs],
                    texts=texts[pairs] if isinstance(texts, Tensor) else {key: texts[key][pairs] for key in texts},
                    teacher_image=rows(self.teacher_image, pairs),
                    teacher_text=rows(self.teacher_text, pairs),
                    image_ids=self.image_ids[pairs],
                    positive_text=rows(self.positive_text, pairs),
                )
            )
        return batches

    def pin_memory(self) -> TrainingBatch:
        """Move the images to page-locked memory; the loader calls this when it trains on a GPU."""
        self.images = self.images.pin_memory()
        return self


class TrainingPairs(Dataset[TrainingBatch]):
    """The training pairs of a split. A pair's number is the position of its caption, which determines the image.

    What is changed at random for training depends on `augmentation.epoch`, which is set before an epoch is loaded.
    """

    def __init__(
        self,
        inputs: SplitInputs,
        teacher_image: Features | None,
        teacher_text: Features | None,
        augmentation: PairAugmentation | None = None,
        positive_text: np.ndarray | None = None,
    ) -> None:
        """The teachers have a row for each image and for each caption; None if no loss needs them.

        `positive_text` is float32 [captions], see false_negatives.py; None if no negative is judged by its caption.
        """
        assert inputs.texts is not None
        self.augmentation = augmentation or PairAugmentation()
        self.images, self.texts = inputs.images, inputs.texts
        self.image_of_caption = inputs.image_of_caption
        self.teacher_image, self.teacher_text, self.positive_text = teacher_image, teacher_text, positive_text

    def __len__(self) -> int:
        return len(self.image_of_caption)

    def __getitem__(self, pairs: np.ndarray) -> TrainingBatch:
        """The batch of some pairs by number, int64 [B]."""
        images = self.image_of_caption[pairs]
        changed = self.augmentation.image_inputs(self.images, images, pairs)
        if changed is not None:
            return self.batch(images, pairs, changed)
        # Captions of one image in a batch share one decoded image.
        distinct, inverse = np.unique(images, return_inverse=True)
        return self.batch(images, pairs, self.images[distinct][torch.from_numpy(inverse)])

    def batch(self, images: np.ndarray, captions: np.ndarray, inputs: Tensor) -> TrainingBatch:
        """The batch of some images and captions by position, int64 [B] each.

        `inputs` are the images as the student's image tower takes them, see TrainingBatch.images.
        """
        teacher_image = teacher_text = positive_text = None
        if self.teacher_image is not None:
            teacher_image = torch.from_numpy(self.teacher_image[images])
        if self.teacher_text is not None:
            teacher_text = torch.from_numpy(self.teacher_text[captions])
        if self.positive_text is not None:
            positive_text = torch.from_numpy(self.positive_text[captions])
        texts = self.augmentation.text_inputs(self.texts, captions)
        if texts is None:
            texts = self.texts[captions]
        image_ids = torch.from_numpy(images)
        return TrainingBatch(inputs, texts, teacher_image, teacher_text, image_ids, positive_text)
