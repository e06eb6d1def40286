"""Runs some steps of a training to measure their costs and the parts of their time; nothing is saved.

They are steps of the real trainer. If its data do not exist yet, the steps use synthetic pairs of the same shapes, and
the time for data is not known.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from cusa.annotations.tables import IMAGES, cleaning_of
from cusa.common.files import atomic_file
from cusa.config.experiments import RunConfiguration
from cusa.errors import ConfigurationError
from cusa.layout import DatasetFolder, Modality, RunInputs
from cusa.student.backbones import FrozenDimensions
from cusa.student.student import Student
from cusa.teachers.registry import load_image_encoder, load_text_encoder
from cusa.training.batch_size import with_batch_size
from cusa.training.batches import TrainingBatch
from cusa.training.costs import SPEEDS, peak_of, speeds
from cusa.training.distributed import Group
from cusa.training.files import TrainingFiles
from cusa.training.interruption import Stop
from cusa.training.loading import TrainingData
from cusa.training.loop import Trainer
from cusa.training.state import Progress
from cusa.training.synthetic import synthetic_pairs
from cusa.training.timeline import PARTS, Part, Timeline, timed

WARM_UP = 3  # steps before the ones that are measured
TRACED = 3  # steps of a trace, which has thousands of lines for each
LARGEST_BATCH = 65536
CAPTIONS_PER_IMAGE, WORDS, STEPS_PER_EPOCH = 5, 16, 8  # of synthetic pairs, as COCO has them


@dataclass(frozen=True)
class StepProfile:
    """The costs of some training steps.

    `seconds` is the mean time of a step, which `parts` divide among PARTS, and `speeds` has the columns SPEEDS of the
    history, over all steps. On a GPU, `device_busy` is the share of the time in which the GPU computes; None on the
    CPU. `gpu_memory_gib` is the most memory of the GPU, None on the CPU. `synthetic` is why synthetic pairs were read,
    None if the data were read.
    """

    steps: int
    pairs: int
    processes: int
    device: str
    synthetic: str | None
    seconds: float
    parts: dict[Part, float]
    speeds: dict[str, float | None]
    device_busy: float | None
    gpu_memory_gib: float | None


class SyntheticData(TrainingData):
    """Synthetic training pairs in the place of a data set's: each epoch has STEPS_PER_EPOCH steps."""

    def __init__(
        self,
        student: Student,
        configuration: RunConfiguration,
        group: Group,
        frozen: FrozenDimensions,
        teachers: dict[Modality, int],
    ) -> None:
        settings = configuration.train
        needed = STEPS_PER_EPOCH * settings.pairs_per_batch * group.world_size * settings.accumulate
        pairs = synthetic_pairs(
            student.backbone,
            configuration.losses,
            frozen,
            teachers,
            images=-(-needed // CAPTIONS_PER_IMAGE),
            captions_per_image=CAPTIONS_PER_IMAGE,
            words=configuration.captions.max_words or WORDS,
        )
        # Neighbours of synthetic features mean nothing.
        self._start(_without_neighbours(configuration), DatasetFolder(Path()), group, pairs)


def _without_neighbours(configuration: RunConfiguration) -> RunConfiguration:
    train = configuration.train.model_copy(update={"hard_negatives": None})
    return configuration.model_copy(update={"train": train})


class SyntheticFiles(TrainingFiles):
    """Synthetic pairs in the place of files."""

    def dimensions(self) -> tuple[FrozenDimensions, dict[Modality, int]]:
        """The lengths of the features of frozen towers and teachers, as the models themselves say them."""
        return self._dimensions

    @cached_property
    def _dimensions(self) -> tuple[FrozenDimensions, dict[Modality, int]]:
        return synthetic_dimensions(self.configuration)

    def pairs(self) -> int:
        """As many as a batch may have: synthetic pairs are made for the batch."""
        return LARGEST_BATCH

    def open(self, student: Student) -> TrainingData:
        """Synthetic pairs; there is no split to validate on."""
        return SyntheticData(student, self.configuration, self.group, *self.dimensions())

    def digests(self) -> dict[str, str]:
        """Nothing is read."""
        return {}

    def notes(self, student: Student) -> list[str]:
        """No notes: the captions are synthetic."""
        return []


class SyntheticTrainer(Trainer):
    """A trainer whose data are synthetic. It takes steps; it cannot validate."""

    files = SyntheticFiles


def synthetic_dimensions(configuration: RunConfiguration) -> tuple[FrozenDimensions, dict[Modality, int]]:
    """The lengths of the features of a run's frozen towers and of its teachers; loads each of these models once."""
    known: dict[str, int] = {}

    def dimension(modality: Modality, model: Any) -> int:
        if model.folder not in known:
            loaded = load_image_encoder(model) if modality == "image" else load_text_encoder(model)
            known[model.folder] = loaded.dimension
        return known[model.folder]

    teachers: dict[Modality, int] = {
        modality: sum(dimension(modality, model) for model, _ in configuration.teachers_of(modality))
        for modality in configuration.losses.teachers
    }
    towers = configuration.student.towers
    if towers is None:
        return FrozenDimensions(), teachers
    return (
        FrozenDimensions(
            image=0 if towers.image.trainable else dimension("image", towers.image),
            text=0 if towers.text.trainable else dimension("text", towers.text),
        ),
        teachers,
    )


def missing_data(configuration: RunConfiguration, folder: DatasetFolder) -> str | None:
    """The first file or folder that a training reads and that does not exist yet; None if all exist."""
    needed = [folder.annotations / IMAGES, *RunInputs.of_training(configuration).paths(folder)]
    return next((str(path) for path in needed if not path.exists()), None)


def profile_steps(
    configuration: RunConfiguration,
    folder: DatasetFolder,
    group: Group,
    *,
    steps: int = 20,
    synthetic: str | None = None,
    trace: Path | None = None,
) -> StepProfile:
    """Take WARM_UP steps and then `steps` steps of a training, and measure the latter.

    `synthetic` says why synthetic pairs are read; None reads the data set's. `trace` is a file to write a Chrome trace
    of TRACED more steps to, by process 0. Every process of the group calls this. Nothing is written to the run folder.
    """
    if steps < 1:
        raise ConfigurationError(f"--steps is {steps}; give 1 or more.")
    if synthetic is None:
        configuration = configuration.model_copy(update={"captions": cleaning_of(folder.annotations)})
    with TemporaryDirectory() as scratch:
        kind = Trainer if synthetic is None else SyntheticTrainer
        configuration = with_batch_size(configuration, kind.files(configuration, folder, group))
        trainer = kind(configuration, folder, Path(scratch), group, Stop(saves=False))
        trainer.prepare()
        trainer.task.train()
        try:
            return _profile(trainer, steps, synthetic, trace)
        finally:
            trainer.state.close()


def _profile(trainer: Trainer, steps: int, synthetic: str | None, trace: Path | None) -> StepProfile:
    device, group, settings = trainer.group.device, trainer.group, trainer.settings
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with timed(trainer) as timeline, ExitStack() as stack:
        source = _Steps(trainer, timeline)
        stack.callback(source.close)
        for _ in range(WARM_UP):
            source.take()
        spent = trainer.data.spent
        timeline.marks = timeline.marks[-1:]
        _wait_for(device)
        timeline.mark("host")
        timeline.marks = timeline.marks[-1:]
        started = time.perf_counter()
        for _ in range(steps):
            source.take()
        parts = timeline.seconds()  # waits for the device
        seconds = time.perf_counter() - started
        spent = trainer.data.spent - spent
        busy = _device_busy(source, device, trace if group.is_main else None)
    pairs = settings.pairs_per_batch * group.world_size * settings.accumulate
    peak = peak_of(device, settings.precision)
    return StepProfile(
        steps=steps,
        pairs=pairs,
        processes=group.world_size,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        synthetic=synthetic,
        seconds=seconds / steps,
        parts={part: parts[part] / steps for part in PARTS},
        speeds=speeds(pairs * steps, seconds, spent, group.world_size, peak),
        device_busy=busy,
        gpu_memory_gib=torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
    )


class _Steps:
    """The steps of a trainer, one after the other; after the last of an epoch comes the first of the next."""

    def __init__(self, trainer: Trainer, timeline: Timeline) -> None:
        self.trainer, self.timeline = trainer, timeline
        self.steps: Iterator[Any] = iter(())

    def take(self) -> None:
        """Take the next step."""
        trainer = self.trainer
        with self.timeline.of("data"):
            following = next(self.steps, None)
            if following is None:
                trainer.progress = Progress(epoch=trainer.progress.epoch + 1)
                self.steps = trainer.data.steps(trainer.progress)
                following = next(self.steps)
        step, batches = following
        trainer.train_step(step, self._timed(batches))

    def _timed(self, batches: Iterator[TrainingBatch]) -> Iterator[TrainingBatch]:
        while True:
            with self.timeline.of("data"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def close(self) -> None:
        """End the loader's workers."""
        self.steps = iter(())


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device_busy(source: _Steps, device: torch.device, trace: Path | None) -> float | None:
    """The share of the time of TRACED more steps in which a GPU computes, None on the CPU; writes them to `trace`."""
    if device.type != "cuda" and trace is None and source.trainer.group.world_size == 1:
        return None
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    observed = device.type == "cuda" or trace is not None
    started = time.perf_counter()
    with profile(activities=activities) if observed else nullcontext() as observer:
        for _ in range(TRACED):
            source.take()
        _wait_for(device)
    seconds = time.perf_counter() - started
    if observer is None:
        return None
    if trace is not None:
        with atomic_file(trace) as temporary:
            observer.export_chrome_trace(str(temporary))
    if device.type != "cuda":
        return None
    busy = sum(float(event.self_device_time_total) for event in observer.key_averages()) / 1e6  # given in microseconds
    return min(1.0, busy / seconds)


def as_json(result: StepProfile) -> dict[str, Any]:
    """A profile as a mapping for JSON, with the names of the history's columns."""
    return {
        "steps": result.steps,
        "pairs_per_step": result.pairs,
        "processes": result.processes,
        "device": result.device,
        "synthetic": result.synthetic,
        "seconds_per_step": result.seconds,
        "seconds_of_parts": result.parts,
        **{name: result.speeds[name] for name in SPEEDS},
        "device_busy": result.device_busy,
        "gpu_memory_gib": result.gpu_memory_gib,
    }
