"""The jobs that have failed, and how their processes ended, from what Snakemake says about them.

A program that ends with an error writes a sentence or a traceback into its log. One that is killed writes nothing, so
what is known about its end is in Snakemake's messages alone.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from pathlib import Path

# Snakemake quotes a command that failed, and then says how. All commands of the rules end with the name of their log.
ENDED = re.compile(
    r" > (?P<log>\S+) 2>&1\s*' "
    r"(?:returned non-zero exit status (?P<status>\d+)|died with <Signals\.(?P<signal>SIG\w+): \d+>)"
)
SIGNALLED = 128  # plus the number of a signal: the status of a shell whose program was ended by it
BY_CTRL_C = "SIGINT"
OUT_OF_MEMORY = (
    "as the system does when memory runs out: run fewer jobs at once (--cores), give the job more memory, or lower "
    "what it holds at once (train.batch_size, train.workers)"
)


def job_name(log: Path, folders: Iterable[Path]) -> str:
    """A job's name for people, from its log {folder}/{rule}/{name}.log in one of the folders of logs.

    It has all that tells it from the rule's other jobs (cusa/seed23/pets), or the rule too if that is one word
    (write_shards/train). A log elsewhere is named with the folder that it is in.
    """
    inside = next((log.relative_to(folder) for folder in folders if log.is_relative_to(folder)), log)
    parts = inside.with_suffix("").parts
    return "/".join(parts[1:] if inside != log and len(parts) > 2 else parts[-2:])


class FailedJobs:
    """The logs of the jobs that have failed and were not started again, and how each ended."""

    def __init__(self) -> None:
        self._endings: dict[str, str] = {}  # of commands, by their log: the name of a signal, or an exit status
        self._failed: dict[str, str] = {}  # by the log: what the system that runs the jobs says, or an empty text

    def __contains__(self, log: object) -> bool:
        return str(log) in self._failed

    @property
    def logs(self) -> list[Path]:
        """The logs of the jobs that have failed; they need not exist."""
        return [Path(log) for log in self._failed]

    def read(self, message: str) -> None:
        """Take from a message of Snakemake how a command ended, if it says so."""
        for found in ENDED.finditer(message):
            self._endings[found["log"]] = found["signal"] or _name_of_status(int(found["status"]))

    def started(self, logs: Iterable[str]) -> None:
        """A job has started, perhaps once more after it had failed."""
        for log in logs:
            self._failed.pop(log, None)
            self._endings.pop(log, None)

    def failed(self, logs: Iterable[str], said: str | None) -> None:
        """A job has failed. `said` is what the system that runs the jobs says about it: Slurm, or None."""
        for log in list(logs)[:1]:  # the others are of the system that runs the jobs
            self._failed[log] = " ".join((said or "").split())

    def was_interrupted(self, log: Path) -> bool:
        """Whether Ctrl-C ended a job before it could say so."""
        return self._endings.get(str(log)) == BY_CTRL_C

    def without_message(self, name: str, log: Path, lines: list[str]) -> str:
        """The sentence about a failed job whose log has neither a message nor a traceback.

        `name` is the job's name, `lines` those of its log, of which the last is quoted.
        """
        ending, said = self._endings.get(str(log), ""), self._failed.get(str(log), "")
        if ending == "SIGKILL":
            how = f"was ended by SIGKILL, {OUT_OF_MEMORY}."
        elif ending.startswith("SIG"):
            how = f"was ended by the signal {ending}."
        elif ending:
            how = f"ended with the exit status {ending} and without a message."
        else:
            how = f"ended without a message, as a process does that is killed, {OUT_OF_MEMORY}."
        if said:
            how += f" What runs the jobs says: {said.rstrip('.')}."
        last = f" The last line of its log: {lines[-1].strip()}" if lines else " Its log is empty."
        return f"Error: {name} {how}{last}"


def _name_of_status(status: int) -> str:
    """The name of the signal that an exit status of a shell stands for; else the status."""
    try:
        return signal.Signals(status - SIGNALLED).name
    except ValueError:
        return str(status)
