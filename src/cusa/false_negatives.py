"""False negatives: pairs that a teacher considers more similar than the positive are left out of the loss.

The idea is that of GISTEmbed (Solatorio, 2024, arXiv 2402.16829), where one guide model compares both sides of a pair.
The teachers here compare within one modality, so the positive of pair i is what the teacher can compare i with:

    T_v[i, j], T_t[i, j]  the cosine similarities of the images, and of the captions, of pairs i and j
    p_v[i] = 1            an image is the picture of its own captions
    p_t[i]                the mean of T_t over the other captions of the image of pair i; 1 if it has no other

    left out: T[i, j] > p[i] - margin  (absolute)  or  T[i, j] > p[i] * (1 - margin)  (relative), of another image

The same pairs are left out of image-to-text and text-to-image, because the question is whether pairs i and j match.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from cusa.config.losses import FalseNegatives, TeacherName
from cusa.metrics.scores import unit_float64
from cusa.teachers.store import Features

BLOCK_ROWS = 1 << 16


def false_negatives(
    settings: FalseNegatives,
    similarities: Mapping[TeacherName, Tensor],
    positive_text: Tensor | None,
    same_image: Tensor,
) -> Tensor:
    """The entries of a batch's similarities that are left out: bool [b, B].

    `similarities` are the teachers', float [b, B], by `image` and `text`. `positive_text` is p_t, float [b]; None means
    1 for all. `same_image`, bool [b, B], marks the positives, which are never left out.
    """
    judged = [
        similarities[teacher] > _threshold(settings, positive_text if teacher == "text" else None)
        for teacher in settings.teachers
    ]
    nearer = judged[0] if len(judged) == 1 else torch.stack(judged).any(dim=0)
    if settings.teacher == "both":
        nearer = torch.stack(judged).all(dim=0)
    return nearer & ~same_image


def _threshold(settings: FalseNegatives, positive: Tensor | None) -> Tensor | float:
    """The similarity above which a negative is left out: [b, 1], or one for all."""
    column = 1.0 if positive is None else positive[:, None]
    return column - settings.margin if settings.margin_strategy == "absolute" else column * (1 - settings.margin)


def leave_out(logits: Tensor, left_out: Tensor | None) -> Tensor:
    """Logits [b, B] whose entries `left_out`, bool [b, B], have the probability 0, in a softmax and in a sigmoid.

    So they add nothing to a loss, and have no gradient. They get the lowest finite number, because minus infinity times
    a target of 0 would not be 0.
    """
    return logits if left_out is None else logits.masked_fill(left_out, torch.finfo(logits.dtype).min)


def similarity_to_other_captions(features: Features, image_of_caption: np.ndarray) -> np.ndarray:
    """p_t of every caption: float32 [captions].

    The features of the text teacher have a row for each caption; `image_of_caption` is int64 [captions]. The sums of an
    image's unit features give all similarities of its captions in two passes over the features.
    """
    captions = len(image_of_caption)
    counts = np.bincount(image_of_caption)
    sums = np.zeros((len(counts), features.dimension), dtype=np.float64)
    blocks = [np.arange(start, min(start + BLOCK_ROWS, captions)) for start in range(0, captions, BLOCK_ROWS)]
    for rows in blocks:
        np.add.at(sums, image_of_caption[rows], unit_float64(features[rows]))
    with_all = np.empty(captions)
    for rows in blocks:
        with_all[rows] = np.einsum("ij,ij->i", unit_float64(features[rows]), sums[image_of_caption[rows]])
    others = counts[image_of_caption] - 1
    positive: np.ndarray = np.where(others > 0, (with_all - 1) / np.maximum(others, 1), 1.0).astype(np.float32)
    return positive
