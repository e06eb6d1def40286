"""The known trackers for `train.trackers`, to which a training sends its curves."""

from __future__ import annotations

from pathlib import Path

from cusa.common.files import expanded
from cusa.common.registry import Registry, is_file
from cusa.errors import ConfigurationError

TRACKERS_KEY = "train.trackers"
TRACKERS = Registry(
    kind="tracker",
    group="cusa.trackers",
    modules={
        "mlflow": "cusa.tracking.mlflow_tracker",
        "trackio": "cusa.tracking.trackio_tracker",
        "wandb": "cusa.tracking.wandb_tracker",
    },
    needs=("start",),
)


def require_known_trackers(names: list[str]) -> list[str]:
    """The same names. Raises ConfigurationError if one is unknown or repeated, or is a file that is not there."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"Configuration key `{TRACKERS_KEY}` has {', '.join(twice)} twice; list each once.")
    for name in names:
        TRACKERS.require(name, TRACKERS_KEY)
        if is_file(name) and not expanded(name).is_file():
            raise ConfigurationError(
                f"Configuration key `{TRACKERS_KEY}`: {name} does not exist (relative paths start at {Path.cwd()})."
            )
    return names
