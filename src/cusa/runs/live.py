"""The progress of an unfinished training: the live files in its state/ folder, and whether its process is alive.

    {run}/state/live.json          how far the training is, how fast, and how it ended if it ended; see LiveRun
    {run}/state/history.parquet    the rows of history.parquet so far

Training writes both in the background and removes them when it has finished. They are not in the run folder itself:
Snakemake deletes the outputs of a job that fails.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cusa.common.files import read_json, write_json
from cusa.errors import DataError
from cusa.runs.record import HISTORY, STATE_FOLDER

LIVE = "live.json"
HOLDER = "holder.json"  # of the process that trains, see training/interruption.py
Status = Literal["running", "stopped", "failed"]


class LiveRun(BaseModel):
    """How far a training is. Times are UTC in ISO 8601.

    `epoch` and `step` are the ones to take next, counted from 0. `seconds_left` is the time to the end of the last
    epoch at the speed since this start, validations included; early stopping may end it sooner. `message` is the error
    of a training that failed.
    """

    model_config = ConfigDict(frozen=True)

    status: Status
    experiment: str
    seed: int
    epochs: int
    steps_per_epoch: int
    epoch: int
    step: int
    best_epoch: int | None = None
    best_r_mean: float | None = None
    last_r_mean: float | None = None
    pairs_per_second: float | None = None
    seconds_left: float | None = None
    started: str
    updated: str
    message: str | None = None

    @classmethod
    def read(cls, run: str | Path) -> LiveRun | None:
        """The content of a run's live.json; None if there is none, or an earlier release wrote another content."""
        with suppress(FileNotFoundError, DataError, ValidationError):
            return cls.model_validate(read_json(live_path(run)))
        return None

    def write(self, run: str | Path) -> None:
        """Write a run's live.json atomically."""
        write_json(live_path(run), self.model_dump(mode="json", exclude_none=True))


def live_path(run: str | Path) -> Path:
    """The path of a run's live.json."""
    return Path(run) / STATE_FOLDER / LIVE


def live_history_path(run: str | Path) -> Path:
    """The path of the rows so far."""
    return Path(run) / STATE_FOLDER / HISTORY


def holder_of(run: str | Path) -> dict[str, Any] | None:
    """The process that trains a run, or that trained it last: its number, its host and its Slurm job."""
    with suppress(FileNotFoundError, DataError):
        content: dict[str, Any] = read_json(Path(run) / STATE_FOLDER / HOLDER)
        return content
    return None


def is_alive(holder: dict[str, Any]) -> bool | None:
    """Whether the process of holder.json still runs; None if it is on another host, where this cannot be checked.

    The lock itself is not tried: a training that starts at that moment would find it taken.
    """
    if holder.get("host") != os.uname().nodename:
        return None
    try:
        os.kill(int(holder["process"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is another user's
    except (KeyError, TypeError, ValueError):
        return None
    return True
