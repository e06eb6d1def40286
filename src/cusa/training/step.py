"""One training step: from a batch to gradients, at once or in chunks, in one process or in several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cusa.common.compute import AUTOCAST_TYPES, autocast, random_state, set_random_state
from cusa.common.distinct import of_pairs
from cusa.config.training import Train
from cusa.errors import ConfigurationError
from cusa.layout import Modality
from cusa.losses import CUSALoss, Losses
from cusa.runs.weights import STUDENT_PREFIX
from cusa.student.adaptation import NORMALISATION, frozen_normalisation
from cusa.student.backbones import TextInput
from cusa.student.student import Student
from cusa.teacher_similarities import GatherRows
from cusa.training.batches import TrainingBatch
from cusa.training.checkpointing import checkpoint_towers
from cusa.training.distributed import Group
from cusa.training.gradient_cache import CachedGradients, TowerInputs, chunks_of, fewest_rows, joined, rows_of
from cusa.training.sharding import average_whole_gradients

Heads = dict[str, Tensor | None]
Scale = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class StepResult:
    """The results of one optimiser step: its learning rate, and the losses of each of its batches, detached."""

    rate: float
    losses: list[Losses]


class TrainingTask(nn.Module):
    """Student and loss as one module, so that DistributedDataParallel sees every parameter."""

    def __init__(self, student: Student, loss: CUSALoss, settings: Train, group: Group | None = None) -> None:
        super().__init__()
        student.set_dropout(settings.feature_dropout, settings.head_dropout, settings.feature_noise)
        self.student = student
        self.loss = loss
        self.settings = settings
        self.group = group or Group()
        on_gpu, half = self.group.device.type == "cuda", settings.precision in AUTOCAST_TYPES
        self.loss.half_teachers = on_gpu and half
        self.normalises_over_batch = bool(batch_normalisation(student))
        if settings.checkpoint_towers:
            checkpoint_towers(student)
        # The towers that are compiled, see compilation.py.
        self.compiled: dict[Modality, Callable[[Modality, TextInput], Tensor]] = {}

    def trained_state(self) -> dict[str, Any]:
        """The state dict of the weights that training changes, without those that `student.adapt` has frozen."""
        frozen = self._frozen_names()
        return {name: value for name, value in self.state_dict().items() if name not in frozen}

    def load_trained_state(self, state: Mapping[str, Any]) -> None:
        """Load what `trained_state` gave; the frozen weights stay. Raises RuntimeError if the names differ."""
        frozen = self._frozen_names()
        self.load_state_dict({name: value for name, value in self.state_dict().items() if name in frozen} | dict(state))

    def _frozen_names(self) -> set[str]:
        return {f"{STUDENT_PREFIX}{name}" for name in self.student.frozen_names()}

    def forward(self, batch: TrainingBatch | TowerInputs, cached: CachedGradients | None = None) -> Losses | Tensor:
        """The losses of a batch that is on the group's device.

        With `cached`, a scalar instead, for some inputs of the towers. Its gradients with respect to the parameters are
        their share of the loss's gradients.
        """
        if isinstance(batch, TrainingBatch):
            batch = self.prepared(batch)
            return self.losses(self.heads(batch, self.towers(self.inputs(batch))), batch)
        assert cached is not None
        return cached.product(self.towers(batch), dict(self.named_parameters()) if cached.parameters else {})

    def prepared(self, batch: TrainingBatch) -> TrainingBatch:
        """The batch as the towers take it. With BatchNorm, it has a row for each pair, so statistics are over pairs."""
        return batch.by_pair() if self.normalises_over_batch else batch

    def inputs(self, batch: TrainingBatch) -> TowerInputs:
        """The inputs of the towers."""
        return {"image": batch.images, "text": batch.texts}

    def towers(self, inputs: TowerInputs) -> dict[Modality, Tensor]:
        """The towers' features [n, d] by side, in the dtype of `train.precision`."""
        with autocast(self.group.device, self.settings.precision):
            return {side: self.tower_features(side, value) for side, value in inputs.items()}

    def tower_features(self, side: Modality, inputs: TextInput) -> Tensor:
        """The features [n, d] of one tower, by compiled code if there is some."""
        return self.compiled.get(side, self.student.backbone.tower_features)(side, inputs)

    def heads(self, batch: TrainingBatch, towers: Mapping[Modality, Tensor]) -> Heads:
        """The outputs of the heads by name, [B, D] each, not normalised; None if no loss needs a head.

        The dtype is that of `train.precision`. Noise and dropout after the towers are drawn for each pair.
        """
        student, families = self.student, self.loss.configuration.heads
        heads: Heads = dict.fromkeys(("cross_image", "cross_text", "uni_image", "uni_text"))
        with autocast(self.group.device, self.settings.precision):
            for side, rows in batch.rows().items():
                features = towers[side]
                if student.draws_by_pair:
                    features, rows = of_pairs(features, rows), None
                features = student.regularised(side, features)
                for family in families:
                    heads[f"{family}_{side}"] = of_pairs(student.head(features, family, side), rows)
        return heads

    def losses(self, heads: Heads, batch: TrainingBatch) -> Losses:
        """The losses of a batch, float32 scalars.

        With `train.gather: global`, this process's share of the losses of all processes' batches as one batch.
        """
        gather_rows: GatherRows | None = None
        if self.settings.gather == "global" and self.group.world_size > 1:
            gather_rows = self.group.gather_rows
        losses: Losses = self.loss(
            **heads,
            teacher_image=batch.teacher_image,
            teacher_text=batch.teacher_text,
            image_ids=batch.image_ids,
            positive_text=batch.positive_text,
            teacher_image_rows=batch.teacher_image_rows,
            gather_rows=gather_rows,
        )
        return losses


def parallel(task: TrainingTask) -> nn.Module:
    """The module that the loop calls: with several processes, it averages the gradients over them."""
    if task.group.world_size == 1 or task.settings.shard_student:
        return task
    # A backbone may have parameters that the losses do not use (a pooler), so DDP must look for unused ones.
    return DistributedDataParallel(task, find_unused_parameters=True)


def add_gradients(
    model: nn.Module, task: TrainingTask, batch: TrainingBatch, last: bool, scaled: Scale = lambda loss: loss
) -> Losses:
    """Add the gradients of a batch's total loss, divided by `train.accumulate`, to the parameters' gradients.

    `model` is `parallel(task)`. `last` says that no other batch follows in this step, so the processes average their
    gradients. `scaled` multiplies the loss before the backward pass, see Guard.scaled. Returns the losses, detached.
    """
    size = task.settings.chunk_size
    at_once = size is None or size >= len(batch.image_ids)
    losses = (_add_at_once if at_once else _add_in_chunks)(model, task, batch, last, scaled)
    if last and task.settings.shard_student:
        average_whole_gradients(task, task.group)
    return losses


def _add_at_once(model: nn.Module, task: TrainingTask, batch: TrainingBatch, last: bool, scaled: Scale) -> Losses:
    with _synchronised(model, last):
        losses: Losses = model(batch)
        scaled(losses.total * (1.0 / task.settings.accumulate)).backward()  # type: ignore[no-untyped-call]
    return losses.detached()


def _add_in_chunks(model: nn.Module, task: TrainingTask, batch: TrainingBatch, last: bool, scaled: Scale) -> Losses:
    """The same in chunks, in the three passes of gradient_cache.py."""
    assert task.settings.chunk_size is not None
    size, count = task.settings.chunk_size, None
    if task.settings.shard_student:  # each chunk gathers weights, so all processes need equally many
        count = -(-len(batch.image_ids) // size)
        batch = batch if fewest_rows(task.inputs(batch)) >= count else batch.by_pair()
    inputs = task.inputs(batch)
    chunks = chunks_of(inputs, size, count)
    random_states, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            random_states.append(random_state())
            parts.append(task.towers(rows_of(inputs, chunk)))
    towers = joined(parts)
    losses = task.losses(task.heads(batch, towers), batch)
    cached = CachedGradients.of(scaled(losses.total * (1.0 / task.settings.accumulate)), towers, task)
    drawn = random_state()
    for number, (chunk, state) in enumerate(zip(chunks, random_states, strict=True), start=1):
        set_random_state(state)  # so that dropout is the same as in the first pass
        with _synchronised(model, last and number == len(chunks)):
            product = model(rows_of(inputs, chunk), cached.share(chunk, last=number == len(chunks)))
            if product.requires_grad:  # a side that is not trained has nothing that gradients could reach
                product.backward()
    set_random_state(drawn)
    return losses.detached()


def batch_normalisation(student: Student) -> list[nn.Module]:
    """The parts of a student that normalise over the batch when it is trained."""
    frozen = [] if student.base is None else frozen_normalisation(student.backbone)
    return [part for part in student.modules() if isinstance(part, NORMALISATION) and part not in frozen]


def require_chunkable(student: Student, settings: Train) -> None:
    """Raise ConfigurationError if `train.chunk_size` would change what the student learns."""
    if settings.chunk_size is not None and batch_normalisation(student):
        raise ConfigurationError(
            "Configuration key `train.chunk_size`: the student normalises over the batch (BatchNorm), and would "
            "normalise over chunks instead; leave train.chunk_size null and lower train.batch_size."
        )


def _synchronised(model: nn.Module, last: bool) -> Any:
    """Whether the processes average their gradients in the backward pass of this block: only in the last one."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()
