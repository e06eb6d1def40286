"""Validation: recall of the split that selects the epoch, by rank 0, or by all processes if none has all weights."""

from __future__ import annotations

import numpy as np
import torch

from cusa.config.losses import HeadName
from cusa.config.training import Train
from cusa.errors import TrainingError
from cusa.metrics.recall import image_text_recall
from cusa.student.encoding import Encoder
from cusa.student.inputs import SplitInputs
from cusa.student.student import Student
from cusa.training.distributed import Group

HEAD: HeadName = "cross"


def validate(student: Student, inputs: SplitInputs, settings: Train, group: Group, epoch: int) -> dict[str, float]:
    """Recall in per cent by name after an epoch, which counts from 0. The student is in eval mode afterwards.

    Rank 0 gets it. With `train.shard_student` every process has to call this. Raises TrainingError if embeddings are
    not finite.
    """
    encoder = Encoder(student.eval(), group.device, settings.eval_batch_size, settings.precision)
    shares = group.world_size if settings.shard_student else 1
    embeddings = _encoded(encoder, inputs, group, shares)
    if not all(np.isfinite(array).all() for array in embeddings):
        raise TrainingError(
            f"after epoch {epoch + 1}, embeddings of {settings.selection_split} are not finite: the model has "
            "diverged. Lower train.lr, set train.gradient_clip, or use train.precision: fp32."
        )
    return image_text_recall(*embeddings, inputs.image_of_caption) if group.is_main else {}


def _encoded(encoder: Encoder, inputs: SplitInputs, group: Group, shares: int) -> tuple[np.ndarray, np.ndarray]:
    """The embeddings of all images and of all captions, float32 [rows, D] each, in every process that encodes."""
    assert inputs.texts is not None
    rows_of_images, rows_of_texts = (
        None if shares == 1 else equal_share(rows, group.rank, shares)
        for rows in (len(inputs.images), len(inputs.texts))
    )
    (images,) = encoder.encode_images(inputs.images, [HEAD], rows_of_images).values()
    (texts,) = encoder.encode_texts(inputs.texts, [HEAD], rows_of_texts).values()
    if shares == 1:
        return images, texts
    return _joined(images, group, len(inputs.images)), _joined(texts, group, len(inputs.texts))


def equal_share(rows: int, rank: int, shares: int) -> np.ndarray:
    """The rows that a process encodes, int64: consecutive, and as many in every process.

    Processes that gather weights from each other have to encode as many batches. The last rows are followed by the
    first ones again.
    """
    size = -(-rows // shares)
    return np.arange(rank * size, (rank + 1) * size) % rows


def _joined(share: np.ndarray, group: Group, rows: int) -> np.ndarray:
    """The rows of all processes, without those at the end that are there twice."""
    together = group.gather_rows(torch.from_numpy(share).to(group.device))
    return together[:rows].cpu().numpy()
