"""Stopping at SIGTERM and Ctrl-C, and the lock that keeps a second training out of a run folder."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from cusa.common.files import read_json
from cusa.errors import DataError, ResumeError, StoppedError
from cusa.runs.record import STATE_FOLDER

STOPPING = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """A request to stop, made by SIGTERM, which Slurm sends some seconds before SIGKILL, or by SIGINT, which is Ctrl-C.

    Handles the signals while it is entered as a context manager, in the main thread only, because Python allows no
    other. At first a signal raises StoppedError at once. After `defer` it only sets `requested`, and the training stops
    when it has saved. Signals may arrive more than once, and not in all processes of a group at the same time. Without
    `saves` it is no training that stops, but something that saves nothing.
    """

    def __init__(self, saves: bool = True) -> None:
        self._saves = saves
        self.requested = False
        self._signal = signal.SIGTERM  # the first that arrived
        self._immediate, self._saved = True, ""
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = {number: signal.signal(number, self._handle) for number in STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def defer(self) -> None:
        """After this call, a signal only sets `requested`, because the state must be saved before the end."""
        self._immediate = False

    @contextmanager
    def immediately(self, saved: str = "") -> Iterator[None]:
        """Within this block, which has nothing to save, a signal raises StoppedError at once. For `saved` see `error`.

        Raises it before the block if a signal arrived earlier.
        """
        self._immediate, self._saved = True, saved
        try:
            if self.requested:
                raise self.error(saved)
            yield
        finally:
            self._immediate = False

    def error(self, saved: str = "") -> StoppedError:
        """The error that ends a training after a signal; `saved` adds which step was saved, and the folder."""
        name = "Ctrl-C" if self._signal == signal.SIGINT else self._signal.name
        then = "the same command continues" if self._saves else "nothing was saved, and the same command starts anew"
        return StoppedError(f"stopped by {name}{saved}; {then}.", self._signal)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self._signal = signal.Signals(number)
        self.requested = True
        if self._immediate:
            self._immediate = False  # a second signal must not interrupt the clean-up after the first
            raise self.error(self._saved)


def ignore_stopping(worker: int) -> None:
    """Make a loader process ignore the signals that stop a training. The training ends its workers itself.

    A terminal sends Ctrl-C to all processes of the command, and Slurm sends SIGTERM to all of the job. A worker that
    ended then would be missing in the step that the training still finishes.
    """
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def lock_run(run: Path) -> FileLock:
    """Lock a run folder's state for this process; the kernel releases the lock when the process ends.

    Writes this process's number, host and Slurm job to {run}/state/holder.json. Removes the partial files that an
    earlier process left when it was killed. Raises ResumeError, which names the other process, if the lock is taken.
    """
    folder = run / STATE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    holder = folder / "holder.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ResumeError(
            f"another process is training {run} right now{_description(holder)} (it holds {folder}/lock); wait for it "
            "or stop it, then run the same command again."
        ) from None
    for partial in (*folder.glob(".*.partial"), *run.glob(".*.partial")):
        partial.unlink(missing_ok=True)
    this_process = {"process": os.getpid(), "host": os.uname().nodename, "slurm_job": os.environ.get("SLURM_JOB_ID")}
    holder.write_text(json.dumps(this_process))
    return lock


def _description(holder: Path) -> str:
    """`: process ... on ...`, read from holder.json; empty if the other process has not written it yet."""
    with suppress(OSError, DataError):
        content = read_json(holder)
        job = f", Slurm job {content['slurm_job']}" if content["slurm_job"] else ""
        return f": process {content['process']} on {content['host']}{job}"
    return ""
