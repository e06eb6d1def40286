"""One training step on made-up data, to find out whether a batch fits the device's memory."""

from __future__ import annotations

import torch

from cusa.config.experiments import RunConfiguration
from cusa.config.models import MODALITIES
from cusa.losses import CUSALoss
from cusa.student.student import build_student
from cusa.teachers.encoders import pad_tokens
from cusa.training.batches import TrainingBatch
from cusa.training.distributed import Group
from cusa.training.optimisation import build_optimiser
from cusa.training.step import TrainingTask, add_gradients


def trial_step(configuration: RunConfiguration, device: torch.device) -> None:
    """Take one complete training step of a dual encoder, with a full batch of the longest captions.

    Raises torch.cuda.OutOfMemoryError if the batch does not fit the device.
    """
    settings = configuration.train
    student = build_student(configuration.student, configuration.losses)
    task = TrainingTask(student, CUSALoss(configuration.losses), settings, Group(device=device)).to(device).train()
    transform, size = student.backbone.image_transform, settings.batch_size
    assert transform is not None
    words = configuration.captions.max_words or configuration.student.max_tokens
    tokens, pad = student.backbone.tokenise(["word " * words] * size)
    teacher_image, teacher_text = (
        torch.rand(size, 8) if modality in configuration.losses.teachers else None for modality in MODALITIES
    )
    images = torch.randint(0, 255, (size, 3, transform.crop, transform.crop), dtype=torch.uint8)
    batch = TrainingBatch(images, pad_tokens(tokens, pad), teacher_image, teacher_text, torch.arange(size)).to(device)
    add_gradients(task, task, batch, last=True)
    build_optimiser(task, settings).step()
