"""What survives an interruption: a training's state on disk, written behind its back, and the signal to stop.

    {run}/state/last.pt                         where to continue; replaced by renaming
    {run}/state/best-epoch{n}.safetensors       the weights that last.pt calls the best
    {run}/state/finished/                       the outputs of a training that has finished, as hard links

`finished` serves a Snakemake that died before it took note of the outputs: it deletes them, starts the training again,
and the training gives them back. Embedding a run, which Snakemake does only after it took note, removes state/.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cusa.common.compute import random_state, set_random_state
from cusa.common.files import read_tensors, require_space, sha256_of_file, whole_file
from cusa.common.versions import versions
from cusa.config.experiments import RunConfiguration
from cusa.config.training import OPERATIONAL
from cusa.errors import DataError, ResumeError
from cusa.runs.record import FINISHED, HISTORY, RUN, STATE_FILE, STATE_FOLDER, WEIGHTS, RunRecord
from cusa.runs.weights import STUDENT_PREFIX, save_weights
from cusa.training.distributed import Group
from cusa.training.step import TrainingTask

STATE_VERSION = 2


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


class State:
    """Saving and restoring everything a run needs to continue.

    `hold` first: only one training may have a run's state. The first process of a group writes; its step is blocked
    while the state is copied to memory, the disk is written behind.
    """

    def __init__(self, run: Path, configuration: RunConfiguration, data: dict[str, str], group: Group) -> None:
        self.run, self.folder = run, run / STATE_FOLDER
        self.path = self.folder / STATE_FILE
        self.configuration = configuration.model_dump(mode="json")
        self.data = data
        self.group = group
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._copies: dict[str, Tensor] = {}

    def prepare(self, task: TrainingTask, optimiser: torch.optim.Optimizer) -> None:
        """Get the memory that saving copies to, behind the first steps: the system takes seconds to hand out 5 GB.

        What is copied now may be half of one step and half of the next; saving copies all of it anew.
        """
        if self.group.is_main:
            self.wait()
            self._writing = self._writer.submit(self._get_memory, task.state_dict(), optimiser.state_dict())

    def _get_memory(self, task: dict[str, Any], optimiser: dict[str, Any]) -> None:
        self._copied(task, "task")
        self._copied(optimiser, "optimiser")

    def save(
        self,
        task: TrainingTask,
        optimiser: torch.optim.Optimizer,
        progress: Progress,
        history: list[dict[str, Any]],
        best: bool = False,
    ) -> None:
        """Save where the run is; with `best`, its weights as those of the best epoch too.

        Raises what went wrong while the state before was written.
        """
        random_states = self.group.gather_objects(random_state())
        if not self.group.is_main:
            return
        self.wait()
        state = {
            "version": STATE_VERSION,
            "configuration": json.dumps(self.configuration),
            "data": self.data,
            "processes": self.group.world_size,
            "task": self._copied(task.state_dict(), "task"),
            "optimiser": self._copied(optimiser.state_dict(), "optimiser"),
            "progress": asdict(progress),
            "random_states": random_states,
            "history": json.dumps(history),
        }
        self._writing = self._writer.submit(self._write, state, progress.best_epoch, best)

    def wait(self) -> None:
        """Until the disk has what was saved last. Raises what went wrong while writing."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """End the writing thread; what it is at is finished."""
        self._writer.shutdown(wait=True)

    def best_path(self, epoch: int) -> Path:
        """The best weights under their epoch's own name: whichever last.pt speaks of is there, whenever one dies."""
        return self.folder / f"best-epoch{epoch}.safetensors"

    def _copied(self, value: Any, name: str) -> Any:
        """The same with tensors copied, into the memory of the copies before."""
        if isinstance(value, Tensor):
            held = self._copies.get(name)
            if held is None or held.shape != value.shape or held.dtype != value.dtype:
                held = self._copies[name] = torch.empty_like(value, device="cpu")
            return held.copy_(value.detach())
        if isinstance(value, dict):
            return {key: self._copied(part, f"{name}.{key}") for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self._copied(part, f"{name}.{number}") for number, part in enumerate(value)]
        return value

    def _write(self, state: dict[str, Any], best_epoch: int, best: bool) -> None:
        size = sum(copy.nbytes for copy in self._copies.values())
        require_space(self.folder, size, f"the state in {self.folder}")
        if best:
            weights = {
                name: tensor for name, tensor in state["task"].items() if name.startswith((STUDENT_PREFIX, "loss."))
            }
            save_weights(self.best_path(best_epoch), weights, {"epoch": str(best_epoch)})
        with whole_file(self.path) as temporary:
            try:
                with temporary.open("wb") as file:
                    torch.save(state, file)
            except RuntimeError as error:  # torch's own words for a write that failed
                raise DataError(
                    f"{self.path} could not be written ({' '.join(str(error).split())[:200]}); what was saved before "
                    "is still there. Free some space, then run the same command again."
                ) from None
        for old in self.folder.glob("best-epoch*.safetensors"):
            if old != self.best_path(best_epoch):
                old.unlink()

    def restore(self, task: TrainingTask, optimiser: torch.optim.Optimizer) -> tuple[Progress, list[dict[str, Any]]]:
        """Put a saved state back. Raises ResumeError when it is of another configuration, data or group, or damaged."""
        if not self.path.is_file():
            return Progress(), []
        try:
            state = read_tensors(self.path, str(self.group.device))
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
        if state["processes"] != self.group.world_size:
            raise ResumeError(
                f"{self.path} was saved by {state['processes']} processes, now there are {self.group.world_size}. "
                f"Start as many as before to continue, or delete the folder {self.folder} to train from the start."
            )
        task.load_state_dict(state["task"])
        optimiser.load_state_dict(state["optimiser"])
        set_random_state(state["random_states"][self.group.rank])
        return Progress(**state["progress"]), json.loads(state["history"])

    def keep_finished(self) -> None:
        """The run has its outputs: keep them for a Snakemake that dies before it takes note, and drop the rest."""
        kept = self.folder / FINISHED
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for name in (WEIGHTS, HISTORY, RUN):
            _link(self.run / name, kept / name)
        # First what says where to continue: dying here must not leave a state that points at weights that are gone.
        self.path.unlink()
        for old in self.folder.glob("best-epoch*.safetensors"):
            old.unlink()

    def give_back_finished(self) -> bool:
        """Put the outputs of this very training back where they belong; False where it has to be done (again)."""
        kept = self.folder / FINISHED
        if not (kept / RUN).is_file():
            return False
        record = RunRecord.read(kept)
        same = (
            not _differences(record.configuration.model_dump(mode="json"), self.configuration)
            and record.data == self.data
            and record.processes == self.group.world_size
            and record.versions == versions()
            and record.weights_sha256 == sha256_of_file(kept / WEIGHTS)
        )
        if same and self.group.is_main:
            for name in (WEIGHTS, HISTORY, RUN):
                with whole_file(self.run / name) as temporary:
                    _link(kept / name, temporary)
        return same


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy on file systems without."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _differences(saved: Any, current: Any, key: str = "") -> list[str]:
    """`key: saved -> current` for each value that differs, and changes what is learned."""
    if isinstance(saved, dict) and isinstance(current, dict):
        names = dict.fromkeys([*saved, *current])
        found = [_differences(saved.get(name), current.get(name), f"{key}.{name}".strip(".")) for name in names]
        return [difference for part in found for difference in part]
    if saved == current or key.removeprefix("train.") in OPERATIONAL:
        return []
    return [f"{key} was {saved!r}, is {current!r}"]
