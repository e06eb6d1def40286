"""Training steps on made-up data, to find out whether a batch fits the memory of a GPU, and which is the largest.

`train.batch_size: auto` is replaced by that number when a training starts. The number is saved in
{run}/state/batch_size.json, so that a training that continues has the same batches, and in run.json.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from cusa.common.files import read_json, write_json
from cusa.config.experiments import RunConfiguration
from cusa.config.section import validate
from cusa.config.training import OPERATIONAL
from cusa.errors import TrainingError
from cusa.layout import Modality
from cusa.losses import CUSALoss
from cusa.runs.record import STATE_FOLDER
from cusa.student.backbones import FrozenDimensions
from cusa.student.student import build_student
from cusa.training.averaging import WeightAverage
from cusa.training.distributed import Group
from cusa.training.files import TrainingFiles
from cusa.training.optimisation import build_optimiser
from cusa.training.step import TrainingTask, add_gradients
from cusa.training.synthetic import synthetic_pairs

log = logging.getLogger(__name__)
BATCH_SIZE = "batch_size.json"
STEPS = 2  # in the second step, the optimiser's state is in memory together with the activations
FIRST = 8  # pairs of the smallest batch that is tried
USED = 0.9  # share of the GPU's memory; the rest is for other processes and other shapes of batches
ADVICE = "Take a smaller student or a GPU with more memory, set train.chunk_size, or train.precision: bf16."


def trial_step(
    configuration: RunConfiguration,
    frozen: FrozenDimensions,
    teachers: Mapping[Modality, int],
    device: torch.device,
    processes: int = 1,
) -> None:
    """Take STEPS training steps with a full batch of distinct images and distinct captions of the greatest length.

    `frozen` and `teachers` are the lengths of cached features, see TrainingFiles.dimensions. With several `processes`,
    their gradients have a second place in memory, where they are averaged. Raises
    torch.cuda.OutOfMemoryError if the batch does not fit the device.
    """
    settings, losses = configuration.train, configuration.losses
    student = build_student(configuration.student, losses, frozen)
    task = TrainingTask(student, CUSALoss(losses), settings, Group(device=device)).to(device).train()
    words = configuration.captions.max_words or configuration.student.max_tokens
    pairs = synthetic_pairs(student.backbone, losses, frozen, teachers, images=settings.pairs_per_batch, words=words)
    batch = pairs[np.arange(len(pairs))].to(device)
    optimiser = build_optimiser(task, settings)
    average = WeightAverage(task, settings.ema_decay) if settings.ema_decay else None
    averaged = [torch.empty_like(weight) for weight in task.parameters() if weight.requires_grad and processes > 1]
    for step in range(1, STEPS + 1):
        optimiser.zero_grad(set_to_none=True)
        add_gradients(task, task, batch, last=True)
        optimiser.step()
        if average is not None:
            average.update(step)
    del averaged


def largest_that_fits(fits: Callable[[int], bool], most: int) -> int | None:
    """The largest number of pairs up to `most` for which `fits` is true, to an eighth; None if FIRST do not fit.

    It is `most`, or FIRST times a power of two and a whole number of eighths of that.
    """
    size = min(FIRST, most)
    if not fits(size):
        return None
    while size < most and fits(min(2 * size, most)):
        size = min(2 * size, most)
    if size == most:
        return size
    eighth = max(1, size // 8)
    low, high = 0, min(8, size)  # eighths above `size` that fit, and that do not
    while high - low > 1:
        middle = (low + high) // 2
        if size + middle * eighth <= most and fits(size + middle * eighth):
            low = middle
        else:
            high = middle
    return size + low * eighth


def with_batch_size(configuration: RunConfiguration, files: TrainingFiles, run: Path | None = None) -> RunConfiguration:
    """A configuration whose `train.batch_size` is a number: that of the state in `run`, else the largest that fits.

    Every process of the group calls this, and rank 0 tries. Raises TrainingError if FIRST pairs do not fit, and
    ConfigurationError if a batch that fits has no place for a group (hard negatives, captions of an image).
    """
    if configuration.train.batch_size != "auto":
        return configuration
    group, size = files.group, None
    if group.is_main:
        size = _saved_size(configuration, run)
        if size is None:
            most = files.pairs() // (group.world_size * configuration.train.accumulate)
            size = _largest_size(configuration, *files.dimensions(), most, group)
            _save_size(configuration, size, run)
    chosen = _with_size(configuration, group.broadcast(size))
    return validate(RunConfiguration, chosen.model_dump(mode="json"))


def _with_size(configuration: RunConfiguration, size: int) -> RunConfiguration:
    train = configuration.train.model_copy(update={"batch_size": size})
    return configuration.model_copy(update={"train": train})


def _settings_of_size(configuration: RunConfiguration) -> str:
    """The settings that the number depends on. Operational keys may change while a training is interrupted."""
    return configuration.as_json(without={"train": set(OPERATIONAL)})


def _saved_size(configuration: RunConfiguration, run: Path | None) -> int | None:
    path = None if run is None else run / STATE_FOLDER / BATCH_SIZE
    if path is None or not path.is_file():
        return None
    saved = read_json(path)
    if not isinstance(saved, dict) or saved.get("configuration") != _settings_of_size(configuration):
        return None
    size = int(saved["batch_size"])
    log.info("train.batch_size: auto is %d, as when this training started", size)
    return size


def _save_size(configuration: RunConfiguration, size: int, run: Path | None) -> None:
    if run is not None:
        (run / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
        write_json(
            run / STATE_FOLDER / BATCH_SIZE, {"batch_size": size, "configuration": _settings_of_size(configuration)}
        )


def _largest_size(
    configuration: RunConfiguration,
    frozen: FrozenDimensions,
    teachers: Mapping[Modality, int],
    most: int,
    group: Group,
) -> int:
    device = group.device

    def fits(size: int) -> bool:
        fitting = _takes_a_step(_with_size(configuration, size), frozen, teachers, group)
        log.info("train.batch_size: auto: %d pairs %s", size, "fit" if fitting else "do not fit")
        return fitting

    size = largest_that_fits(fits, most)
    share = f"{USED:.0%} of the {_memory_of(device)}"
    if size is None:
        raise TrainingError(
            f"train.batch_size is auto, but a batch of {min(FIRST, most)} pairs does not fit {share}. {ADVICE}"
        )
    log.info("train.batch_size: auto is %d: the largest that fits %s", size, share)
    return size


def _memory_of(device: torch.device) -> str:
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.total_memory / 2**30:.1f} GiB of {properties.name}"


def _takes_a_step(
    configuration: RunConfiguration,
    frozen: FrozenDimensions,
    teachers: Mapping[Modality, int],
    group: Group,
) -> bool:
    device = group.device
    torch.cuda.set_per_process_memory_fraction(USED, device)
    try:
        trial_step(configuration, frozen, teachers, device, group.world_size)
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        gc.collect()
        torch.cuda.empty_cache()
    return True
