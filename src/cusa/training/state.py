"""The state of a training on disk, from which it continues after an interruption; a background thread saves it.

    {run}/state/last.pt                         where to continue; replaced by renaming
    {run}/state/best-epoch{n}.safetensors       the weights of the epoch that last.pt names as the best
    {run}/state/finished/                       the outputs of a training that has finished, as hard links

`finished` is for this case: Snakemake is killed, and the training finishes before Snakemake is started again.
Snakemake then deletes the outputs, because it has no record that they are complete, and starts the training again. The
training restores the outputs from `finished`. Embedding a run removes state/, because Snakemake embeds a run only
after it has recorded the run's outputs.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cusa.common.compute import random_state, set_random_state
from cusa.common.files import atomic_file, read_tensors, require_space, sha256_of_file
from cusa.common.versions import changed_versions, versions
from cusa.config.experiments import RunConfiguration
from cusa.config.operational import differences
from cusa.errors import DataError, ResumeError
from cusa.runs.previous import OUTPUTS, PREVIOUS, drop_previous, is_wanted_again, link
from cusa.runs.record import (
    BASE_SHA256,
    FINISHED,
    FROZEN_WEIGHTS,
    STATE_FILE,
    STATE_FOLDER,
    WEIGHTS,
    RunRecord,
)
from cusa.runs.weights import STUDENT_PREFIX, save_weights
from cusa.training.averaging import WeightAverage
from cusa.training.distributed import Group
from cusa.training.guard import Guard
from cusa.training.sharding import divided_moments, divided_state, gathered
from cusa.training.step import TrainingTask

log = logging.getLogger(__name__)
STATE_VERSION = 2


@dataclass
class Progress:
    """The progress of a training: the epoch and step to take next, counted from 0, and the best epoch so far.

    `seconds` is the time that training has taken until the last save, over all its starts.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = -1
    best_r_mean: float = -math.inf
    best_metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def epochs_without_better(self) -> int:
        """The number of finished epochs since the best one."""
        return self.epoch - 1 - self.best_epoch


class State:
    """Saves and restores everything that a training needs to continue.

    Lock the run first (`lock_run`). Rank 0 writes the files. A step waits while the state is copied to memory; a
    background thread writes the copy to disk.
    """

    def __init__(
        self,
        run: Path,
        configuration: RunConfiguration,
        data: dict[str, str],
        group: Group,
        average: WeightAverage | None = None,
        guard: Guard | None = None,
    ) -> None:
        """`data` are the SHA-256 of the files that are read, by name, see `data_digests`.

        `average` is that of the task's weights, if there is one; it is saved as the weights of the best epoch. `guard`
        has the scale of the loss, if there is one.
        """
        self.run, self.folder = run, run / STATE_FOLDER
        self.path, self.previous = self.folder / STATE_FILE, run / PREVIOUS
        self.configuration = configuration.model_dump(mode="json")
        self.data = data
        self.group = group
        self.average = average
        self.guard = guard
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[Any] | None = None
        self._copies: dict[str, Tensor] = {}
        self._memory_reserved = False
        # Tensors that are divided among processes are whole in the files, so all processes gather them.
        self._sharded = configuration.train.shard_student

    def reserve_memory(self, task: TrainingTask, optimiser: torch.optim.Optimizer) -> None:
        """Allocate the memory of the copies in the background; the system needs seconds for 5 GB.

        Call it after the first step, when the optimiser has its moments. Later calls do nothing. The content of these
        copies may mix two steps; each save copies everything again.
        """
        if self._memory_reserved or self._sharded or not self.group.is_main:
            return
        self._memory_reserved = True
        self.wait()
        self._writing = self._writer.submit(self._copy_all, task.trained_state(), optimiser.state_dict())

    def save(
        self,
        task: TrainingTask,
        optimiser: torch.optim.Optimizer,
        progress: Progress,
        history: list[dict[str, Any]],
        best: bool = False,
    ) -> None:
        """Save the state, and with `best` also the weights as those of the best epoch; all processes call this.

        Returns when the state is copied. Raises the error of the save before, if writing it failed.
        """
        random_states = self.group.gather_objects(random_state())
        if not self.group.is_main and not self._sharded:
            return
        self.wait()
        weights, moments = self._copy_all(task.trained_state(), optimiser.state_dict())
        average = self._copied_average()
        if not self.group.is_main:
            return
        state = average | {
            "version": STATE_VERSION,
            "configuration": json.dumps(self.configuration),
            "data": self.data,
            "processes": self.group.world_size,
            "task": weights,
            "optimiser": moments,
            "progress": asdict(progress),
            "random_states": random_states,
            "history": json.dumps(history),
        }
        if self.guard is not None and (scale := self.guard.state()):
            state["loss_scale"] = scale
        self._writing = self._writer.submit(self._write, state, progress.best_epoch, best)

    def wait(self) -> None:
        """Wait until the last save is on disk. Raises DataError if the disk is full or writing failed."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Finish writing and end the background thread."""
        self._writer.shutdown(wait=True)

    def best_path(self, epoch: int) -> Path:
        """The file of an epoch's weights.

        Each epoch has its own file, so that the file that last.pt names exists whenever the process is killed.
        """
        return self.folder / f"best-epoch{epoch}.safetensors"

    def _copy_all(self, task: dict[str, Any], optimiser: dict[str, Any]) -> tuple[Any, Any]:
        return self._copy(task, "task"), self._copy(optimiser, "optimiser")

    def _copied_average(self) -> dict[str, Any]:
        return {} if self.average is None else {"average": self._copy(self.average.state(), "average")}

    def _copy(self, value: Any, name: str) -> Any:
        """The same value with its tensors copied to the CPU, into the memory of the copies before."""
        if isinstance(value, Tensor):
            value = gathered(value)
            if not self.group.is_main:
                return None
            copy = self._copies.get(name)
            if copy is None or copy.shape != value.shape or copy.dtype != value.dtype:
                copy = self._copies[name] = torch.empty_like(value, device="cpu")
            return copy.copy_(value.detach())
        if isinstance(value, dict):
            return {key: self._copy(part, f"{name}.{key}") for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self._copy(part, f"{name}.{number}") for number, part in enumerate(value)]
        return value

    def _write(self, state: dict[str, Any], best_epoch: int, best: bool) -> None:
        size = sum(copy.nbytes for copy in self._copies.values())
        require_space(self.folder, size, f"the state in {self.folder}")
        if best:
            task = state["task"] | state.get("average", {})
            weights = {name: tensor for name, tensor in task.items() if name.startswith((STUDENT_PREFIX, "loss."))}
            metadata = {"epoch": str(best_epoch)}
            if FROZEN_WEIGHTS in self.data:
                metadata[BASE_SHA256] = self.data[FROZEN_WEIGHTS]
            save_weights(self.best_path(best_epoch), weights, metadata)
        with atomic_file(self.path) as temporary:
            try:
                with temporary.open("wb") as file:
                    torch.save(state, file)
            except RuntimeError as error:  # torch does not raise OSError when a write fails
                raise DataError(
                    f"{self.path} could not be written ({' '.join(str(error).split())[:200]}); what was saved before "
                    "is still there. Free some space, then run the same command again."
                ) from None
        self._remove_best_except(best_epoch)

    def _remove_best_except(self, best_epoch: int | None) -> None:
        for path in self.folder.glob("best-epoch*.safetensors"):
            if best_epoch is None or path != self.best_path(best_epoch):
                path.unlink()

    def restore(self, task: TrainingTask, optimiser: torch.optim.Optimizer) -> tuple[Progress, list[dict[str, Any]]]:
        """Load the saved state, if there is one, into task, optimiser and random state.

        Returns the progress and the rows of the history. Raises ResumeError if the file is damaged, or was saved with
        another release, configuration, data or number of processes.
        """
        if not self.path.is_file():
            return Progress(), []
        try:
            # A state that does not fit a GPU is mapped: the processes of a machine read it from the same memory.
            device = "cpu" if self._sharded else str(self.group.device)
            state = read_tensors(self.path, device, mapped=self._sharded)
        except DataError as error:
            raise ResumeError(f"{error} Delete the folder {self.folder} to train from the start.") from None
        self._require_same_training(state)
        task.load_trained_state(divided_state(state["task"], task.state_dict()))
        for group, saved in zip(optimiser.param_groups, state["optimiser"]["param_groups"], strict=True):
            saved["fused"] = group["fused"]  # an earlier release has saved that it was not
        optimiser.load_state_dict(divided_moments(state["optimiser"], optimiser))
        if self.guard is not None and "loss_scale" in state:
            self.guard.load(state["loss_scale"])
        if self.average is not None:
            self.average.load(state["average"])
        set_random_state(state["random_states"][self.group.rank])
        return Progress(**state["progress"]), json.loads(state["history"])

    def _require_same_training(self, state: dict[str, Any]) -> None:
        """Raise ResumeError unless a state was saved by this release, with this configuration, data and group."""
        from_the_start = f"or delete the folder {self.folder} to train from the start."
        if state.get("version") != STATE_VERSION:
            raise ResumeError(
                f"{self.path} has the version {state.get('version')}, expected {STATE_VERSION}. Continue with the "
                f"release that wrote it, {from_the_start}"
            )
        if changed := differences(json.loads(state["configuration"]), self.configuration):
            raise ResumeError(
                f"{self.path} was saved with another configuration: {'; '.join(changed)}. Restore the old values "
                f"to continue, {from_the_start}"
            )
        if changed := [name for name in self.data if self.data[name] != state["data"].get(name)]:
            raise ResumeError(
                f"{self.path} was saved while training on other data: {', '.join(changed)} changed since. Restore the "
                f"old data to continue, {from_the_start}"
            )
        if state["processes"] != self.group.world_size:
            raise ResumeError(
                f"{self.path} was saved by {state['processes']} processes, now there are {self.group.world_size}. "
                f"Start as many as before to continue, {from_the_start}"
            )

    def changed_since_previous(self) -> list[str]:
        """`key was ..., is ...` for each difference from the run that was finished before; empty if none is kept."""
        if not all((self.previous / name).is_file() for name in OUTPUTS):
            return []
        try:
            before = RunRecord.read(self.previous)
        except DataError:  # `restore_finished` has reported it
            return []
        changed = differences(before.configuration.model_dump(mode="json"), self.configuration)
        changed += changed_versions(before.versions, versions())
        data = before.data or {}
        return changed + [f"{name} changed" for name in self.data if self.data[name] != data.get(name)]

    def keep_finished(self) -> None:
        """Keep the outputs of a finished training in `finished`, and remove the files that only resuming needs."""
        kept = self.folder / FINISHED
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for name in OUTPUTS:
            link(self.run / name, kept / name)
        # last.pt first: it must never name weights that do not exist, even if the process is killed here.
        self.path.unlink()
        self._remove_best_except(None)
        drop_previous(self.run)

    def restore_finished(self, elsewhere: Iterable[Path] = ()) -> bool:
        """Restore the outputs from `finished` to the run folder, if they are those of this very training.

        If they are not, look at the run that was finished before (see runs/previous.py), unless it is to be trained
        again, and at the run folders `elsewhere`: a trial of a sweep may be this training. Returns False if none is, so
        the run has to be trained.
        """
        if is_wanted_again(self.run):
            return False
        return any(self._restore_from(kept) for kept in (self.folder / FINISHED, self.previous, *elsewhere))

    def _restore_from(self, kept: Path) -> bool:
        if not all((kept / name).is_file() for name in OUTPUTS):
            return False
        try:
            record = RunRecord.read(kept)
        except DataError as error:  # the run is trained instead
            log.warning("%s", error)
            return False
        same = (
            not differences(record.configuration.model_dump(mode="json"), self.configuration)
            and record.stopped_because is None
            and record.data == self.data
            and record.processes == self.group.world_size
            and not changed_versions(record.versions, versions())
            and record.weights_sha256 == sha256_of_file(kept / WEIGHTS)
        )
        if same and self.group.is_main:
            for name in OUTPUTS:
                with atomic_file(self.run / name) as temporary:
                    link(kept / name, temporary)
        return same
