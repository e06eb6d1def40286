"""Batches of training pairs, and how they are split."""

from __future__ import annotations

import numpy as np
import torch
from training_runs import configured

from cusa.layout import DatasetFolder
from cusa.student.inputs import PixelInputs
from cusa.student.student import build_student
from cusa.training.loading import open_training_pairs


def test_a_batch_has_each_image_and_each_text_once(tiny_configuration, shapes_data):
    """Pairs say which rows are theirs; images and texts stay in the order in which they come first."""
    run = configured(tiny_configuration)
    pairs = open_training_pairs(build_student(run.student, run.losses), run, DatasetFolder(shapes_data))
    pairs.texts.starts[8], pairs.texts.ends[8] = pairs.texts.starts[3], pairs.texts.ends[3]  # the same words
    numbers = np.array([8, 3, 2, 20, 9])
    images = pairs.image_of_caption[numbers]
    assert images.tolist() == [4, 1, 1, 10, 4]
    batch = pairs[numbers]
    assert batch.image_rows.tolist() == batch.teacher_image_rows.tolist() == [0, 1, 1, 2, 0]
    assert batch.text_rows.tolist() == [0, 0, 1, 2, 3]
    assert batch.image_ids.tolist() == images.tolist()
    assert np.array_equal(batch.teacher_image.numpy(), pairs.teacher_image[np.array([4, 1, 10])])
    assert np.array_equal(batch.teacher_text.numpy(), pairs.teacher_text[numbers])
    by_pair = batch.by_pair()
    assert (by_pair.image_rows, by_pair.text_rows) == (None, None)
    assert torch.equal(by_pair.images, pairs.images[images])
    for key, expected in pairs.texts[numbers].items():
        assert torch.equal(by_pair.texts[key], expected)


def test_a_batch_of_different_images_and_texts_has_a_row_for_each_pair(tiny_configuration, shapes_data):
    run = configured(tiny_configuration)
    pairs = open_training_pairs(build_student(run.student, run.losses), run, DatasetFolder(shapes_data))
    batch = pairs[np.array([8, 2, 21])]
    assert (batch.image_rows, batch.text_rows, batch.teacher_image_rows) == (None, None, None)
    assert torch.equal(batch.images, pairs.images[np.array([4, 1, 10])])


def test_images_that_are_changed_at_random_differ_from_pair_to_pair(tiny_configuration, shapes_data):
    """The teacher's features are those of the image, so they stay shared."""
    run = configured(tiny_configuration, augmentation={"image": {"crop": [0.3, 1.0]}})
    pairs = open_training_pairs(build_student(run.student, run.losses), run, DatasetFolder(shapes_data))
    batch = pairs[np.array([8, 9])]
    assert batch.image_rows is None
    assert not torch.equal(batch.images[0], batch.images[1])
    assert batch.teacher_image_rows.tolist() == [0, 0]


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
    assert torch.equal(batch.by_pair().images, expected)
