"""torch.compile for the towers of a training: their code is fused and compiled for the device before the first step.

It is compiled once for batches of any number of rows and any length of texts, on synthetic pairs. So what is compiled
does not depend on the batch that comes first, and a training that is resumed computes the same as one that was not.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cusa.common.compute import random_state, set_random_state
from cusa.errors import StoppedError, cause_of
from cusa.layout import Modality
from cusa.student.backbones import FrozenDimensions, TextInput, each_tensor
from cusa.student.sides import sides_with_a_tower
from cusa.training.flops import shape_of_texts
from cusa.training.gradient_cache import TowerInputs, rows_of
from cusa.training.step import TrainingTask
from cusa.training.synthetic import synthetic_pairs

log = logging.getLogger(__name__)
WORDS = 12  # of the synthetic captions
# Random numbers are drawn as without compilation, so that dropout is the same in all passes of GradCache.
COMPILER: dict[str, Any] = {"backend": "inductor", "options": {"fallback_random": True}}


def compile_towers(task: TrainingTask, frozen: FrozenDimensions) -> list[Modality]:
    """Compile the towers of a task, and return the sides for which that worked.

    A tower that cannot be compiled is run as it is, and the log says why. This takes a step with a full batch, or a
    full chunk, but it changes no weight, no gradient, no running statistic and no random state. Call it before the task
    is divided among processes. `frozen` gives the lengths of the features of frozen towers, which have no code.
    """
    torch.compiler.reset()  # an earlier training in this process has filled a cache whose size is limited
    compiled = torch.compile(task.student.backbone.tower_features, **COMPILER)

    def tower(side: Modality, inputs: TextInput) -> Tensor:
        features: Tensor = compiled(side, each_tensor(inputs, _of_any_size))
        return features

    inputs, started, working = _inputs(task, frozen), time.monotonic(), list[Modality]()
    with _as_it_was(task), _quietly():
        for side in sides_with_a_tower(task.student.backbone):
            task.compiled[side] = tower
            try:
                _run(task, {side: inputs[side]})
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # noqa: BLE001 -- compilers fail in many ways, and the plain tower still works
                if stopped := _stopped(error):
                    raise stopped from None
                del task.compiled[side]
                why = cause_of(error)  # without the compiler's graph, which has a line for each operation
                log.warning("train.compile: the %s tower cannot be compiled, and is run as it is: %s", side, why)
            else:
                working.append(side)
    log.info("compiled the towers of %s in %.0f s", working or "no side", time.monotonic() - started)
    return working


def _stopped(error: BaseException | None) -> StoppedError | None:
    """The StoppedError that caused an error: the compiler wraps errors that are raised while it works."""
    while error is not None and not isinstance(error, StoppedError):
        error = error.__cause__ or error.__context__
    return error


def _inputs(task: TrainingTask, frozen: FrozenDimensions) -> TowerInputs:
    """Synthetic inputs of a full batch, or of a full chunk."""
    settings, student = task.settings, task.student
    rows = min(settings.pairs_per_batch, settings.chunk_size or settings.pairs_per_batch)
    made = synthetic_pairs(student.backbone, task.loss.configuration, frozen, {}, images=rows, words=WORDS)
    inputs = task.inputs(made[np.arange(rows)].to(task.group.device))
    # torch.compile takes dimensions of one length for the same dimension; rows are not the length of texts.
    if rows > 2 and shape_of_texts(inputs["text"])[1] == rows:
        return rows_of(inputs, {side: slice(rows - 1) for side in inputs})
    return inputs


def _of_any_size(tensor: Tensor) -> Tensor:
    """The tensor, marked for the compiler: its rows, and the length of token ids, differ from batch to batch."""
    torch._dynamo.maybe_mark_dynamic(tensor, 0)
    if tensor.dtype == torch.int64:
        torch._dynamo.maybe_mark_dynamic(tensor, 1)
    return tensor


def _run(task: TrainingTask, inputs: TowerInputs) -> None:
    """Compile what a step runs: the towers forward and backward, and in chunks also without a graph."""
    if task.settings.chunk_size is not None:
        with torch.no_grad():
            task.towers(inputs)
    learned = [parameter for parameter in task.student.parameters() if parameter.requires_grad]
    for features in task.towers(inputs).values():
        if features.requires_grad:
            torch.autograd.grad(features.float().sum(), learned, allow_unused=True)


@contextmanager
def _quietly() -> Iterator[None]:
    """A block in which PyTorch does not say what the log says in one line, or what matters to nobody.

    The compiler traces the backward pass in PyTorch's anomaly mode. Any error there, also that of a signal which stops
    the training, is then told with the stack of the forward pass. On a machine without a GPU, the compiler also says
    that CUDA is installed and finds none.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Error detected in \w+\.", category=UserWarning)
        yield


@contextmanager
def _as_it_was(task: TrainingTask) -> Iterator[None]:
    """A block in train mode, after which mode, buffers (running statistics) and random states are those of before."""
    mode, drawn = task.training, random_state()
    buffers = {name: buffer.clone() for name, buffer in task.named_buffers()}
    task.train()
    try:
        yield
    finally:
        task.train(mode)
        set_random_state(drawn)
        with torch.no_grad():
            for name, buffer in task.named_buffers():
                buffer.copy_(buffers[name])
