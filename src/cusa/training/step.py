"""One training step: from a batch to gradients, in one go or chunk by chunk, alone or with other processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cusa.common.compute import autocast, random_state, set_random_state
from cusa.config.training import Train
from cusa.errors import ConfigurationError, TrainingError
from cusa.losses import CUSALoss, GatherRows, Losses
from cusa.student.student import Student
from cusa.training.batches import TrainingBatch
from cusa.training.distributed import Group

Heads = dict[str, Tensor | None]
BATCH_NORMALISATION = nn.modules.batchnorm._BatchNorm


class TrainingTask(nn.Module):
    """Student and loss as one module, so that distributed training sees every parameter."""

    def __init__(self, student: Student, loss: CUSALoss, settings: Train, group: Group | None = None) -> None:
        super().__init__()
        self.student = student
        self.loss = loss
        self.settings = settings
        self.group = group or Group()

    def forward(self, batch: TrainingBatch, cached: CachedGradients | None = None) -> Losses | Tensor:
        """The losses of a batch that is on the group's device.

        With `cached`, instead a scalar whose gradients are the batch's share of those.
        """
        heads = self.heads(batch)
        if cached is None:
            return self.losses(heads, batch)
        terms = [(said * cached.heads[name]).sum() for name, said in heads.items() if said is not None]
        terms += [self.loss.temperatures[name] * gradient for name, gradient in cached.temperatures.items()]
        return torch.stack([term.float() for term in terms]).sum()

    def heads(self, batch: TrainingBatch) -> Heads:
        """What the heads say of a batch, [B, D] each, None where no loss needs it; in `train.precision`."""
        student, families = self.student, self.loss.configuration
        with autocast(self.group.device, self.settings.precision):
            image = student.backbone.image_features(batch.images)
            text = student.backbone.text_features(batch.texts)
            heads: Heads = dict.fromkeys(("cross_image", "cross_text", "uni_image", "uni_text"))
            if families.contrastive is not None or families.cross_softlabel is not None:
                heads["cross_image"] = student.head(image, "cross", "image")
                heads["cross_text"] = student.head(text, "cross", "text")
            if families.uni_softlabel is not None:
                heads["uni_image"] = student.head(image, "uni", "image")
                heads["uni_text"] = student.head(text, "uni", "text")
        return heads

    def losses(self, heads: Heads, batch: TrainingBatch) -> Losses:
        """The losses in float32: of this process's batch, or its share of those of all (`train.gather: global`)."""
        gather_rows: GatherRows | None = None
        if self.settings.gather == "global" and self.group.world_size > 1:
            gather_rows = self.group.gather_rows
        losses: Losses = self.loss(
            **heads,
            teacher_image=batch.teacher_image,
            teacher_text=batch.teacher_text,
            image_ids=batch.image_ids,
            gather_rows=gather_rows,
        )
        return losses


class CachedGradients:
    """Gradients of a batch's loss with respect to what its heads said, and to the temperatures."""

    def __init__(self, heads: dict[str, Tensor], temperatures: dict[str, Tensor]) -> None:
        self.heads, self.temperatures = heads, temperatures

    def part(self, pairs: slice, last: bool) -> CachedGradients:
        """The share of some pairs; the temperatures', which belong to all, go with the last."""
        return CachedGradients(
            {name: gradient[pairs] for name, gradient in self.heads.items()}, self.temperatures if last else {}
        )


def parallel(task: TrainingTask) -> nn.Module:
    """The task as the loop calls it: its gradients are averaged over the group."""
    if task.group.world_size == 1:
        return task
    # A backbone may have parameters that take no part (a pooler); DDP has to be told to look.
    return DistributedDataParallel(task, find_unused_parameters=True)


def require_chunkable(student: Student, settings: Train) -> None:
    """Raise ConfigurationError where `train.chunk_size` would change what is learned."""
    if settings.chunk_size is not None and any(isinstance(part, BATCH_NORMALISATION) for part in student.modules()):
        raise ConfigurationError(
            "Configuration key `train.chunk_size`: the student normalises over the batch (BatchNorm), and would "
            "normalise over chunks instead; leave train.chunk_size null and lower train.batch_size."
        )


def add_gradients(
    model: nn.Module, task: TrainingTask, batch: TrainingBatch, last: bool, check: Callable[[Losses], None]
) -> Losses:
    """Add a batch's gradients, over `train.accumulate`, to the parameters'; `model` is `parallel(task)`.

    `last` says that no batch follows in this step, so the processes average what they have. `check` sees the losses
    before any gradient is computed. Returns the losses, detached.
    """
    settings = task.settings
    scale = 1.0 / settings.accumulate
    if settings.chunk_size is None or settings.chunk_size >= len(batch.image_ids):
        with _synchronised(model, last):
            losses: Losses = model(batch)
            check(losses)
            (losses.total * scale).backward()  # type: ignore[no-untyped-call]
        return losses.detached()
    # GradCache (Gao et al., 2021, arXiv 2101.06983): the heads of all chunks without a graph, the gradients of the
    # loss with respect to them, then each chunk again, with a graph, to carry these on to the parameters.
    chunks, states, parts = batch.split(settings.chunk_size), [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(random_state())
            parts.append(task.heads(chunk))
    leaves: Heads = {name: _joined([part[name] for part in parts]) for name in parts[0]}
    losses = task.losses(leaves, batch)
    check(losses)
    cached = _gradients(losses.total * scale, leaves, task.loss)
    for number, (chunk, state) in enumerate(zip(chunks, states, strict=True)):
        set_random_state(state)  # the dropout of the first time
        final = number + 1 == len(chunks)
        pairs = slice(number * settings.chunk_size, (number + 1) * settings.chunk_size)
        with _synchronised(model, last and final):
            model(chunk, cached.part(pairs, final)).backward()
    return losses.detached()


def require_finite(losses: Losses, loss: CUSALoss, epoch: int, step: int, batch: TrainingBatch) -> None:
    """Raise TrainingError, saying what was found, when a loss is not a number."""
    if math.isfinite(losses.total.item()):
        return
    terms = {"contrastive": losses.contrastive, "cross": losses.cross, "uni": losses.uni}
    found = ", ".join(f"{name} {term.item():g}" for name, term in terms.items())
    raise TrainingError(
        f"the loss is not finite at epoch {epoch}, step {step}: {found}; temperatures {loss.temperature_values()}; "
        f"first images of the batch (positions in train): {batch.image_ids[:5].tolist()}. No optimiser step was "
        "taken with it. Lower train.lr, set train.gradient_clip, or use train.precision: fp32."
    )


def _synchronised(model: nn.Module, last: bool) -> Any:
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found).requires_grad_() if found else None


def _gradients(total: Tensor, heads: Heads, loss: CUSALoss) -> CachedGradients:
    leaves = {name: leaf for name, leaf in heads.items() if leaf is not None}
    learned = {name: value for name, value in loss.temperatures.items() if value.requires_grad}
    found = torch.autograd.grad(total, [*leaves.values(), *learned.values()], allow_unused=True)

    def known(names: Iterable[str], gradients: Iterable[Tensor | None]) -> dict[str, Tensor]:
        return {name: gradient for name, gradient in zip(names, gradients, strict=True) if gradient is not None}

    return CachedGradients(known(leaves, found[: len(leaves)]), known(learned, found[len(leaves) :]))
