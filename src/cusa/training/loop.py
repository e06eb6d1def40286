"""Training one run: the loop over epochs and steps, validation, and the files of a finished run.

The script train.py is started as one process, or by launch.py as several on one machine or more. On the CPU the same
configuration gives bit-identical weights, also after an interruption: the order of data is a function of (seed, epoch,
step), and the state (see state.py) has weights, optimiser, random states and history.

    {run}/best.safetensors, history.parquet, run.json     written when training has finished
    {run}/tensorboard, state/history.parquet              written while it runs, see watching.py
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from cusa.annotations.tables import cleaning_of
from cusa.common.compute import choose_device, set_matrix_precision
from cusa.common.files import atomic_file, sha256_of_file
from cusa.common.versions import versions
from cusa.config.experiments import RunConfiguration
from cusa.layout import DatasetFolder
from cusa.losses import CUSALoss
from cusa.runs.record import HISTORY, WEIGHTS, RunRecord, write_history
from cusa.student.student import build_student, trained_parameters
from cusa.tracking.tracker import require_trackers
from cusa.training.averaging import WeightAverage
from cusa.training.batch_size import with_batch_size
from cusa.training.batches import TrainingBatch
from cusa.training.compilation import compile_towers
from cusa.training.distributed import Group, SharedFlags, die_with_launcher, join, leave
from cusa.training.files import TrainingFiles
from cusa.training.flops import count_flops
from cusa.training.guard import Guard
from cusa.training.history import History
from cusa.training.interruption import Stop, lock_run
from cusa.training.loading import base_digest, verify_shards
from cusa.training.optimisation import build_optimiser, learning_rate, set_learning_rate
from cusa.training.sharding import shard_student
from cusa.training.state import Progress, State
from cusa.training.step import (
    StepResult,
    TrainingTask,
    add_gradients,
    parallel,
    require_chunkable,
)
from cusa.training.validation import validate
from cusa.training.watching import Watch

log = logging.getLogger(__name__)
SAVE_BEFORE_VALIDATION = 60.0  # seconds since the last save; so much may be lost if a validation is stopped


def train(
    configuration: RunConfiguration, folder: DatasetFolder, run: str | Path, threads: int = 1, verify: bool = False
) -> None:
    """Train a run to its end, from its saved state if there is one, and write the files of the run folder.

    `threads` are the CPU threads of all processes on this machine together. `verify` compares each shard with its
    recorded sha256. On SIGTERM and Ctrl-C the step is finished, the state is saved, and StoppedError is raised. Raises
    ResumeError if the state is in use or has another configuration, TrainingError if a loss is not finite, DataError if
    shards or features do not fit.
    """
    require_trackers(configuration.train.trackers)
    with joined(configuration.train.gpus > 0, threads) as (group, stop):
        if verify and group.is_main:
            verify_shards(configuration, folder)
        train_in(group, stop, configuration, folder, run)


@contextmanager
def joined(gpu: bool, threads: int, *, saves: bool = True) -> Iterator[tuple[Group, Stop]]:
    """Join the group of processes, handle stop signals, and leave the group at the end.

    For `threads` see `train`, for `saves` see Stop.
    """
    die_with_launcher()
    choose_device(gpu)
    with Stop(saves) as stop:
        group = join(gpu)
        torch.set_num_threads(max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
        try:
            yield group, stop
        finally:
            leave()


def train_in(
    group: Group,
    stop: Stop,
    configuration: RunConfiguration,
    folder: DatasetFolder,
    run: str | Path,
    why_hopeless: Callable[[list[float]], str | None] | None = None,
) -> None:
    """Train a run as `train` does, in a group that this process has joined.

    Rank 0 calls `why_hopeless` before each epoch with the r_mean of each finished epoch. If it returns a reason,
    training ends with the best epoch so far, and run.json records the reason.
    """
    # run.json records how the captions of the training were cleaned, which the tables define.
    configuration = configuration.model_copy(update={"captions": cleaning_of(folder.annotations)})
    lock = None
    try:
        if group.is_main:
            lock = lock_run(Path(run))
        configuration = with_batch_size(configuration, TrainingFiles(configuration, folder, group), Path(run))
        trainer = Trainer(configuration, folder, Path(run), group, stop)
        trainer.why_hopeless = why_hopeless
        trainer.train()
    finally:
        if lock is not None:
            lock.release()


class Trainer:
    """One process's part in the training of a run. `files` is the class that opens its data."""

    files = TrainingFiles

    def __init__(
        self, configuration: RunConfiguration, folder: DatasetFolder, run: Path, group: Group, stop: Stop
    ) -> None:
        """Build student, loss and optimiser, and open the data; nothing is restored yet."""
        settings = configuration.train
        self.configuration, self.settings, self.run, self.group, self.stop = configuration, settings, run, group, stop
        set_matrix_precision(settings.precision)
        # All processes start with the same weights, and then draw different random numbers (dropout).
        torch.manual_seed(configuration.seed)
        files = self.files(configuration, folder, group)
        self.frozen, teachers = files.dimensions()
        student = build_student(configuration.student, configuration.losses, self.frozen)
        require_chunkable(student, settings)
        self.task = TrainingTask(student, CUSALoss(configuration.losses), settings, group)
        base, flops = base_digest(student), None
        if not settings.shard_student:
            self.task.to(group.device)
        if group.is_main:  # before the student is divided, because the other processes do not count
            flops = count_flops(student, configuration.losses, self.frozen, teachers)
        if settings.shard_student:
            shard_student(student, settings, group)
            self.task.to(group.device)
        self.model: nn.Module = self.task
        self.trained_parameters = trained_parameters(student)
        torch.manual_seed(configuration.seed + group.rank)

        self.data = files.open(student)
        self.data.flops = flops
        self.notes = files.notes(student) if group.is_main else []
        self.optimiser = build_optimiser(self.task, settings)
        self.guard = Guard(self.task, self.task.loss, self.optimiser, settings, group.device)
        digests = files.digests() | base
        self.average = WeightAverage(self.task, settings.ema_decay) if settings.ema_decay else None
        self.state = State(run, configuration, digests, group, self.average, self.guard)
        self.trials = folder.trial_runs(configuration.seed)
        self.progress = Progress()
        self.history = History(
            configuration=configuration,
            loss=self.task.loss,
            group=group,
            pairs=len(self.data.pairs),
            steps_per_epoch=self.data.steps_per_epoch,
        )
        self.seconds_counted_until = self.last_saved = time.monotonic()
        self.saved = ""  # the last step that this process has saved, and where, for the message of a stop
        self.stop_and_due = SharedFlags(group, count=2)
        self.why_hopeless: Callable[[list[float]], str | None] | None = None
        self.stopped_because: str | None = None

    def train(self) -> None:
        """Take all epochs that are left, then write the files of the finished run."""
        if self.group.broadcast(self.state.restore_finished(self.trials) if self.group.is_main else None):
            if self.group.is_main:
                log.info(
                    "%s was trained before, with this configuration on these data; its files are restored", self.run
                )
            return
        self.progress, self.history.rows = self.state.restore(self.task, self.optimiser)
        self.prepare()
        self.history.announce(self.progress)
        if self.group.is_main and self.state.previous.is_dir():
            log.info("the run that was finished before is kept in %s until this one is complete", self.state.previous)
            if changed := self.state.changed_since_previous():
                log.info("changed since then: %s", "; ".join(changed))
        with Watch(self.run, self.history, self.progress):
            self.stop.defer()
            try:
                while self.progress.epoch < self.settings.epochs:
                    if self.is_early_stop():
                        self.history.log_early_stop(self.progress)
                        break
                    if self.is_hopeless():
                        break
                    self.train_epoch()
                    self.select()
                self.state.wait()
            finally:
                self.state.close()
            if self.group.is_main:
                self.finish()

    def prepare(self) -> None:
        """Make the model that takes the steps: compile the towers, and let the processes average their gradients."""
        if self.settings.compile:
            compile_towers(self.task, self.frozen)
        self.model = parallel(self.task)

    def train_epoch(self) -> None:
        """Take the steps of an epoch that are left. Raises StoppedError, when the state is saved, after a signal."""
        self.task.train()
        self.history.start_epoch(self.progress)
        for step, batches in self.data.steps(self.progress):
            result = self.train_step(step, batches)
            self.history.after_step(self.progress, result, self.data.spent)
            self.save_or_stop()

    def train_step(self, step: int, batches: Iterable[TrainingBatch]) -> StepResult:
        """Take one optimiser step with the gradients of `train.accumulate` batches."""
        settings, progress = self.settings, self.progress
        rate = learning_rate(settings, progress.epoch, step, self.data.steps_per_epoch)
        set_learning_rate(self.optimiser, rate)
        self.optimiser.zero_grad(set_to_none=True)

        losses, images = [], []
        for number, batch in enumerate(batches, start=1):
            last = number == settings.accumulate
            losses.append(add_gradients(self.model, self.task, batch, last, self.guard.scaled))
            images.append(batch.image_ids)
        self.guard.step(losses, images, progress.epoch, step)
        progress.step = step + 1
        if self.average is not None:
            self.average.update(progress.epoch * self.data.steps_per_epoch + progress.step)
        return StepResult(rate, losses)

    def save_or_stop(self) -> None:
        """Save the state after a step if it is time to, or if a signal asks to stop; then stop.

        The state is also saved before validation, which may be stopped at any moment and can be repeated.
        """
        self.state.reserve_memory(self.task, self.optimiser)
        steps, progress = self.data.steps_per_epoch, self.progress
        unsaved = time.monotonic() - self.last_saved
        due = unsaved >= 60 * self.settings.save_every_minutes
        due |= progress.step == steps and unsaved >= SAVE_BEFORE_VALIDATION
        stop, due = self.stop_and_due.read(self.stop.requested, due, now=progress.step == steps)
        if stop or due:
            self.save()
        if stop:
            self.state.wait()
            raise self.stop.error(self.saved)

    def save(self, best: bool = False) -> None:
        """Save the state; with `best`, also the weights as those of the best epoch."""
        self.guard.check()
        self.history.settle()
        now = time.monotonic()
        self.progress.seconds += now - self.seconds_counted_until
        self.seconds_counted_until = now
        self.state.save(self.task, self.optimiser, self.progress, self.history.rows, best)
        self.last_saved = time.monotonic()
        # The state at the start of an epoch is reported as that after the last step of the epoch before.
        steps, step = self.data.steps_per_epoch, self.progress.step
        epoch, step = (self.progress.epoch + 1, step) if step else (self.progress.epoch, steps)
        self.saved = f" after epoch {epoch}, step {step} of {steps}; the state is in {self.state.folder}"

    def select(self) -> None:
        """End an epoch: validate, and save the weights as the best if r_mean is the highest so far."""
        self.guard.check()
        averaged = nullcontext() if self.average is None else self.average.in_place()
        with averaged, self.stop.immediately(self.saved):
            takes_part = self.group.is_main or self.settings.shard_student
            metrics = self.group.broadcast(self.validate() if takes_part else None)
        progress = self.progress
        self.history.after_epoch(progress, metrics)
        if best := metrics["r_mean"] > progress.best_r_mean:
            progress.best_epoch, progress.best_r_mean = progress.epoch, metrics["r_mean"]
            progress.best_metrics = metrics
        progress.epoch, progress.step = progress.epoch + 1, 0
        self.save(best)

    def validate(self) -> dict[str, float]:
        """Recall of the split that selects the epoch, in per cent by name."""
        return validate(self.task.student, self.data.validation, self.settings, self.group, self.progress.epoch)

    def is_early_stop(self) -> bool:
        """Whether the last `train.early_stop` epochs were no better than the best before them."""
        patience = self.settings.early_stop
        return patience is not None and self.progress.epochs_without_better() >= patience

    def is_hopeless(self) -> bool:
        """Whether the training is given up; all processes take the same decision."""
        if self.why_hopeless is None:
            return False
        curve = [row["r_mean"] for row in self.history.rows if row["kind"] == "epoch"]
        self.stopped_because = self.group.broadcast(self.why_hopeless(curve) if self.group.is_main else None)
        if self.stopped_because is not None and self.group.is_main:
            log.info("stopped: %s", self.stopped_because)
        return self.stopped_because is not None

    def finish(self) -> None:
        """Write best.safetensors, history.parquet and run.json, and drop the state."""
        run, progress, device, split = self.run, self.progress, self.group.device, self.settings.selection_split
        with atomic_file(run / WEIGHTS) as temporary:
            shutil.copyfile(self.state.best_path(progress.best_epoch), temporary)
        write_history(run / HISTORY, self.history.rows)
        leak = "" if split == "val" else " (the published selection, which leaks the test set)"
        RunRecord(
            configuration=self.configuration,
            selected_epoch=progress.best_epoch,
            selected_because=f"highest r_mean on {split}{leak}: {progress.best_r_mean:.3f}",
            selection_metrics=progress.best_metrics,
            epochs=progress.epoch,
            training_pairs=len(self.data.pairs),
            trained_parameters=self.trained_parameters,
            data=self.state.data,
            notes=self.notes or None,
            stopped_because=self.stopped_because,
            processes=self.group.world_size,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            seconds=progress.seconds,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            weights_sha256=sha256_of_file(run / WEIGHTS),
            versions=versions(),
        ).write(run)
        self.state.keep_finished()
