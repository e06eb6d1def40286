"""The number of parts in which several jobs make a folder: what is on disk or was recorded, by the names of the parts.

Parts of a folder are `{folder}.parts/{part}-of-{parts}`; those of a gallery are `{folder}.shares/{part}-of-{parts}`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

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
    """Remove parts of a folder that an interrupted run has left, where the folder is now made in `number` parts."""
    for path in Path(f"{folder}{ENDINGS[0]}").glob("*-of-*"):
        if parts_in([str(path)], folder) != number or number == 1:
            shutil.rmtree(path)
