"""Publishes a training while it runs: event files, live files in state/, and trackers by name.

Rank 0 gives each row of the history to threads, which write and send it; see cusa.tracking.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from cusa.common.files import read_json, write_json
from cusa.errors import DataError, StoppedError, reason_of
from cusa.runs.live import LiveRun
from cusa.runs.record import STATE_FOLDER
from cusa.tracking.background import BackgroundTracker
from cusa.tracking.local_files import LocalFiles
from cusa.tracking.tracker import Ending, TrackedRun, start_tracker
from cusa.training.costs import SPEEDS
from cusa.training.history import History
from cusa.training.state import Progress

IDENTITY = "tracked.json"  # in state/: the identities of this training in trackers, so that they continue one run
NO_CURVES = ("kind", "epoch", "step", "seconds")


class Watch:
    """A context in which the rows of a history are written and sent as they come; it says how the training ended."""

    def __init__(
        self, run: Path, history: History, progress: Progress, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`progress` is where the training starts or continues. Nothing is written before the context is entered."""
        self.run, self.history, self._clock = run, history, clock
        self.configuration, self.settings = history.configuration, history.settings
        self.epoch, self.step = progress.epoch, progress.step
        self._first = self._steps_taken()
        self._started, self._now = clock(), clock()
        self._started_at = datetime.now(UTC).isoformat("T", "seconds")
        self._best: dict[str, Any] | None = None
        self._last: dict[str, Any] | None = None
        self._pace: float | None = None
        self._trackers: list[BackgroundTracker] = []
        self._files: LocalFiles | None = None

    def __enter__(self) -> Watch:
        """Start the trackers. Raises ConfigurationError if one cannot start."""
        if self.history.group.is_main:
            for row in self.history.rows:
                self._take(row)
            run = self._tracked_run()
            trackers = {name: start_tracker(name, run) for name in self.settings.trackers}
            text = f"```json\n{json.dumps(run.configuration, indent=1)}\n```"
            self._files = LocalFiles(self.run, text, self._first, self._describe)
            self._trackers = [BackgroundTracker("writing of live curves", self._files, self._files.write_if_due)]
            self._trackers += [BackgroundTracker(f"the tracker {name}", each) for name, each in trackers.items()]
            self.history.on_row = self._after_row
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        status: Ending = "finished"
        if error is not None:
            status = "stopped" if isinstance(error, StoppedError | KeyboardInterrupt) else "failed"
        self.history.on_row = lambda row: None
        if status == "finished":
            (self.run / STATE_FOLDER / IDENTITY).unlink(missing_ok=True)
        if self._files is not None and error is not None and status == "failed":
            self._files.message = reason_of(error)
        best = self._best if status == "finished" else None
        summary = {} if best is None else points(best, "best")
        for tracker in self._trackers:
            tracker.finish(status, summary)

    def _tracked_run(self) -> TrackedRun:
        """The description of the run for trackers. A continued training has the identity of its first start."""
        configuration, path = self.configuration, self.run / STATE_FOLDER / IDENTITY
        identity: str | None = None
        if self._first:
            with suppress(FileNotFoundError, DataError):
                identity = read_json(path)["identity"]
        known = identity is not None
        if identity is None:
            identity = uuid.uuid4().hex[:8]
            if self.settings.trackers:
                write_json(path, {"identity": identity})
        return TrackedRun(
            project=configuration.dataset,
            name=f"{configuration.experiment}-seed{configuration.seed}",
            group=configuration.experiment,
            identity=identity,
            continued=known,
            configuration=configuration.model_dump(mode="json"),
            folder=self.run,
        )

    def _after_row(self, row: dict[str, Any]) -> None:
        """Give a new row to the threads."""
        self._take(row)
        self._now = self._clock()
        values = points(row, "train" if row["kind"] == "step" else self.settings.selection_split)
        step = row["epoch"] * self.history.steps_per_epoch + row["step"]
        for tracker in self._trackers:
            tracker.log(step, values)

    def _take(self, row: dict[str, Any]) -> None:
        """Record the progress of the training from a row."""
        if row["kind"] == "step":
            self.epoch, self.step = row["epoch"], row["step"]
            self._pace = row.get("samples_per_second")
            return
        self.epoch, self.step = row["epoch"] + 1, 0
        self._last = row
        if self._best is None or row["r_mean"] > self._best["r_mean"]:
            self._best = row

    def _steps_taken(self) -> int:
        return self.epoch * self.history.steps_per_epoch + self.step

    def _describe(self) -> tuple[list[dict[str, Any]], LiveRun]:
        """The rows so far, and how far the training is; a thread calls it."""
        taken = self._steps_taken()
        left = self.settings.epochs * self.history.steps_per_epoch - taken
        since_start, seconds = taken - self._first, self._now - self._started
        best, last = self._best, self._last
        live = LiveRun(
            status="running",
            experiment=self.configuration.experiment,
            seed=self.configuration.seed,
            epochs=self.settings.epochs,
            steps_per_epoch=self.history.steps_per_epoch,
            epoch=self.epoch,
            step=self.step,
            best_epoch=None if best is None else best["epoch"],
            best_r_mean=None if best is None else best["r_mean"],
            last_r_mean=None if last is None else last["r_mean"],
            pairs_per_second=self._pace,
            seconds_left=left * seconds / since_start if since_start > 0 else None,
            started=self._started_at,
            updated=self._started_at,
        )
        return list(self.history.rows), live


def points(row: dict[str, Any], group: str) -> dict[str, float]:
    """The numbers of a row by the names of their curves: `{group}/loss`, `temperature/cross`, `speed/...`, `gpu/...`.

    Values that a row does not have, or that are not finite, are left out.
    """
    values = {}
    for name, value in row.items():
        if name in NO_CURVES or value is None or not math.isfinite(value):
            continue
        family, _, rest = name.partition("_")
        if family in ("temperature", "gpu"):
            values[f"{family}/{rest}"] = float(value)
        elif name in SPEEDS:
            values[f"speed/{name}"] = float(value)
        else:
            values[f"{group}/{name}"] = float(value)
    return values
