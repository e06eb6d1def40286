"""Weights & Biases. Its own environment variables are obeyed: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE=offline, ..."""

from __future__ import annotations

import os
from typing import Any

from cusa.tracking.tracker import Ending, TrackedRun, Values


class WandbTracker:
    """A run of Weights & Biases."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def log(self, step: int, values: Values) -> None:
        """Log numbers at a step. It ignores steps before the last one, which a continued training takes again."""
        if step >= self.run.step:
            self.run.log(dict(values), step=step)

    def finish(self, status: Ending, summary: Values) -> None:
        """Write the summary, send what is left and end."""
        self.run.summary.update(dict(summary))
        self.run.finish(exit_code=int(status == "failed"))


def start(run: TrackedRun) -> WandbTracker:
    """Start a run, or continue it. Its files go to {run}/wandb."""
    import wandb

    return WandbTracker(
        wandb.init(
            project=os.environ.get("WANDB_PROJECT", run.project),
            name=run.name,
            group=run.group,
            id=f"{run.name}-{run.identity}"[-64:],
            resume="allow",
            config=dict(run.configuration),
            dir=os.environ.get("WANDB_DIR", str(run.folder)),
            settings=wandb.Settings(console="off", save_code=False, disable_git=True),
        )
    )
