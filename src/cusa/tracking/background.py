"""Trackers in threads of their own, so that no training step waits for a disk or a network."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from cusa.tracking.tracker import Ending, Tracker, Values

log = logging.getLogger(__name__)
SECONDS_TO_FINISH = 60.0
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_STOP = 10.0  # a cluster kills soon after SIGTERM


class BackgroundTracker:
    """A tracker that is called in a thread. The first error ends it with a warning; the training goes on.

    `idle` is called about every second in which there is nothing else to do.
    """

    def __init__(self, name: str, tracker: Tracker, idle: Callable[[], None] | None = None) -> None:
        self.name, self.tracker, self._idle = name, tracker, idle
        self._tasks: queue.SimpleQueue[tuple[int, Values] | tuple[Ending, Values]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def log(self, step: int, values: Values) -> None:
        """Hand numbers to the thread."""
        self._tasks.put((step, values))

    def finish(self, status: Ending, summary: Values) -> None:
        """Wait until all is sent, but not for ever: a server that does not answer must not hold the job."""
        self._tasks.put((status, summary))
        self._thread.join(SECONDS_TO_FINISH if status == "finished" else SECONDS_TO_STOP)
        if self._thread.is_alive():
            log.warning("%s did not end in time; the numbers that it had not sent are missing there", self.name)

    def _work(self) -> None:
        try:
            while True:
                try:
                    what, values = self._tasks.get(timeout=SECONDS_BETWEEN_LOOKS if self._idle else None)
                except queue.Empty:
                    if self._idle is not None:
                        self._idle()
                    continue
                if isinstance(what, str):
                    self.tracker.finish(what, values)
                    return
                self.tracker.log(what, values)
        except Exception as error:  # noqa: BLE001 - of a library, a disk or a server that is not ours
            reason = " ".join(str(error).split())[:300]
            log.warning("%s stopped (%s: %s); the training goes on without it", self.name, type(error).__name__, reason)
