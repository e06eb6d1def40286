"""The data files that a place names: one file, those of a folder, or those that match a pattern."""

from __future__ import annotations

import logging
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from cusa.common.files import expanded

log = logging.getLogger(__name__)

PARQUET_ENDINGS = (".parquet",)
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
# Files of text may be compressed.
_TEXT_ENDINGS = (".csv", ".tsv", ".tab")
_JSON_ENDINGS = (".json", ".jsonl", ".ndjson")
JSON_ENDINGS = (*_JSON_ENDINGS, *(f"{ending}.gz" for ending in _JSON_ENDINGS))
TABLE_ENDINGS = (*_TEXT_ENDINGS, *(f"{ending}.gz" for ending in _TEXT_ENDINGS), *JSON_ENDINGS, *PARQUET_ENDINGS)
MOST_FILES = 100_000
SILENT = 5.0  # seconds in which a folder is looked through without a word
PATTERN_SIGNS = "*?["
PART = re.compile(r"(?P<start>.*?)(?P<number>\d{5,})-of-(?P<total>\d{5,})(?P<end>\..*)")  # as on a hub
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
        return [str(found) for found in sorted(_below(path, endings)) if _is_data(found, path, endings)]
    if path.exists() or not any(sign in place for sign in "{" + PATTERN_SIGNS):
        return [str(path)]
    found = list(dict.fromkeys(islice(_matches(str(path), endings), MOST_FILES + 1)))
    if len(found) > MOST_FILES:
        raise ValueError(f"{place} names more than {MOST_FILES:,} files; name a folder, or fewer files")
    return found


def _below(folder: Path, endings: tuple[str, ...]) -> Iterator[Path]:
    """Every file below a folder with one of the endings. Says so, once, if looking through it takes long."""
    start, told, count = time.monotonic(), False, 0
    # os.walk passes over folders that cannot be read, or are gone meanwhile.
    for place, _, names in os.walk(folder):
        count += len(names)
        yield from (Path(place, name) for name in names if name.lower().endswith(endings))
        if not told and time.monotonic() - start > SILENT:
            told = True
            log.warning(
                "%s: looking for %s in all folders below it, %s files so far; name a smaller folder, or the files by "
                "a pattern (%s)",
                folder,
                ", ".join(endings),
                f"{count:,}",
                folder / f"*{endings[0]}",
            )


def missing_parts(files: Iterable[str]) -> list[str]:
    """Sentences about files that are some of the parts which their names count: a-00001-of-00003.parquet alone.

    And about parts of one name in several folders, which may be versions of one data set.
    """
    numbers: dict[tuple[Path, str, str, str], set[int]] = defaultdict(set)
    folders: dict[str, list[Path]] = defaultdict(list)
    for path in map(Path, files):
        if match := PART.fullmatch(path.name):
            numbers[path.parent, match["start"], match["total"], match["end"]].add(int(match["number"]))
            folders[path.name].append(path.parent)
    sentences = []
    for (folder, start, total, end), found in numbers.items():
        if lacking := [number for number in range(min(int(total), MOST_FILES)) if number not in found]:
            first = folder / f"{start}{lacking[0]:0{len(total)}}-of-{total}{end}"
            sentences.append(
                f"{len(found):,} of the {int(total):,} parts {folder / start}*-of-{total}{end} are read; {first} is "
                "not among them"
            )
    name = next((name for name, places in folders.items() if len(places) > 1), None)
    if name is not None:
        places = ", ".join(str(place) for place in folders[name][:4])
        sentences.append(
            f"{name} is read from {len(folders[name]):,} folders ({places}); if they are versions of one data set, "
            "name one of them"
        )
    return sentences


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
