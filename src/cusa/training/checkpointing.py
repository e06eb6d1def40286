"""Gradient checkpointing of the towers (Chen et al., 2016, arXiv 1604.06174): less memory for more operations.

The forward pass keeps the inputs of each layer, but none of its intermediate results. The backward pass computes
a layer again, with the same random numbers, when its turn has come. Gradients are the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cusa.errors import ConfigurationError
from cusa.student.adaptation import NORMALISATION
from cusa.student.sides import Side, sides_with_a_tower
from cusa.student.student import Student

log = logging.getLogger(__name__)


def checkpoint_towers(student: Student) -> None:
    """Checkpoint each layer of a student's towers, in train mode; call it while the weights are on the CPU.

    Layers are those of `Side.layers`. Raises ConfigurationError if no tower has layers that are trained.
    """
    layers: list[nn.Module] = []
    for name in sides_with_a_tower(student.backbone):
        try:
            layers += [layer for _, layer in Side.of(student.backbone, name).layers()]
        except ConfigurationError:
            log.warning("train.checkpoint_towers: no layers of the %s tower are trained; nothing is saved there", name)
    if not layers:
        raise ConfigurationError(
            "Configuration key `train.checkpoint_towers` is true, but the student has no tower with layers that are "
            "trained, so it would save no memory; leave it out."
        )
    for layer in dict.fromkeys(layers):
        layer.forward = _checkpointed(layer)


def _checkpointed(layer: nn.Module) -> Callable[..., Any]:
    """The layer's forward pass, of which nothing but its inputs is kept for the backward pass."""
    forward = layer.forward

    def checkpointed(*inputs: Any, **named: Any) -> Any:
        if not (layer.training and torch.is_grad_enabled()):
            return forward(*inputs, **named)
        if torch.compiler.is_compiling():  # the compiler updates running statistics once
            return checkpoint(forward, *inputs, use_reentrant=False, **named)
        updated = [part for part in layer.modules() if isinstance(part, NORMALISATION) and _updates(part)]
        contexts = lambda: (nullcontext(), _statistics_kept(updated))  # noqa: E731
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)

    return checkpointed


def _updates(module: NORMALISATION) -> bool:
    return module.training and module.track_running_stats


@contextmanager
def _statistics_kept(modules: Sequence[NORMALISATION]) -> Iterator[None]:
    """A block in which modules normalise as in train mode, but their running statistics stay."""
    before = [(module.momentum, module.num_batches_tracked) for module in modules]
    for module in modules:
        module.momentum, module.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for module, (momentum, tracked) in zip(modules, before, strict=True):
            module.momentum, module.num_batches_tracked = momentum, tracked
