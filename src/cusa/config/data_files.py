"""The data files that a place names: one file, those of a folder, or those that match a pattern."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from cusa.common.files import expanded

PARQUET_ENDINGS = (".parquet",)
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
# Files of text may be compressed.
_TEXT_ENDINGS = (".csv", ".tsv", ".tab")
_JSON_ENDINGS = (".json", ".jsonl", ".ndjson")
JSON_ENDINGS = (*_JSON_ENDINGS, *(f"{ending}.gz" for ending in _JSON_ENDINGS))
TABLE_ENDINGS = (*_TEXT_ENDINGS, *(f"{ending}.gz" for ending in _TEXT_ENDINGS), *JSON_ENDINGS, *PARQUET_ENDINGS)
MOST_FILES = 100_000
PATTERN_SIGNS = "*?["
NUMBER_RANGE = re.compile(r"\{(-?\d{1,18})\.\.(-?\d{1,18})")


def matching_files(place: str, endings: tuple[str, ...]) -> list[str]:
    """The files that a place names: a file, all files with these endings in a folder, or those that match a pattern.

    A pattern has braces (`{00000..00009}`, `{a,b}`), `*`, `?` or `[...]`. Hidden files are left out. A name from braces
    alone is returned also if there is no such file, so that the missing file can be reported. Raises ValueError for
    braces that do not pair up, and for a pattern that names too many files.
    """
    path = expanded(place)
    if not place:
        return []  # an empty path is no name of the folder from which cusa is called
    if path.is_dir():
        # os.walk passes over folders that cannot be read, or are gone meanwhile.
        below = sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        return [str(found) for found in below if _is_data(found, path, endings)]
    if path.exists() or not any(sign in place for sign in "{" + PATTERN_SIGNS):
        return [str(path)]
    found = list(dict.fromkeys(islice(_matches(str(path), endings), MOST_FILES + 1)))
    if len(found) > MOST_FILES:
        raise ValueError(f"{place} names more than {MOST_FILES:,} files; name a folder, or fewer files")
    return found


def numbered(key: str, place: str, paths: Sequence[str]) -> dict[str, str]:
    """The files of a place by keys: `key` for one, `key[0]` and so on for several, the place itself for none."""
    if not paths:
        return {key: place}
    return {key if len(paths) == 1 else f"{key}[{number}]": path for number, path in enumerate(paths)}


def as_written(place: str, paths: Sequence[str]) -> Sequence[str]:
    """The files of a place; if it is a file itself, in the spelling of the configuration.

    Another spelling would be another input of a job, and so a reason to run it again.
    """
    return [place] if list(paths) == [str(expanded(place))] else paths


def _matches(pattern: str, endings: tuple[str, ...]) -> Iterator[str]:
    from braceexpand import braceexpand

    # braceexpand makes all numbers of a range at once.
    for first, last in NUMBER_RANGE.findall(pattern):
        if abs(int(last) - int(first)) >= MOST_FILES:
            raise ValueError(f"{pattern} names more than {MOST_FILES:,} files; name a folder, or fewer files")
    try:
        names = braceexpand(pattern, escape=False)
    except ValueError:
        raise ValueError(f"{pattern} has braces that do not pair up") from None
    for name in names:
        if any(sign in name for sign in PATTERN_SIGNS):
            anchor = Path(name).anchor
            matching = Path(anchor or ".").glob(name[len(anchor) :])
            yield from (str(path) for path in sorted(matching) if _is_data(path, path.parent, endings))
        else:
            yield name


def _is_data(path: Path, folder: Path, endings: tuple[str, ...]) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.name.lower().endswith(endings) and path.is_file()
