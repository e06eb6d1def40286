"""Trackers: their interface, and how they are started.

A tracker is a module with `start(run)`, which returns an object with `log(step, values)` and `finish(status, summary)`.
`log` gets numbers by name, such as `train/loss`, at an optimiser step; a step may come again after an interruption,
with the same numbers. `finish` gets how the training ended, and for a finished one what was selected. All are called by
one process, `start` from its main thread and the others from a thread of their own, one after another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from cusa.common.registry import is_file
from cusa.config.trackers import TRACKERS, TRACKERS_KEY
from cusa.errors import ConfigurationError

Ending = Literal["finished", "stopped", "failed"]
Values = Mapping[str, float]
# The package that each of our trackers needs, and what installs it.
PACKAGES = {
    "mlflow": "pip install 'cusa[mlflow]'",
    "trackio": "pip install trackio",
    "wandb": "pip install 'cusa[wandb]'",
}


@dataclass(frozen=True)
class TrackedRun:
    """The training that a tracker records.

    `project` is the name of the data set; `name` is {experiment}-seed{n}, and `group` the experiment. `identity` is
    eight characters, the same whenever this training is continued, and `continued` says that it is. `configuration`
    is that of run.json. `folder` is the run folder, for files of the tracker's own.
    """

    project: str
    name: str
    group: str
    identity: str
    continued: bool
    configuration: Mapping[str, Any]
    folder: Path

    def settings(self) -> dict[str, Any]:
        """The configuration as one level of names: `train.lr`, `losses.contrastive.rate`, ..."""
        return flattened(self.configuration)


class Tracker(Protocol):
    """The receiver of the numbers of one training."""

    def log(self, step: int, values: Values) -> None:
        """Take the numbers of an optimiser step, counted from 1 over all epochs."""

    def finish(self, status: Ending, summary: Values) -> None:
        """Send what is left and end. `summary` is empty unless the training has finished."""


def require_trackers(names: list[str]) -> None:
    """Raise ConfigurationError if the package of a tracker is not installed, or its Python file cannot be used."""
    for name in names:
        if is_file(name):
            TRACKERS.load(name, TRACKERS_KEY)
        elif name in PACKAGES and find_spec(name) is None:
            raise ConfigurationError(
                f"Configuration key `{TRACKERS_KEY}` names {name}, but the package {name} is not installed; run "
                f"{PACKAGES[name]}, or take {name} out of {TRACKERS_KEY}."
            )


def start_tracker(name: str, run: TrackedRun) -> Tracker:
    """Start a tracker. Raises ConfigurationError if it cannot start, for instance because nobody is logged in."""
    module = TRACKERS.load(name, TRACKERS_KEY)
    try:
        tracker: Tracker = module.start(run)
    except Exception as error:  # of a library or a server that is not ours
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        what = name if is_file(name) else f"the tracker {name}"
        raise ConfigurationError(
            f"Configuration key `{TRACKERS_KEY}`: {what} could not start ({cause}). Correct that, or take it out of "
            f"{TRACKERS_KEY}; the event files in the run folder are written in any case."
        ) from error
    return tracker


def flattened(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings by their keys, joined by dots; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= flattened(value, f"{name}.")
        else:
            found[name] = value
    return found
