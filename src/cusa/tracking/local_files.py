"""The files that every training writes while it runs: event files, the rows so far, and its progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cusa.runs.live import LiveRun, live_history_path, live_path
from cusa.runs.record import write_history
from cusa.tracking.event_file import FOLDER, EventFile, remove_event_files
from cusa.tracking.tracker import Ending, Values

SECONDS_BETWEEN_WRITES = 5.0
# A long history takes longer to write; writing may take this share of the time.
SHARE_OF_TIME = 0.02


class LocalFiles:
    """The tracker of the run folder: {run}/tensorboard, {run}/state/history.parquet and {run}/state/live.json.

    `describe` gives rows and state at the moment when it is called. The Parquet file is written again as a whole, so
    it is written at most every SECONDS_BETWEEN_WRITES; event files grow with each row.
    """

    def __init__(
        self,
        run: Path,
        settings: str,
        first_step: int,
        describe: Callable[[], tuple[list[dict[str, Any]], LiveRun]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`settings` is a text in Markdown; `first_step` is the step before the first one to come, 0 at the start."""
        self.run, self.describe, self._clock = run, describe, clock
        if first_step == 0:
            remove_event_files(run / FOLDER)  # of an earlier training of this run, whose other files are replaced too
        self.events = EventFile(run / FOLDER, first_step + 1 if first_step else 0)
        if first_step == 0:
            self.events.add_text("configuration", settings, 0)
        self._due = clock()
        self.message: str | None = None
        self._write("running")

    def log(self, step: int, values: Values) -> None:
        """Add a point to each curve, and write the other files if it is time to."""
        self.events.add_scalars(step, values, time.time())
        self._unwritten = True
        self.write_if_due()

    def write_if_due(self) -> None:
        """Write the other files, if there is a row that they do not have and the last time is long enough ago."""
        if self._unwritten and self._clock() >= self._due:
            self._write("running")

    def finish(self, status: Ending, summary: Values) -> None:
        """Write all a last time; a finished training has its run.json instead of state/live.json."""
        self.events.close()
        if status == "finished":
            for path in (live_path(self.run), live_history_path(self.run)):
                path.unlink(missing_ok=True)
        else:
            self._write(status)

    def _write(self, status: Any) -> None:
        started, self._unwritten = self._clock(), False
        rows, live = self.describe()
        if rows:
            write_history(live_history_path(self.run), rows)
        live.model_copy(
            update={"status": status, "message": self.message, "updated": datetime.now(UTC).isoformat("T", "seconds")}
        ).write(self.run)
        ended = self._clock()
        self._due = ended + max(SECONDS_BETWEEN_WRITES, (ended - started) / SHARE_OF_TIME)
