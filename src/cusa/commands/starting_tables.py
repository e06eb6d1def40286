"""`cusa init` for tables: the columns that are read, and the split of each row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from cusa.annotations.delimited import IMAGE_NAME, delimited_rows, sniffed
from cusa.annotations.sources.image_paths import image_path, without_prefix
from cusa.annotations.sources.rows import LIST_STARTS, identity, is_empty, only_name
from cusa.annotations.sources.source import MalformedRow
from cusa.annotations.table_columns import FoundColumns, find_columns
from cusa.annotations.table_rows import Reading, table_kind, table_rows
from cusa.commands.image_folders import image_folders, warn_of_split_folders
from cusa.commands.split_files import (
    FilesOfSplits,
    add_missing_splits,
    add_splits_of_column,
    draw_few,
    draw_splits,
    place_of,
)
from cusa.commands.starting_section import Given, Start
from cusa.config.data_files import TABLE_ENDINGS
from cusa.config.dataset import Split, split_named
from cusa.config.dataset_tables import Column
from cusa.errors import ConfigurationError

SAMPLED_ROWS = 500
SEVERAL = ("|", ";", "\n", "\t", "###", "</s>", "[SEP]", "<sep>")  # between captions that stand in one cell
LONGEST_SHOWN = 60  # characters
# What other programs leave in texts, and what it is.
DAMAGED = {
    re.compile(r"&(?:[a-z]{2,8}|#\d{2,5}|#x[0-9a-fA-F]{2,5});"): "entities of HTML (Python: html.unescape)",
    re.compile("\ufffd"): "U+FFFD, which stands where a program could not read a character",
    re.compile("[\u00c3\u00c2][\u0080-\u00bf]|\u00e2\u20ac"): "UTF-8 that was read as cp1252; export them again",
}
MOST = 0.8  # of the values have such a sign if it separates captions


def _rows(paths: Sequence[Path], reading: Reading) -> Iterator[dict[Column, Any] | MalformedRow]:
    return (row for path in paths for _, row in table_rows(path, None, reading))


def sampled_rows(paths: Sequence[Path], reading: Reading) -> list[dict[Column, Any]]:
    """The first rows of tables, by their columns; malformed ones are left out."""
    return [row for row in islice(_rows(paths, reading), SAMPLED_ROWS) if isinstance(row, dict)]


def _place(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else place_of(paths, TABLE_ENDINGS)


def odd_captions(rows: Sequence[Mapping[Any, Any]], captions: Sequence[Column]) -> list[str]:
    """Warnings of texts that look damaged, or like several captions in one."""
    return [*_damaged(rows, captions), *_several_in_a_cell(rows, captions)]


def _damaged(rows: Sequence[Mapping[Any, Any]], captions: Sequence[Column]) -> Iterator[str]:
    for column in captions:
        values = [value for row in rows if isinstance(value := row.get(column), str)]
        for sign, what in DAMAGED.items():
            if having := [value for value in values if sign.search(value)]:
                yield (
                    f"{len(having):,} of the first {len(values):,} values of `{column}` have {what}, for instance "
                    f"{having[0][:LONGEST_SHOWN]!r}; each stays as it is"
                )


def _several_in_a_cell(rows: Sequence[Mapping[Any, Any]], captions: Sequence[Column]) -> list[str]:
    """Warnings of columns whose values look like several captions, between which a sign stands."""
    warnings = []
    entity = next(iter(DAMAGED))
    for column in captions:
        values = [value for row in rows if isinstance(value := row.get(column), str) and value.strip()]
        values = [value for value in values if not value.startswith(LIST_STARTS)]
        values = [entity.sub("", value) for value in values]
        for sign in SEVERAL:
            having = [value for value in values if sum(" " in part.strip() for part in value.split(sign)) > 1]
            if len(having) >= max(2, MOST * len(values)):
                warnings.append(
                    f"{len(having):,} of the first {len(values):,} values of `{column}` have {sign!r} between words, "
                    'but each value is one caption; write several captions as a list, ["a dog", "a hound"], or in '
                    "rows of their own"
                )
                break
    return warnings


@dataclass(frozen=True)
class _Look:
    """The first rows of a table and the columns found in them. `heading` is empty if there is none."""

    rows: Sequence[dict[Column, Any]]
    found: FoundColumns
    heading: Sequence[str]
    reading: Reading
    reasons: Sequence[str]


def _look(paths: Sequence[Path], folders: Sequence[Path], given: Given, no_heading: str | None = None) -> _Look:
    """Look at the first rows of tables. `no_heading` is the reason why the first row is no heading, if that is known.

    Raises ConfigurationError if no row can be read, or a column is missing.
    """
    path, reasons, heading = paths[0], list[str](), list[str]()
    if table_kind(path, given.encoding) == "delimited":
        dialect = sniffed(path, encoding=given.encoding)
        first = next(delimited_rows(path, dialect, given.encoding), None)
        reasons.append(f"the separator is {dialect.separator!r}")
        if first is not None and any(IMAGE_NAME.search(cell.strip()) for cell in first.cells):
            no_heading = f"the first row, {', '.join(first.cells)}, holds an image"
        if no_heading is not None:
            reasons.append(f"heading is false: {no_heading}")
        elif first is not None:
            heading = [cell.strip() for cell in first.cells]
    reading = Reading(given.encoding, heading=None if no_heading is None else False)
    if not (rows := sampled_rows(paths, reading)):
        odd = next((row for row in _rows(paths, reading) if isinstance(row, MalformedRow)), None)
        what = "no rows" if odd is None else f"no row that can be read; the first one: {odd.place} {odd.reason}"
        raise ConfigurationError(f"{path} has {what}; expected at least one image with a caption.")
    found = find_columns(path, rows, folders)
    if found.image in heading and found.image_root is not None:
        name = (found.image_name or "{}").format(found.image)
        if Path(image_path(str(found.image_root), path, name)).is_file():
            return _look(paths, folders, given, f"`{found.image}` of the first row is the image {name}")
    if heading and "" in found.captions:
        found.warnings.append(
            f"the captions are in a column without a name: the heading is {', '.join(heading)!r}; if that is a title, "
            "remove the lines above the heading"
        )
    return _Look(rows, found, heading, reading, reasons)


def table_start(files: Mapping[Split | None, Sequence[Path]], given: Given) -> Start:
    """Tables, under None, or those of each split, of which those of train are looked at."""
    paths = files[None] if None in files else files["train"]
    path = paths[0]
    tables = [members[0] for members in files.values()]
    look = _look(paths, [Path(given.images)] if given.images else image_folders(tables), given)
    rows, found = look.rows, look.found
    section: dict[str, Any] = {"format": "table", "file": _place(paths)}
    if look.reading.heading is False:
        section["heading"] = False
    columns = {"image": found.image, "caption": found.captions if len(found.captions) > 1 else found.captions[0]}
    more = {"label": found.label, "language": found.language, "split": found.split}
    columns |= {key: name for key, name in more.items() if name is not None}
    section["columns"] = columns
    if found.image_name is not None:
        section["image_name"] = found.image_name
    few: set[str] = set()  # all images, if they are few
    if len(rows) < SAMPLED_ROWS:
        few = _images(rows, found)
    if None not in files:
        splits: FilesOfSplits = {split: list(members) for split, members in files.items() if split is not None}
        columns.pop("split", None)
        found.reasons = [reason for reason in found.reasons if not reason.startswith("columns.split")]
        del section["file"]
        section["annotations"] = {split: _place(members) for split, members in splits.items()}
        add_missing_splits(section, splits, found.reasons, found.warnings, few)
    elif found.split is None and len(rows) < SAMPLED_ROWS:
        draw_few(section, few, found.reasons, found.warnings)
    elif found.split is None:
        draw_splits(section, "no column", found.reasons)
    else:
        column = found.split
        values = (row.get(column, "") for row in _rows(paths, look.reading) if isinstance(row, dict))
        names = Counter("" if is_empty(value) else identity(value) for value in values)
        of_train = (row for row in rows if split_named(identity(row.get(column) or "")) == "train")
        add_splits_of_column(section, names, found.reasons, found.warnings, _images(of_train, found) if few else ())
    _number_equal_headings(columns, look.heading, found)
    found.warnings += odd_captions(rows, found.captions)
    if found.image_prefix is not None:
        section["image_prefix"] = found.image_prefix
    if given.images is None and found.image_root is not None and found.image_root != path.parent:
        section["image_root"] = str(found.image_root)
        if found.split is not None or None not in files:
            warn_of_split_folders(found.image_root, found.warnings)
    return Start(section, [*look.reasons, *found.reasons], found.warnings)


def _images(rows: Iterable[Mapping[Column, Any]], found: FoundColumns) -> set[str]:
    """The ids of the images that rows name."""
    images = (only_name(row.get(found.image)) for row in rows)
    named = (image for image in images if isinstance(image, str | int | float))
    return {without_prefix(identity(image), found.image_prefix) for image in named}


def _number_equal_headings(columns: dict[str, Any], heading: Sequence[str], found: FoundColumns) -> None:
    """Replace names that several columns of a heading have by numbers; captions are in all columns of such a name."""
    for key, value in columns.items():
        names = value if isinstance(value, list) else [value]
        if not any(heading.count(str(name)) > 1 for name in names):
            continue
        places = [place for place, name in enumerate(heading) if name in names]
        if key == "caption":
            found.warnings[:] = [each for each in found.warnings if not each.endswith("see columns.caption")]
        columns[key] = places if key == "caption" else places[0]
        shown = ", ".join(map(str, places if key == "caption" else places[:1]))
        found.reasons.append(f"columns.{key} is {shown}, counted from 0: several columns are called `{names[0]}`")
