"""The progress of running jobs: the epoch and validation score of a training, the pace of other long jobs.

Trainings write state/live.json every few seconds, and other long jobs a line of their log; see common/progress.py.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cusa.common.progress import PACE, duration
from cusa.runs.live import LiveRun, live_path

LAST_BYTES = 2000  # bytes at the end of a log that are read
SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_BETWEEN_LINES = 30.0  # of one job; shorter jobs write no line


@dataclass(frozen=True)
class Pace:
    """How far a job is: `text` for people, and `done` of `total`, which is None if it is not known."""

    text: str
    done: float
    total: float | None


@dataclass(frozen=True)
class Job:
    """A job that runs: its name for people, its log, the folder of what it makes, and when it started (time.time)."""

    name: str
    log: Path | None
    folder: Path | None
    started: float = field(default_factory=time.time)

    def pace(self) -> Pace | None:
        """How far the job is; None if it has not reported it yet, or if its files cannot be read at this moment."""
        try:
            return self._pace()
        except OSError:  # a log that is removed while it is read, or a file that a network file system has lost
            return None

    def _pace(self) -> Pace | None:
        runs = [] if self.folder is None else [self.folder, *sorted(self.folder.glob("seed*"))]
        for run in runs:
            if _is_new(live_path(run), self.started) and (live := LiveRun.read(run)) is not None:
                return of_training(live)
        return of_log(self.log) if self.log is not None and _is_new(self.log, self.started) else None


def _is_new(path: Path, since: float) -> bool:
    try:
        return path.stat().st_mtime >= since
    except OSError:
        return False


def of_training(live: LiveRun) -> Pace:
    """How far a training is; r_mean is of the split that selects the epoch."""
    words = [f"epoch {min(live.epoch + 1, live.epochs)}/{live.epochs}"]
    if live.last_r_mean is not None:
        best = "" if live.best_r_mean in (None, live.last_r_mean) else f" (best {live.best_r_mean:.1f})"
        words.append(f"r_mean {live.last_r_mean:.1f}{best}")
    if live.seconds_left is not None:
        words.append(f"{duration(live.seconds_left)} left")
    if live.pairs_per_second is not None:
        words.append(f"{live.pairs_per_second:.0f} pairs/s")
    steps = live.steps_per_epoch
    return Pace(", ".join(words), live.epoch * steps + live.step, live.epochs * steps)


def of_log(log: Path) -> Pace | None:
    """The progress in the last line of a job's log; None if that line is about something else."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LAST_BYTES))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    found = re.fullmatch(PACE, lines[-1]) if lines else None
    if found is None:
        return None
    done, total = (None if found[name] is None else int(found[name]) for name in ("done", "total"))
    assert done is not None
    of = "" if total is None else f"/{total:,}"
    return Pace(f"{found['what']}: {done:,}{of} {found['unit']}, {found['rate']}", done, total)


class Lines:
    """Short lines about jobs that take long, for a screen without a live view and for files."""

    def __init__(self, write: Callable[[str], Any], clock: Callable[[], float] = time.time) -> None:
        self._write, self._clock = write, clock
        self._said: dict[int, tuple[float, str]] = {}

    def show(self, number: int, job: Job, pace: Pace) -> None:
        """Write a line if the last one was different and some time ago."""
        when, text = self._said.get(number, (job.started, ""))
        if self._clock() - when >= SECONDS_BETWEEN_LINES and pace.text != text:
            self._said[number] = (self._clock(), pace.text)
            self._write(f"{job.name}: {pace.text}\n")

    def keep(self, numbers: Iterable[int]) -> None:
        """Forget all jobs but these, which still run."""
        self._said = {number: self._said[number] for number in numbers if number in self._said}


class Bars:
    """A bar for each running job in a live view, below those of the rules; `progress` is a rich.progress.Progress."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._bars: dict[int, Any] = {}

    def show(self, number: int, job: Job, pace: Pace) -> None:
        """Update the bar of a job."""
        if number not in self._bars:
            # The live view of snakemake-logger-plugin-rich shows the field `active` of each bar.
            self._bars[number] = self._progress.add_task("", total=pace.total, active=" ")
        text = f"[dim]{job.name}:[/] {pace.text}"
        self._progress.update(self._bars[number], description=text, completed=pace.done, total=pace.total)

    def keep(self, numbers: Iterable[int]) -> None:
        """Remove the bars of all jobs but these, which still run."""
        for number in set(self._bars) - set(numbers):
            self._progress.remove_task(self._bars.pop(number))


class RunningJobs:
    """The jobs that run now, and a thread that shows every few seconds how far they are."""

    def __init__(self) -> None:
        self._jobs: dict[int, Job] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, number: int, job: Job) -> None:
        """A job has started."""
        self._jobs[number] = job

    def end(self, number: int) -> None:
        """A job has ended, well or not."""
        self._jobs.pop(number, None)

    def watch(self, view: Lines | Bars) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, args=(view,), daemon=True, name="running jobs")
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, view: Lines | Bars) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_LOOKS):
            self.show_all(view)
        view.keep([])

    def show_all(self, view: Lines | Bars) -> None:
        """Show how far each running job is."""
        jobs = dict(self._jobs)
        view.keep(jobs)
        for number, job in jobs.items():
            if (pace := job.pace()) is not None:
                view.show(number, job, pace)
