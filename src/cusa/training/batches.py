"""Training pairs as tensors: pixels or cached features, tokens or cached features, and teacher features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cusa.common.distinct import DistinctRows, distinct_rows, of_pairs
from cusa.layout import Modality
from cusa.student.backbones import TextInput, each_tensor
from cusa.student.inputs import SplitInputs
from cusa.teachers.store import Features
from cusa.training.augmentation import PairAugmentation


@dataclass
class TrainingBatch:
    """B training pairs. Images and texts that pairs share are stored once; `*_rows` are the rows of each pair.

    `images`: uint8 [n, 3, H, W], or float32 [n, d] if the student's image tower is frozen.
    `texts`: token ids and attention mask, int64 [m, T] each, or float32 [m, d] if the text tower is frozen.
    `teacher_image`: [k, d], `teacher_text`: [B, d]; None if no loss needs that teacher.
    `positive_text`: float32 [B], see false_negatives.py, or None if no negative is judged by its caption.
    `image_ids`: positions of the images in the train split, int64 [B]; equal for captions of one image.
    `image_rows`, `text_rows`, `teacher_image_rows`: for each pair the row in `images`, `texts` and `teacher_image`,
    int64 [B], or None if row i is that of pair i. Images that training changes at random differ from pair to pair.
    """

    images: Tensor
    texts: TextInput
    teacher_image: Tensor | None
    teacher_text: Tensor | None
    image_ids: Tensor
    positive_text: Tensor | None = None
    image_rows: Tensor | None = None
    text_rows: Tensor | None = None
    teacher_image_rows: Tensor | None = None

    def to(self, device: torch.device) -> TrainingBatch:
        """The same batch on `device`; the copy from page-locked memory is asynchronous."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def rows(self) -> dict[Modality, Tensor | None]:
        """`image_rows` and `text_rows`."""
        return {"image": self.image_rows, "text": self.text_rows}

    def by_pair(self) -> TrainingBatch:
        """The same pairs with a row of `images` and of `texts` for each of them."""
        return replace(
            self,
            images=of_pairs(self.images, self.image_rows),
            texts=each_tensor(self.texts, lambda tensor: of_pairs(tensor, self.text_rows)),
            image_rows=None,
            text_rows=None,
        )

    def pin_memory(self) -> TrainingBatch:
        """The same batch in page-locked memory; the loader calls this when it trains on a GPU.

        A copy from other memory would make the host wait until the GPU has done its work.
        """
        return self._each(lambda tensor: tensor.pin_memory())

    def tensors(self) -> list[Tensor]:
        """All tensors of the batch."""
        values = [value for part in fields(self) if (value := getattr(self, part.name)) is not None]
        return [tensor for value in values for tensor in ([value] if isinstance(value, Tensor) else value.values())]

    def _each(self, change: Callable[[Tensor], Tensor]) -> TrainingBatch:
        """The same batch with each of its tensors changed."""

        def changed(value: TextInput | None) -> Any:
            return None if value is None else each_tensor(value, change)

        return TrainingBatch(**{part.name: changed(getattr(self, part.name)) for part in fields(self)})


class TrainingPairs(Dataset[TrainingBatch]):
    """The training pairs of a split. A pair's number is the position of its caption, which determines the image.

    The random changes depend on `augmentation.epoch`, which is set before an epoch is loaded.
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
        distinct = distinct_rows(images)
        changed = self.augmentation.image_inputs(self.images, images, pairs)
        return self.batch(images, pairs, distinct, self.images[images[distinct[0]]] if changed is None else changed)

    def batch(self, images: np.ndarray, captions: np.ndarray, distinct: DistinctRows, inputs: Tensor) -> TrainingBatch:
        """The batch of some images and captions by position, int64 [B] each.

        `distinct` is `distinct_rows` of the images. `inputs` are images as the student's image tower takes them: the
        distinct ones, or one for each pair. See TrainingBatch.
        """
        first, rows = distinct[0], _tensor(distinct[1])
        teacher_image = teacher_text = positive_text = None
        if self.teacher_image is not None:
            teacher_image = torch.from_numpy(self.teacher_image[images[first]])
        if self.teacher_text is not None:
            teacher_text = torch.from_numpy(self.teacher_text[captions])
        if self.positive_text is not None:
            positive_text = torch.from_numpy(self.positive_text[captions])
        texts = self.augmentation.text_inputs(self.texts, captions)
        texts, text_rows = distinct_texts(self.texts[captions] if texts is None else texts)
        return TrainingBatch(
            images=inputs,
            texts=texts,
            teacher_image=teacher_image,
            teacher_text=teacher_text,
            image_ids=torch.from_numpy(images),
            positive_text=positive_text,
            image_rows=rows if len(inputs) < len(images) else None,
            text_rows=text_rows,
            teacher_image_rows=None if teacher_image is None else rows,
        )


def distinct_texts(texts: TextInput) -> tuple[TextInput, Tensor | None]:
    """Each distinct caption of a batch once, and the row of each pair in them, int64 [B]; None if all differ.

    Captions with the same tokens are the same text. For a frozen tower's features the result is None: only their
    projection remains to compute.
    """
    if isinstance(texts, Tensor):
        return texts, None
    first, rows = distinct_rows(np.concatenate([part.numpy() for part in texts.values()], axis=1))
    if rows is None:
        return texts, None
    places = torch.from_numpy(first)
    return each_tensor(texts, lambda tensor: tensor[places]), torch.from_numpy(rows)


def _tensor(numbers: np.ndarray | None) -> Tensor | None:
    return None if numbers is None else torch.from_numpy(numbers)
