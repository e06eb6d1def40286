"""Training one run: the loop, its optimiser and schedule, validation, and the files it ends in.

Started by torchrun, one process or several on one machine or more, or as a plain process. With the same configuration
the weights are bit-identical on the CPU whether or not the run was interrupted: the order of data is a function of
(seed, epoch, step), and the state (see state.py) holds weights, optimiser, random states and what has been recorded
so far.

    {run}/best.safetensors, history.parquet, run.json     written when training has finished
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from cusa.annotations import CAPTIONS, read_table, split_rows
from cusa.batches import (
    TrainingBatch,
    TrainingPairs,
    data_digests,
    frozen_dimensions,
    open_features,
    open_split,
)
from cusa.captions import MAX_WORDS
from cusa.config import RunConfiguration, Train
from cusa.distributed import Group, die_with_launcher, join, leave
from cusa.embeddings import encode_split
from cusa.errors import StoppedError
from cusa.files import sha256_of_file, whole_file, write_json
from cusa.layout import DatasetFolder
from cusa.losses import CUSALoss, Losses
from cusa.metrics import image_text_recall
from cusa.runs import HISTORY, RUN, SCHEMA, WEIGHTS, versions, write_history
from cusa.sampling import PairSampler
from cusa.shards import ShardReader
from cusa.state import Progress, State, Stop, hold
from cusa.step import TrainingTask, add_gradients, parallel, require_chunkable, require_finite
from cusa.streaming import StreamedPairs
from cusa.student import Student, build_student
from cusa.teachers.extraction import choose_device, pad_tokens

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 30.0
SAVED_BEFORE = 60.0  # seconds; what may be lost when a training is stopped while it validates


def learning_rate(settings: Train, epoch: int, step: int, steps_per_epoch: int) -> float:
    """The rate of an optimiser step, from `lr` to `min_lr` by a cosine.

    `epoch`: lr_e = min_lr + (lr - min_lr) / 2 * (1 + cos(pi * e / E)), as published. `step`: the same over
    optimiser steps, after a linear warm-up of `warmup_steps` steps.
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
    """AdamW with the published groups: no decay on biases and other 1-d parameters, decay on all else.

    Scalars (the temperatures) are decayed too, as published. Each group has a `scale`: what its rate is
    multiplied by, so that pre-trained towers can have their own peak rate.
    """
    pretrained = task.student.backbone.pretrained_parameters()
    tower_scale = 1.0 if settings.tower_lr is None else settings.tower_lr / settings.lr
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in task.parameters():
        if parameter.requires_grad:
            groups.setdefault((parameter in pretrained, parameter.ndim != 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": settings.weight_decay if decayed else 0.0,
                "scale": tower_scale if from_tower else 1.0,
            }
            for (from_tower, decayed), parameters in groups.items()
        ],
        lr=settings.lr,
    )


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
            if group.first:
                lock = hold(run)
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
        torch.manual_seed(configuration.seed + group.process)

        self.selection_split = "val" if settings.select_on == "val" else "test"
        self.pairs = open_training_pairs(student, configuration, folder)
        self.validation = open_split(student.backbone, configuration.student, folder, self.selection_split)
        self.sampler = PairSampler(
            len(self.pairs),
            settings.batch_size,
            configuration.seed,
            group.process,
            group.processes,
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
        return self.settings.batch_size * self.group.processes * self.settings.accumulate

    def to_the_end(self) -> None:
        if self.group.from_first(self.state.give_back_finished() if self.group.first else None):
            if self.group.first:
                log.info("%s was trained before, with this configuration on these data; its files are back", self.run)
            return
        self.progress, self.history = self.state.restore(self.task, self.optimiser)
        model = parallel(self.task)
        if self.group.first:
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
        if self.group.first:
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
            for parameters in self.optimiser.param_groups:
                parameters["lr"] = rate * parameters["scale"]
            self.optimiser.zero_grad(set_to_none=True)
            found = []
            for part in range(settings.accumulate):
                waiting_since = time.monotonic()
                batch = next(loader).to(group.device)
                waited += time.monotonic() - waiting_since

                def check(losses: Losses, batch: TrainingBatch = batch, step: int = step) -> None:
                    require_finite(losses, task.loss, progress.epoch, step, batch)

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
            if group.first and now - spoken_at >= SECONDS_BETWEEN_LINES:
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
        metrics = self.group.from_first(self._validated() if self.group.first else None)
        self.stop.at_once = False
        row = metrics | {
            "kind": "epoch",
            "epoch": progress.epoch,
            "step": self.sampler.steps_per_epoch,
            "seconds": time.monotonic() - self.epoch_started,
        }
        progress.epoch, progress.step = progress.epoch + 1, 0
        self.history.append(row)
        if self.group.first:
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
        student, settings = self.task.student.eval(), self.settings
        size, inputs = settings.eval_batch_size, self.validation
        embeddings = encode_split(student, inputs, ("cross",), size, self.group.device, settings.precision)
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
            self.group.processes,
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
        write_json(
            run / RUN,
            {
                "schema": SCHEMA,
                "configuration": self.configuration.model_dump(mode="json"),
                "selected_epoch": progress.best_epoch,
                "selected_because": f"highest r_mean on {self.selection_split}{leak}: {progress.best_r_mean:.3f}",
                "selection_metrics": progress.best_metrics,
                "epochs": progress.epoch,
                "training_pairs": len(self.pairs),
                "data": self.state.data,
                "processes": self.group.processes,
                "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
                "seconds": progress.seconds,
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "weights_sha256": sha256_of_file(run / WEIGHTS),
                "versions": versions(),
            },
        )
        self.state.keep_finished()


def open_training_pairs(student: Student, configuration: RunConfiguration, folder: DatasetFolder) -> TrainingPairs:
    """The training pairs with the teacher features that the losses need."""
    inputs = open_split(student.backbone, configuration.student, folder, "train")
    teacher_image = teacher_text = None
    if (teachers := configuration.teachers) is not None:
        images, captions = len(inputs.images), len(inputs.image_of_caption)
        image, text = teachers.image, teachers.text
        teacher_image = open_features(folder.features("image", image.folder, "train"), images, image)
        teacher_text = open_features(folder.features("text", text.folder, "train"), captions, text)
    return TrainingPairs(inputs, teacher_image, teacher_text)


def open_stream(
    student: Student, configuration: RunConfiguration, folder: DatasetFolder, pairs: TrainingPairs, group: Group
) -> StreamedPairs | None:
    """The training pairs as they come out of shards elsewhere; None where the images or their features are here."""
    transform = student.backbone.image_transform
    if configuration.stream is None or transform is None:
        return None
    captions = read_table(folder.annotations, CAPTIONS, ["split"])
    rows = split_rows(captions, "train")
    reader, settings = ShardReader(folder.shards("train")), configuration.train
    return StreamedPairs(configuration.stream, reader, transform, pairs, rows, settings, configuration.seed, group)


def open_loader(
    pairs: TrainingPairs | StreamedPairs,
    sampler: PairSampler,
    progress: Progress,
    settings: Train,
    device: torch.device,
) -> DataLoader[TrainingBatch]:
    """The batches of an epoch that are still to come.

    In the sampler's order whatever the number of workers, or without end as they are streamed.
    """
    # The generator keeps the loader from drawing its workers' seed out of torch's global random state.
    return DataLoader(
        pairs,
        batch_size=None,
        sampler=None if isinstance(pairs, StreamedPairs) else sampler.epoch(progress.epoch, progress.step),
        num_workers=settings.workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(0),
    )


def trial_step(configuration: RunConfiguration, device: torch.device) -> None:
    """One whole step of a dual encoder on a full batch of made-up pairs: does it fit the device?"""
    settings = configuration.train
    student = build_student(configuration.student, configuration.losses)
    task = TrainingTask(student, CUSALoss(configuration.losses), settings, Group(device=device)).to(device).train()
    transform, size = student.backbone.image_transform, settings.batch_size
    assert transform is not None
    tokens, pad = student.backbone.tokenise(["word " * MAX_WORDS] * size)
    teacher = torch.rand(size, 8) if configuration.losses.needs_teachers else None
    images = torch.randint(0, 255, (size, 3, transform.crop, transform.crop), dtype=torch.uint8)
    batch = TrainingBatch(images, pad_tokens(tokens, pad), teacher, teacher, torch.arange(size)).to(device)
    add_gradients(task, task, batch, True, lambda losses: None)
    build_optimiser(task, settings).step()
