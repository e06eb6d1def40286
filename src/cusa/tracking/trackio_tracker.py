"""trackio, whose curves stay on this machine or go to a Space of the Hugging Face hub.

Its own environment variables are obeyed: TRACKIO_DIR, TRACKIO_SPACE_ID, ...
"""

from __future__ import annotations

import os
from typing import Any

from cusa.tracking.tracker import Ending, TrackedRun, Values


class TrackioTracker:
    """A run of trackio."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def log(self, step: int, values: Values) -> None:
        """Log numbers at a step."""
        self.run.log(dict(values), step=step)

    def finish(self, status: Ending, summary: Values) -> None:
        """Log the summary, send what is left and end."""
        if summary:
            self.run.log(dict(summary))
        self.run.finish()


def start(run: TrackedRun) -> TrackioTracker:
    """Start a run, or continue it."""
    import trackio

    return TrackioTracker(
        trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", run.project),
            name=f"{run.name}-{run.identity}",
            group=run.group,
            resume="allow",
            config=run.settings(),
            embed=False,
        )
    )
