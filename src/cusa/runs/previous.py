"""The finished training of a run, kept while it is trained again: {run}/previous/.

A workflow deletes the files of a run before it trains the run again. If that training fails or is stopped, the finished
run is still in this folder. A training restores it if it has the same configuration and data.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cusa.runs.record import HISTORY, RUN, WEIGHTS

OUTPUTS = (WEIGHTS, HISTORY, RUN)
PREVIOUS = "previous"
AGAIN = "train-again"  # a file in the folder if the user asked to repeat the same training


def keep_previous(run: str | Path, again: bool = False) -> None:
    """Keep the files of a finished run as hard links, if they are there, in place of those that were kept before.

    If some files are missing, the others are kept only if nothing was kept before.

    `again` says that the run must be trained again even if nothing has changed, so the kept files are not restored.
    """
    run = Path(run)
    kept = run / PREVIOUS
    there = [name for name in OUTPUTS if (run / name).is_file()]
    if len(there) == len(OUTPUTS) or (WEIGHTS in there and not kept.is_dir()):
        drop_previous(run)
        kept.mkdir()
        for name in there:
            link(run / name, kept / name)
    if again and kept.is_dir():
        (kept / AGAIN).touch()


def is_wanted_again(run: str | Path) -> bool:
    """Whether the run must be trained again, even if a matching run is kept."""
    return (Path(run) / PREVIOUS / AGAIN).is_file()


def drop_previous(run: str | Path) -> None:
    """Remove the kept files: a new training is complete, or the run is kept in another place."""
    shutil.rmtree(Path(run) / PREVIOUS, ignore_errors=True)


def link(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy if the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
