"""Training one run: the loop, its optimiser and schedule, validation, and the files it ends in.

Started by torchrun, one process or several on one machine or more, or as a plain process. With the same configuration
the weights are bit-identical on the CPU whether or not the run was interrupted: the order of data is a function of
(seed, epoch, step), and the state (see state.py) holds weights, optimiser, random states and what has been recorded
so far.

    {run}/best.safetensors, history.parquet, run.json     written when training has finished
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cusa.common.compute import choose_device
from cusa.common.files import sha256_of_file, whole_file
from cusa.common.versions import versions
from cusa.config.experiments import RunConfiguration
from cusa.errors import StoppedError
from cusa.layout import DatasetFolder
from cusa.losses import CUSALoss, Losses
from cusa.metrics.recall import image_text_recall
from cusa.runs.record import HISTORY, WEIGHTS, RunRecord, write_history
from cusa.student.encoding import Encoder
from cusa.student.inputs import frozen_dimensions, open_split
from cusa.student.student import build_student
from cusa.training.distributed import Group, die_with_launcher, join, leave
from cusa.training.interruption import Stop, lock_run
from cusa.training.loading import data_digests, open_loader, open_stream, open_training_pairs
from cusa.training.optimisation import build_optimiser, learning_rate, set_learning_rate
from cusa.training.sampling import PairSampler
from cusa.training.state import Progress, State
from cusa.training.step import TrainingTask, add_gradients, parallel, require_chunkable, require_finite

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 30.0
SAVED_BEFORE = 60.0  # seconds; what may be lost when a training is stopped while it validates


def train(configuration: RunConfiguration, folder: DatasetFolder, run: str | Path, threads: int = 1) -> None:
    """Train a run to its end, continuing from its state if there is one, and write the run folder's files.

    `threads` are the CPU threads of all processes on this machine. On SIGTERM the step is finished, the state is
    saved, and StoppedError is raised. Raises ResumeError when the state belongs to another configuration or is in use,
    TrainingError when a loss is not finite, DataError when shards or features do not fit.
    """
    settings, run = configuration.train, Path(run)
    die_with_launcher()
    choose_device(settings.gpus > 0)
    with Stop() as stop:
        group = join(settings.gpus > 0)
        torch.set_num_threads(max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
        lock = None
        try:
            if group.is_main:
                lock = lock_run(run)
            _Training(configuration, folder, run, group, stop).to_the_end()
        finally:
            if lock is not None:
                lock.release()
            leave()


class _Training:
    """One process's part in the training of a run."""

    def __init__(
        self, configuration: RunConfiguration, folder: DatasetFolder, run: Path, group: Group, stop: Stop
    ) -> None:
        settings = configuration.train
        self.configuration, self.settings, self.run, self.group, self.stop = configuration, settings, run, group, stop
        # Every process starts from the same weights; after that each draws its own random numbers (dropout).
        torch.manual_seed(configuration.seed)
        frozen = frozen_dimensions(configuration.student, folder, "train")
        student = build_student(configuration.student, configuration.losses, frozen)
        require_chunkable(student, settings)
        self.task = TrainingTask(student, CUSALoss(configuration.losses), settings, group).to(group.device)
        torch.manual_seed(configuration.seed + group.rank)

        self.selection_split = "val" if settings.select_on == "val" else "test"
        self.pairs = open_training_pairs(student, configuration, folder)
        self.validation = open_split(student.backbone, configuration.student, folder, self.selection_split)
        self.sampler = PairSampler(
            len(self.pairs),
            settings.batch_size,
            configuration.seed,
            group.rank,
            group.world_size,
            settings.accumulate,
        )
        self.streamed = open_stream(student, configuration, folder, self.pairs, group)
        self.optimiser = build_optimiser(self.task, settings)
        data = data_digests(configuration.student, configuration.teachers, folder, self.selection_split)
        self.state = State(run, configuration, data, group)
        self.progress, self.history = Progress(), list[dict[str, Any]]()
        self.clock = self.last_saved = self.epoch_started = time.monotonic()
        self.prepared = False

    @property
    def pairs_a_step(self) -> int:
        return self.settings.batch_size * self.group.world_size * self.settings.accumulate

    def to_the_end(self) -> None:
        if self.group.broadcast(self.state.give_back_finished() if self.group.is_main else None):
            if self.group.is_main:
                log.info("%s was trained before, with this configuration on these data; its files are back", self.run)
            return
        self.progress, self.history = self.state.restore(self.task, self.optimiser)
        model = parallel(self.task)
        if self.group.is_main:
            self._announce()
        try:
            while self.progress.epoch < self.settings.epochs:
                if self.settings.early_stop and self.progress.epochs_without_better() >= self.settings.early_stop:
                    log.info("early stop: %d epochs without a better r_mean", self.progress.epochs_without_better())
                    break
                self._epoch(model)
                self._select()
            self.stop.at_once = False
            self.state.wait()
        finally:
            self.state.close()
        if self.group.is_main:
            self._finish()

    def _epoch(self, model: nn.Module) -> None:
        """The steps of an epoch that are still to be taken. Raises StoppedError, with the state saved, on SIGTERM."""
        task, settings, group, progress = self.task, self.settings, self.group, self.progress
        task.train()
        self.stop.at_once = False
        steps = self.sampler.steps_per_epoch
        self.epoch_started = logged_at = spoken_at = time.monotonic()
        first_step, waited = progress.step, 0.0
        if self.streamed is not None:
            self.streamed.start_at(progress.epoch, progress.step)
        loader = iter(open_loader(self.streamed or self.pairs, self.sampler, progress, settings, group.device))
        for step in range(progress.step, steps):
            rate = learning_rate(settings, progress.epoch, step, steps)
            set_learning_rate(self.optimiser, rate)
            self.optimiser.zero_grad(set_to_none=True)
            found = []
            check = partial(require_finite, loss=task.loss, epoch=progress.epoch, step=step)
            for part in range(settings.accumulate):
                waiting_since = time.monotonic()
                batch = next(loader).to(group.device)
                waited += time.monotonic() - waiting_since
                found.append(add_gradients(model, task, batch, part + 1 == settings.accumulate, check))
            if settings.gradient_clip is not None:
                nn.utils.clip_grad_norm_(task.parameters(), settings.gradient_clip)
            self.optimiser.step()
            if not self.prepared:  # only now has the optimiser a state
                self.state.prepare(task, self.optimiser)
                self.prepared = True
            progress.step = step + 1
            now = time.monotonic()
            if (step + 1) % settings.log_every == 0 or step + 1 == steps:
                taken = (step % settings.log_every) + 1
                self.history.append(
                    self._step_row(rate, found)
                    | {
                        "samples_per_second": taken * self.pairs_a_step / max(now - logged_at, 1e-9),
                        "data_wait_share": waited / max(now - logged_at, 1e-9),
                    }
                )
                waited, logged_at = 0.0, now
            if group.is_main and now - spoken_at >= SECONDS_BETWEEN_LINES:
                spoken_at = now
                pace = (step + 1 - first_step) * self.pairs_a_step / (now - self.epoch_started)
                self._report_step(found[-1], pace)
            unsaved = now - self.last_saved
            # Also before an epoch's validation, which can then be done again.
            due = unsaved >= 60 * settings.save_every_minutes or (step + 1 == steps and unsaved >= SAVED_BEFORE)
            asked, due = group.any(self.stop.asked, due)
            if asked or due:
                self._save()
            if asked:
                self.state.wait()
                raise StoppedError(
                    f"stopped by SIGTERM after epoch {progress.epoch + 1}, step {progress.step} of {steps}; the state "
                    f"is in {self.state.folder}, and the same command continues."
                )

    def _select(self) -> None:
        """Validate, and keep the weights if they are the best so far."""
        progress = self.progress
        self.stop.at_once = True
        if self.stop.asked:
            raise StoppedError(
                f"stopped by SIGTERM; the state is in {self.state.folder}, and the same command continues."
            )
        metrics = self.group.broadcast(self._validated() if self.group.is_main else None)
        self.stop.at_once = False
        row = metrics | {
            "kind": "epoch",
            "epoch": progress.epoch,
            "step": self.sampler.steps_per_epoch,
            "seconds": time.monotonic() - self.epoch_started,
        }
        progress.epoch, progress.step = progress.epoch + 1, 0
        self.history.append(row)
        if self.group.is_main:
            self._report_epoch(row)
        if best := row["r_mean"] > progress.best_r_mean:
            progress.best_epoch, progress.best_r_mean = progress.epoch - 1, row["r_mean"]
            progress.best_metrics = {key: row[key] for key in row if key.startswith(("i2t", "t2i", "r"))}
        self._save(best)

    def _save(self, best: bool = False) -> None:
        now = time.monotonic()
        self.progress.seconds, self.clock = self.progress.seconds + now - self.clock, now
        self.state.save(self.task, self.optimiser, self.progress, self.history, best)
        self.last_saved = time.monotonic()

    def _validated(self) -> dict[str, float]:
        """Recall of the selection split."""
        settings, inputs = self.settings, self.validation
        student = self.task.student.eval()
        encoder = Encoder(student, self.group.device, settings.eval_batch_size, settings.precision)
        embeddings = encoder.encode(inputs, ("cross",))
        return image_text_recall(embeddings["image_cross"], embeddings["text_cross"], inputs.image_of_caption)

    def _step_row(self, rate: float, found: list[Losses]) -> dict[str, Any]:
        """What the history keeps of a step; losses are the means over its batches and all processes."""
        terms = torch.stack([torch.stack([part.total, part.contrastive, part.cross, part.uni]) for part in found])
        total, contrastive, cross, uni = self.group.mean(terms.mean(dim=0)).tolist()
        row: dict[str, Any] = {
            "kind": "step",
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "lr": rate,
            "loss": total,
            "loss_contrastive": contrastive,
            "loss_cross": cross,
            "loss_uni": uni,
        }
        row |= {f"temperature_{name}": value for name, value in self.task.loss.temperature_values().items()}
        device = self.group.device
        if device.type == "cuda":
            row["gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
            try:
                row["gpu_utilisation"] = torch.cuda.utilization(device)
            except ModuleNotFoundError:  # nvidia-ml-py comes with the extra `gpu`
                row["gpu_utilisation"] = None
        return row

    def _report_step(self, losses: Losses, pace: float) -> None:
        done, steps = self.progress.step, self.sampler.steps_per_epoch
        where = f"epoch {self.progress.epoch + 1}/{self.settings.epochs}, step {done}/{steps}"
        left = (steps - done) * self.pairs_a_step / pace
        log.info("%s: loss %.4f, %.0f pairs/s, %.0f s to the end of the epoch", where, losses.total.item(), pace, left)

    def _report_epoch(self, row: dict[str, Any]) -> None:
        last_step = next((entry for entry in reversed(self.history) if entry["kind"] == "step"), None)
        pace = (
            ""
            if last_step is None
            else (
                f", loss {last_step['loss']:.4f}, {last_step['samples_per_second']:.0f} pairs/s, "
                f"{100 * last_step['data_wait_share']:.0f} % of it waiting for data"
            )
        )
        log.info("epoch %d/%d: r_mean %.2f%s", self.progress.epoch, self.settings.epochs, row["r_mean"], pace)

    def _announce(self) -> None:
        progress, configuration = self.progress, self.configuration
        if progress.epoch or progress.step:
            log.info("continuing at epoch %d, step %d", progress.epoch, progress.step)
        log.info(
            "training %s, seed %d, on %d x %s: %d pairs, %d steps an epoch, %d of %d epochs to go",
            configuration.experiment,
            configuration.seed,
            self.group.world_size,
            self.group.device.type,
            len(self.pairs),
            self.sampler.steps_per_epoch,
            self.settings.epochs - progress.epoch,
            self.settings.epochs,
        )

    def _finish(self) -> None:
        run, progress, device = self.run, self.progress, self.group.device
        with whole_file(run / WEIGHTS) as temporary:
            shutil.copyfile(self.state.best_path(progress.best_epoch), temporary)
        write_history(run / HISTORY, self.history)
        leak = "" if self.selection_split == "val" else " (the published selection, which leaks the test set)"
        RunRecord(
            configuration=self.configuration,
            selected_epoch=progress.best_epoch,
            selected_because=f"highest r_mean on {self.selection_split}{leak}: {progress.best_r_mean:.3f}",
            selection_metrics=progress.best_metrics,
            epochs=progress.epoch,
            training_pairs=len(self.pairs),
            data=self.state.data,
            processes=self.group.world_size,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            seconds=progress.seconds,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            weights_sha256=sha256_of_file(run / WEIGHTS),
            versions=versions(),
        ).write(run)
        self.state.keep_finished()
