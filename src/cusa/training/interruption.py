"""What happens at SIGTERM, and the lock that keeps two trainings from one run folder."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from cusa.common.files import read_json
from cusa.errors import ResumeError, StoppedError
from cusa.runs.record import STATE_FOLDER


class Stop:
    """SIGTERM, which Slurm sends some seconds before it kills: taken note of, or obeyed at once where nothing is lost.

    It may arrive twice, and in one process of several before the others.
    """

    def __init__(self) -> None:
        self.asked = False
        self.at_once = True
        self._before: Any = None

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self.at_once:
            raise StoppedError("stopped by SIGTERM; the same command continues.")


def lock_run(run: Path) -> FileLock:
    """The lock of a run's state, which the kernel lets go when its holder dies. Raises ResumeError when it is taken.

    The file says who holds it. What a holder that was killed had half written is removed.
    """
    folder = run / STATE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    holder = folder / "holder.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = ""
        with suppress(OSError, ValueError):
            about = read_json(holder)
            job = f", Slurm job {about['slurm_job']}" if about["slurm_job"] else ""
            who = f": process {about['process']} on {about['host']}{job}"
        raise ResumeError(
            f"another process is training {run} right now{who} (it holds {folder}/lock); wait for it or stop it, then "
            "run the same command again."
        ) from None
    for partial in (*folder.glob(".*.partial"), *run.glob(".*.partial")):
        partial.unlink(missing_ok=True)
    about = {"process": os.getpid(), "host": os.uname().nodename, "slurm_job": os.environ.get("SLURM_JOB_ID")}
    holder.write_text(json.dumps(about))
    return lock
