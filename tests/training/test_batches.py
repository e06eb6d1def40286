"""Batches of training pairs, and how they are split."""

from __future__ import annotations

import numpy as np
import torch
from training_runs import configured

from cusa.layout import DatasetFolder
from cusa.student.inputs import PixelInputs
from cusa.student.student import build_student
from cusa.training.batches import TrainingBatch
from cusa.training.loading import open_training_pairs


def test_parts_of_a_batch_are_its_pairs_in_order():
    pairs = torch.arange(7)
    texts = {"input_ids": pairs[:, None] + 10, "attention_mask": torch.ones(7, 1, dtype=torch.long)}
    batch = TrainingBatch(pairs[:, None] + 20, texts, None, pairs[:, None] + 30, pairs)
    parts = batch.split(3)
    assert [part.image_ids.tolist() for part in parts] == [[0, 1, 2], [3, 4, 5], [6]]
    for part in parts:
        assert torch.equal(part.images[:, 0], part.image_ids + 20)
        assert torch.equal(part.texts["input_ids"][:, 0], part.image_ids + 10)
        assert len(part.texts["attention_mask"]) == len(part.image_ids)
        assert part.teacher_image is None
        assert torch.equal(part.teacher_text[:, 0], part.image_ids + 30)


def test_captions_of_one_image_share_its_decoding(tiny_configuration, shapes_data, monkeypatch):
    run = configured(tiny_configuration)
    pairs = open_training_pairs(build_student(run.student, run.losses), run, DatasetFolder(shapes_data))
    expected = pairs.images[pairs.image_of_caption[:4]]
    decode, decoded = PixelInputs.__getitem__, []

    def counting(images: PixelInputs, positions: np.ndarray) -> torch.Tensor:
        decoded.extend(positions.tolist())
        return decode(images, positions)

    monkeypatch.setattr(PixelInputs, "__getitem__", counting)
    batch = pairs[np.arange(4)]
    assert decoded == sorted(set(pairs.image_of_caption[:4].tolist()))
    assert len(decoded) < 4
    assert torch.equal(batch.images, expected)
