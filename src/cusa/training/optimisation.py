"""The optimiser, and the learning rate of each step."""

from __future__ import annotations

import math

import torch
from torch import nn

from cusa.config.training import Train
from cusa.training.layers import layers_below_the_top
from cusa.training.sharding import is_sharded
from cusa.training.step import TrainingTask


def learning_rate(settings: Train, epoch: int, step: int, steps_per_epoch: int) -> float:
    """The learning rate of an optimiser step: a cosine from `train.lr` to `train.min_lr`.

    `epoch` and `step` count from 0. With `train.schedule: epoch`, as published, for epoch e of E:
    min_lr + (lr - min_lr) / 2 * (1 + cos(pi * e / E)). With `step`, the same formula over optimiser steps, after a
    linear warm-up of `train.warmup_steps` steps.
    """
    if settings.schedule == "epoch":
        done = epoch / settings.epochs
    else:
        number, total = epoch * steps_per_epoch + step, settings.epochs * steps_per_epoch
        if number < settings.warmup_steps:
            return settings.lr * (number + 1) / settings.warmup_steps
        done = (number - settings.warmup_steps) / max(1, total - settings.warmup_steps)
    return settings.min_lr + (settings.lr - settings.min_lr) / 2 * (1 + math.cos(math.pi * done))


def build_optimiser(task: TrainingTask, settings: Train) -> torch.optim.AdamW:
    """AdamW with the published parameter groups: weight decay on all parameters except those with one dimension.

    Scalars (the temperatures) are decayed too, as in the published code. Each group has a factor `scale` of its
    learning rate, so that pre-trained towers can have another peak rate (`train.tower_lr`), and their lower layers a
    lower one (`train.layer_decay`).
    """
    backbone, pretrained = task.student.backbone, task.student.pretrained_parameters()
    tower_scale = 1.0 if settings.tower_lr is None else settings.tower_lr / settings.lr
    named = [(name, parameter) for name, parameter in backbone.named_parameters() if parameter in pretrained]
    layers = layers_below_the_top(name for name, _ in named)
    below = {parameter: layers[name] if settings.layer_decay != 1 else 0 for name, parameter in named}
    groups: dict[tuple[bool, int, bool, bool], list[nn.Parameter]] = {}
    for parameter in task.parameters():
        if parameter.requires_grad:
            # No operation takes tensors that are divided among processes together with others.
            sharded = is_sharded(parameter)
            kind = (parameter in pretrained, below.get(parameter, 0), parameter.ndim != 1, sharded)
            groups.setdefault(kind, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": settings.weight_decay if decayed else 0.0,
                "scale": tower_scale * settings.layer_decay**layers_above if from_tower else 1.0,
            }
            for (from_tower, layers_above, decayed, _), parameters in groups.items()
        ],
        lr=settings.lr,
        fused=True,  # one kernel for all weights, which also reads on the device whether a step is to be taken
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group to `rate` times the group's `scale`."""
    for parameters in optimiser.param_groups:
        parameters["lr"] = rate * parameters["scale"]
