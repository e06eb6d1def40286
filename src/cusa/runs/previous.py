"""The finished training of a run, kept while it is trained again: {run}/previous/.

A workflow deletes the files of a run before it trains the run again. If that training fails, or is given up, the run
that was finished is still here, and the training restores it when it is the one that is wanted.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cusa.runs.record import HISTORY, RUN, WEIGHTS

OUTPUTS = (WEIGHTS, HISTORY, RUN)
PREVIOUS = "previous"
AGAIN = "train-again"  # a file in the folder, where the same training was asked for once more


def keep_previous(run: str | Path, again: bool = False) -> None:
    """Keep the files of a finished run as hard links, if they are there, in place of those that were kept before.

    Where some are missing, those that are there are kept only if none was kept before.

    `again` says that the run is to be trained anew even if nothing has changed, so that what is kept is not restored.
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
    """Whether the run is to be trained anew, whatever is kept of it."""
    return (Path(run) / PREVIOUS / AGAIN).is_file()


def drop_previous(run: str | Path) -> None:
    """Remove what was kept: a new training is whole, or the run is kept in another place."""
    shutil.rmtree(Path(run) / PREVIOUS, ignore_errors=True)


def link(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy if the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
