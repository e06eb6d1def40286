"""Training one run: the loop, its optimiser and schedule, validation, and state that survives kill -9.

Started by torchrun, one process or several, or as a plain process. With the same configuration the weights are
bit-identical on the CPU whether or not the run was interrupted: the order of data is a function of (seed, epoch,
step), and the state holds weights, optimiser, random states and what has been recorded so far.

    {run}/state/last.pt                  where to continue; replaced by renaming
    {run}/state/best-epoch{n}.safetensors
    {run}/best.safetensors, history.parquet, run.json     written when training has finished; then state/ goes
"""

from __future__ import annotations

import ctypes
import json
import logging
import math
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from cusa.batches import (
    SplitInputs,
    TrainingBatch,
    TrainingPairs,
    data_digests,
    frozen_dimensions,
    open_features,
    open_split,
)
from cusa.captions import MAX_WORDS
from cusa.config import RunConfiguration, Train
from cusa.embeddings import encode_split
from cusa.errors import DataError, ResumeError, TrainingError
from cusa.files import read_tensors, sha256_of_file, whole_file, write_json
from cusa.layout import DatasetFolder
from cusa.losses import CUSALoss, Losses
from cusa.metrics import image_text_recall
from cusa.runs import HISTORY, RUN, SCHEMA, STUDENT_PREFIX, WEIGHTS, save_weights, versions, write_history
from cusa.sampling import PairSampler
from cusa.student import Student, build_student
from cusa.teachers.extraction import Precision, autocast, choose_device, pad_tokens

log = logging.getLogger(__name__)
STATE_FOLDER = "state"
STATE_FILE = "last.pt"
STATE_VERSION = 1
SECONDS_BETWEEN_LINES = 30.0


class TrainingTask(nn.Module):
    """Student and loss as one module, so that distributed training sees every parameter."""

    def __init__(self, student: Student, loss: CUSALoss) -> None:
        super().__init__()
        self.student = student
        self.loss = loss

    def forward(self, batch: TrainingBatch, device: torch.device, precision: Precision) -> Losses:
        """The losses of a batch that is on `device`; towers and heads run in `precision`, losses in float32."""
        student, families = self.student, self.loss.configuration
        with autocast(device, precision):
            image = student.backbone.image_features(batch.images)
            text = student.backbone.text_features(batch.texts)
            uses_cross = families.contrastive is not None or families.cross_softlabel is not None
            heads: dict[str, Tensor | None] = dict.fromkeys(("cross_image", "cross_text", "uni_image", "uni_text"))
            if uses_cross:
                heads["cross_image"] = student.head(image, "cross", "image")
                heads["cross_text"] = student.head(text, "cross", "text")
            if families.uni_softlabel is not None:
                heads["uni_image"] = student.head(image, "uni", "image")
                heads["uni_text"] = student.head(text, "uni", "text")
        losses: Losses = self.loss(
            **heads,
            teacher_image=batch.teacher_image,
            teacher_text=batch.teacher_text,
            image_ids=batch.image_ids,
        )
        return losses


@dataclass
class Progress:
    """Where a run is: the next step to take, and what was best so far."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = -1
    best_r_mean: float = -math.inf
    best_metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def epochs_without_better(self) -> int:
        """Finished epochs since the best one."""
        return self.epoch - 1 - self.best_epoch


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

    Raises ResumeError when the state belongs to another configuration or is in use, TrainingError when a loss is
    not finite, DataError when shards or features do not fit.
    """
    settings = configuration.train
    _die_with_launcher()
    processes, process = _join_group(settings)
    torch.set_num_threads(max(1, threads // processes))
    device = choose_device(settings.gpus > 0)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    state_folder = Path(run) / STATE_FOLDER
    state_folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(state_folder / "lock")
    try:
        if process == 0:
            lock.acquire(timeout=0)
        _train_locked(configuration, folder, Path(run), state_folder, device, process, processes)
    except Timeout:
        raise ResumeError(
            f"another process is training {run} right now (it holds {state_folder}/lock); wait for it or stop it."
        ) from None
    finally:
        lock.release()
        if dist.is_initialized():
            dist.destroy_process_group()


def _train_locked(
    configuration: RunConfiguration,
    folder: DatasetFolder,
    run: Path,
    state_folder: Path,
    device: torch.device,
    process: int,
    processes: int,
) -> None:
    settings = configuration.train
    # Every process starts from the same weights; after that each draws its own random numbers (dropout).
    torch.manual_seed(configuration.seed)
    frozen = frozen_dimensions(configuration.student, folder, "train")
    student = build_student(configuration.student, configuration.losses, frozen)
    task = TrainingTask(student, CUSALoss(configuration.losses)).to(device)
    torch.manual_seed(configuration.seed + process)

    selection_split = "val" if settings.select_on == "val" else "test"
    pairs = open_training_pairs(student, configuration, folder)
    validation = open_split(student.backbone, configuration.student, folder, selection_split)
    sampler = PairSampler(len(pairs), settings.batch_size, configuration.seed, process, processes)
    optimiser = build_optimiser(task, settings)
    data = data_digests(configuration.student, configuration.teachers, folder, selection_split)
    state = _State(state_folder, configuration, data, process, processes)
    progress, history = state.restore(task, optimiser, device)
    model: nn.Module = task
    if processes > 1:
        # A backbone may have parameters that take no part (a pooler); DDP has to be told to look.
        model = DistributedDataParallel(task, find_unused_parameters=True)
    if process == 0:
        _announce(configuration, pairs, sampler, device, processes, progress)

    clock = time.monotonic()
    last_saved = clock
    while progress.epoch < settings.epochs:
        if settings.early_stop and progress.epochs_without_better() >= settings.early_stop:
            log.info("early stop: %d epochs without a better r_mean", progress.epochs_without_better())
            break
        task.train()
        epoch_started = logged_at = spoken_at = time.monotonic()
        first_step, waited = progress.step, 0.0
        loader = iter(_loader(pairs, sampler, progress, settings, device))
        for step in range(progress.step, sampler.steps_per_epoch):
            waiting_since = time.monotonic()
            batch = next(loader).to(device)
            waited += time.monotonic() - waiting_since
            rate = learning_rate(settings, progress.epoch, step, sampler.steps_per_epoch)
            for group in optimiser.param_groups:
                group["lr"] = rate * group["scale"]
            losses: Losses = model(batch, device, settings.precision)
            _require_finite(losses, task.loss, progress.epoch, step, batch)
            optimiser.zero_grad(set_to_none=True)
            losses.total.backward()  # type: ignore[no-untyped-call]
            if settings.gradient_clip is not None:
                nn.utils.clip_grad_norm_(task.parameters(), settings.gradient_clip)
            optimiser.step()
            progress.step = step + 1
            if process == 0 and time.monotonic() - spoken_at >= SECONDS_BETWEEN_LINES:
                spoken_at = time.monotonic()
                pace = (step + 1 - first_step) * settings.batch_size * processes / (spoken_at - epoch_started)
                _report_step(progress, settings, sampler, losses, pace)
            if (step + 1) % settings.log_every == 0 or step + 1 == sampler.steps_per_epoch:
                now = time.monotonic()
                steps = (step % settings.log_every) + 1
                row = _step_row(progress, rate, losses, task.loss, device) | {
                    "samples_per_second": steps * settings.batch_size * processes / max(now - logged_at, 1e-9),
                    "data_wait_share": waited / max(now - logged_at, 1e-9),
                }
                history.append(row)
                waited, logged_at = 0.0, now
            save_due = time.monotonic() - last_saved >= 60 * settings.save_every_minutes
            if step + 1 < sampler.steps_per_epoch and _agree(save_due, processes, device):
                progress.seconds, clock = progress.seconds + time.monotonic() - clock, time.monotonic()
                state.save(task, optimiser, progress, history)
                last_saved = time.monotonic()
        progress.epoch, progress.step = progress.epoch + 1, 0
        row = _validate(task.student, validation, settings, device, process) | {
            "kind": "epoch",
            "epoch": progress.epoch - 1,
            "step": sampler.steps_per_epoch,
            "seconds": time.monotonic() - epoch_started,
        }
        history.append(row)
        if process == 0:
            _report_epoch(progress, settings, row, history)
        if row["r_mean"] > progress.best_r_mean:
            progress.best_epoch, progress.best_r_mean = progress.epoch - 1, row["r_mean"]
            progress.best_metrics = {key: row[key] for key in row if key.startswith(("i2t", "t2i", "r"))}
            state.save_best(task, progress)
        progress.seconds, clock = progress.seconds + time.monotonic() - clock, time.monotonic()
        state.save(task, optimiser, progress, history)
        last_saved = time.monotonic()
    if process == 0:
        _finish(run, state, configuration, progress, history, len(pairs), device, processes, selection_split)


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


def trial_step(configuration: RunConfiguration, device: torch.device) -> None:
    """One whole step of a dual encoder on a full batch of made-up pairs: does it fit the device?"""
    settings = configuration.train
    student = build_student(configuration.student, configuration.losses)
    task = TrainingTask(student, CUSALoss(configuration.losses)).to(device).train()
    transform, size = student.backbone.image_transform, settings.batch_size
    assert transform is not None
    tokens, pad = student.backbone.tokenise(["word " * MAX_WORDS] * size)
    teacher = torch.rand(size, 8) if configuration.losses.needs_teachers else None
    images = torch.randint(0, 255, (size, 3, transform.crop, transform.crop), dtype=torch.uint8)
    batch = TrainingBatch(images, pad_tokens(tokens, pad), teacher, teacher, torch.arange(size)).to(device)
    losses: Losses = task(batch, device, settings.precision)
    losses.total.backward()  # type: ignore[no-untyped-call]
    build_optimiser(task, settings).step()


class _State:
    """Saving and restoring everything a run needs to continue."""

    def __init__(
        self, folder: Path, configuration: RunConfiguration, data: dict[str, str], process: int, processes: int
    ) -> None:
        self.folder = folder
        self.path = folder / STATE_FILE
        self.configuration = configuration.model_dump(mode="json")
        self.data = data
        self.process, self.processes = process, processes

    def save(
        self,
        task: TrainingTask,
        optimiser: torch.optim.Optimizer,
        progress: Progress,
        history: list[dict[str, Any]],
    ) -> None:
        random_states: list[Any] = [_random_state()]
        if self.processes > 1:
            random_states = [None] * self.processes
            dist.all_gather_object(random_states, _random_state())
        if self.process == 0:
            state = {
                "version": STATE_VERSION,
                "configuration": json.dumps(self.configuration),
                "data": self.data,
                "processes": self.processes,
                "task": task.state_dict(),
                "optimiser": optimiser.state_dict(),
                "progress": asdict(progress),
                "random_states": random_states,
                "history": json.dumps(history),
            }
            with whole_file(self.path) as temporary:
                torch.save(state, temporary)
            for old in self.folder.glob("best-epoch*.safetensors"):
                if old != self.best_path(progress.best_epoch):
                    old.unlink()
        if self.processes > 1:
            dist.barrier()

    def best_path(self, epoch: int) -> Path:
        return self.folder / f"best-epoch{epoch}.safetensors"

    def save_best(self, task: TrainingTask, progress: Progress) -> None:
        """Under the epoch's own name: whichever file last.pt speaks of is there, wherever the process dies."""
        if self.process == 0:
            tensors = {f"{STUDENT_PREFIX}{name}": tensor for name, tensor in task.student.state_dict().items()}
            tensors |= {f"loss.{name}": tensor for name, tensor in task.loss.state_dict().items()}
            save_weights(self.best_path(progress.best_epoch), tensors, {"epoch": str(progress.best_epoch)})

    def restore(
        self, task: TrainingTask, optimiser: torch.optim.Optimizer, device: torch.device
    ) -> tuple[Progress, list[dict[str, Any]]]:
        if not self.path.is_file():
            return Progress(), []
        try:
            state = read_tensors(self.path, str(device))
        except DataError as error:
            raise ResumeError(f"{error} Delete the folder {self.folder} to train from the start.") from None
        if state.get("version") != STATE_VERSION:
            raise ResumeError(
                f"{self.path} has the version {state.get('version')}, expected {STATE_VERSION}. Continue with the "
                f"release that wrote it, or delete the folder {self.folder} to train from the start."
            )
        if differences := _differences(json.loads(state["configuration"]), self.configuration):
            raise ResumeError(
                f"{self.path} was saved with another configuration: {'; '.join(differences)}. Restore the old values "
                f"to continue, or delete the folder {self.folder} to train from the start."
            )
        if changed := [name for name in self.data if self.data[name] != state["data"].get(name)]:
            raise ResumeError(
                f"{self.path} was saved while training on other data: {', '.join(changed)} changed since. Restore the "
                f"old data to continue, or delete the folder {self.folder} to train from the start."
            )
        if state["processes"] != self.processes:
            raise ResumeError(
                f"{self.path} was saved by {state['processes']} processes, now there are {self.processes}. Start as "
                f"many as before to continue, or delete the folder {self.folder} to train from the start."
            )
        task.load_state_dict(state["task"])
        optimiser.load_state_dict(state["optimiser"])
        _set_random_state(state["random_states"][self.process])
        progress = Progress(**state["progress"])
        log.info("continuing at epoch %d, step %d", progress.epoch, progress.step)
        return progress, json.loads(state["history"])


def _die_with_launcher() -> None:
    """Have Linux kill this process when torchrun is killed with -9.

    torchrun starts its processes in a session of their own; orphans would go on training, and hold the lock, beside
    the copy that the same command starts.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _join_group(settings: Train) -> tuple[int, int]:
    """(number of processes, this one's number); one process needs no group."""
    processes, process = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if processes > 1:
        backend = "nccl" if settings.gpus > 0 else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=30))
    return processes, process


def _agree(flag: bool, processes: int, device: torch.device) -> bool:
    """Process 0 decides for all; clocks differ."""
    if processes == 1:
        return flag
    decision = torch.tensor([float(flag)], device=device)
    dist.broadcast(decision, src=0)
    return bool(decision.item())


def _loader(
    pairs: TrainingPairs, sampler: PairSampler, progress: Progress, settings: Train, device: torch.device
) -> DataLoader[TrainingBatch]:
    # The generator keeps the loader from drawing its workers' seed out of torch's global random state.
    return DataLoader(
        pairs,
        batch_size=None,
        sampler=sampler.epoch(progress.epoch, progress.step),
        num_workers=settings.workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(0),
    )


def _require_finite(losses: Losses, loss: CUSALoss, epoch: int, step: int, batch: TrainingBatch) -> None:
    if math.isfinite(losses.total.item()):
        return
    terms = {"contrastive": losses.contrastive, "cross": losses.cross, "uni": losses.uni}
    found = ", ".join(f"{name} {term.item():g}" for name, term in terms.items())
    raise TrainingError(
        f"the loss is not finite at epoch {epoch}, step {step}: {found}; temperatures {loss.temperature_values()}; "
        f"first images of the batch (positions in train): {batch.image_ids[:5].tolist()}. No optimiser step was "
        "taken with it. Lower train.lr, set train.gradient_clip, or use train.precision: fp32."
    )


def _step_row(progress: Progress, rate: float, losses: Losses, loss: CUSALoss, device: torch.device) -> dict[str, Any]:
    row: dict[str, Any] = {
        "kind": "step",
        "epoch": progress.epoch,
        "step": progress.step,
        "lr": rate,
        "loss": losses.total.item(),
        "loss_contrastive": losses.contrastive.item(),
        "loss_cross": losses.cross.item(),
        "loss_uni": losses.uni.item(),
    }
    row |= {f"temperature_{name}": value for name, value in loss.temperature_values().items()}
    if device.type == "cuda":
        row["gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
        try:
            row["gpu_utilisation"] = torch.cuda.utilization(device)
        except ModuleNotFoundError:  # nvidia-ml-py comes with the extra `gpu`
            row["gpu_utilisation"] = None
    return row


def _validate(
    student: Student, inputs: SplitInputs, settings: Train, device: torch.device, process: int
) -> dict[str, Any]:
    """Recall of the selection split; process 0 computes it and tells the others."""
    metrics: list[Any] = [None]
    if process == 0:
        student.eval()
        embeddings = encode_split(student, inputs, ("cross",), settings.eval_batch_size, device, settings.precision)
        metrics[0] = image_text_recall(embeddings["image_cross"], embeddings["text_cross"], inputs.image_of_caption)
    if dist.is_initialized():
        dist.broadcast_object_list(metrics, src=0)
    return dict(metrics[0])


def _report_step(progress: Progress, settings: Train, sampler: PairSampler, losses: Losses, pace: float) -> None:
    done = progress.step, sampler.steps_per_epoch
    where = f"epoch {progress.epoch + 1}/{settings.epochs}, step {done[0]}/{done[1]}"
    left = (done[1] - done[0]) * settings.batch_size * sampler.processes / pace
    log.info("%s: loss %.4f, %.0f pairs/s, %.0f s to the end of the epoch", where, losses.total.item(), pace, left)


def _report_epoch(progress: Progress, settings: Train, row: dict[str, Any], history: list[dict[str, Any]]) -> None:
    last_step = next((entry for entry in reversed(history) if entry["kind"] == "step"), None)
    pace = (
        ""
        if last_step is None
        else (
            f", loss {last_step['loss']:.4f}, {last_step['samples_per_second']:.0f} pairs/s, "
            f"{100 * last_step['data_wait_share']:.0f} % of it waiting for data"
        )
    )
    log.info("epoch %d/%d: r_mean %.2f%s", progress.epoch, settings.epochs, row["r_mean"], pace)


def _announce(
    configuration: RunConfiguration,
    pairs: TrainingPairs,
    sampler: PairSampler,
    device: torch.device,
    processes: int,
    progress: Progress,
) -> None:
    log.info(
        "training %s, seed %d, on %d x %s: %d pairs, %d steps an epoch, %d of %d epochs to go",
        configuration.experiment,
        configuration.seed,
        processes,
        device.type,
        len(pairs),
        sampler.steps_per_epoch,
        configuration.train.epochs - progress.epoch,
        configuration.train.epochs,
    )


def _finish(
    run: Path,
    state: _State,
    configuration: RunConfiguration,
    progress: Progress,
    history: list[dict[str, Any]],
    pairs: int,
    device: torch.device,
    processes: int,
    selection_split: str,
) -> None:
    with whole_file(run / WEIGHTS) as temporary:
        shutil.copyfile(state.best_path(progress.best_epoch), temporary)
    write_history(run / HISTORY, history)
    leak = "" if selection_split == "val" else " (the published selection, which leaks the test set)"
    write_json(
        run / RUN,
        {
            "schema": SCHEMA,
            "configuration": configuration.model_dump(mode="json"),
            "selected_epoch": progress.best_epoch,
            "selected_because": f"highest r_mean on {selection_split}{leak}: {progress.best_r_mean:.3f}",
            "selection_metrics": progress.best_metrics,
            "epochs": progress.epoch,
            "training_pairs": pairs,
            "data": state.data,
            "processes": processes,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "seconds": progress.seconds,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "weights_sha256": sha256_of_file(run / WEIGHTS),
            "versions": versions(),
        },
    )
    # First what says where to continue: dying here must not leave a state that points at weights that are gone.
    state.path.unlink()
    shutil.rmtree(state.folder)


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def _differences(saved: Any, current: Any, key: str = "") -> list[str]:
    """`key: saved -> current` for each value that differs."""
    if isinstance(saved, dict) and isinstance(current, dict):
        names = dict.fromkeys([*saved, *current])
        found = [_differences(saved.get(name), current.get(name), f"{key}.{name}".strip(".")) for name in names]
        return [difference for part in found for difference in part]
    return [] if saved == current else [f"{key} was {saved!r}, is {current!r}"]
