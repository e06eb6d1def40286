"""The number of parts in which several jobs make a folder, from the names of parts on disk or in Snakemake's records.

Parts of a folder are `{folder}.parts/{part}-of-{parts}`; those of a gallery are `{folder}.shares/{part}-of-{parts}`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

from cusa.plan.recorded_jobs import RecordedJobs

ENDINGS = (".parts", ".shares")


def parts_in(names: Iterable[str], folder: str) -> int:
    """The number of parts of a folder, by the first path in `names` that is a part of it or in one; 1 if none is."""
    endings = "|".join(map(re.escape, ENDINGS))
    part = re.compile(rf"{re.escape(folder)}(?:{endings})/\d+-of-(\d+)(?:/|$)")
    found = (part.match(name) for name in names)
    return next((int(match[1]) for match in found if match), 1)


def parts_there(folder: str) -> int:
    """The number of parts of a folder that are on disk, 1 if there are none; of several numbers, that of the newest."""
    there = chain.from_iterable(Path(f"{folder}{ending}").glob("*-of-*") for ending in ENDINGS)
    newest_first = sorted(there, key=lambda path: path.stat().st_mtime, reverse=True)
    return parts_in(map(str, newest_first), folder)


def remove_other_parts(folder: str, number: int) -> None:
    """Remove parts of a folder that an interrupted run with another number of parts than `number` has left."""
    for path in Path(f"{folder}{ENDINGS[0]}").glob("*-of-*"):
        if parts_in([str(path)], folder) != number or number == 1:
            shutil.rmtree(path)


class PlannedParts:
    """The number of parts in which each folder is made."""

    def __init__(self, jobs: RecordedJobs, submitted: bool, forced: Callable[[], bool]) -> None:
        """`submitted`: this process is a job on a cluster. `forced` tells whether jobs run though nothing changed."""
        self._jobs, self._submitted, self._forced = jobs, submitted, forced
        self._numbers: dict[str, int] = {}

    def number(self, folder: str, output: str, asked: int, is_same: bool) -> int:
        """The number of parts of a folder; `output` is the folder, or the file in it that Snakemake knows.

        `asked` is the number in the configuration. If `output` exists and its sources are the same, the number of
        before is kept: another number is no reason to make the folder again. A job on a cluster takes the number from
        the parts on disk, because the Snakemake that submitted it has planned them.
        """
        if self._submitted:
            return parts_there(folder)
        names = None
        if is_same and not self._forced() and Path(output).exists():
            names = self._jobs.inputs(output)
        self._numbers[folder] = asked if names is None else parts_in(names, folder)
        return self._numbers[folder]

    def remove_others(self, folders: Iterable[str]) -> None:
        """Remove the parts of folders that an interrupted run with another number of parts has left."""
        for folder in folders:
            if folder in self._numbers:
                remove_other_parts(folder, self._numbers[folder])
