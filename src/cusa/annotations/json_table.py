"""The rows of a table in JSON: a list, an object a line, or one object in the ways in which people write tables.

An object is a table if its keys are the images, if its keys are the columns (as pandas' `to_json` writes them), or if
it has one list of rows (`{"data": [...]}`), or one for each split (`{"train": [...], "test": [...]}`). A row may be
wrapped as the viewer of Hugging Face gives it (`{"row_idx": 0, "row": {...}, "truncated_cells": []}`).
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

from cusa.annotations.delimited import IMAGE_NAME
from cusa.annotations.sources.rows import CAPTION_KEYS, captions_in, is_json_lines, json_rows
from cusa.annotations.sources.source import MalformedRow
from cusa.common.json_stream import JsonStream, open_json
from cusa.config.dataset_section import split_named
from cusa.config.dataset_tables import Column, Columns
from cusa.errors import DataError

log = logging.getLogger(__name__)

LISTS_OF_CAPTIONS = ("captions", "texts", "sentences")
LOOKED_AT = 100  # members of a list that say what the list is
VIEWED = frozenset({"row_idx", "row", "truncated_cells"})  # the keys of a row in Hugging Face's viewer
Rows = Iterator[tuple[str, dict[Column, Any] | MalformedRow]]


def json_table(path: Path, columns: Columns, encoding: str | None) -> Rows:
    """The place of every row, and the row by its columns, or a MalformedRow with the reason.

    Raises DataError if the file is not JSON, or is an object that is no table.
    """
    with open_json(path, encoding) as stream:
        kind = stream.kind
    if kind == "object" and not is_json_lines(path, encoding):
        yield from _rows_of_object(path, columns, encoding)
        return
    for place, row in json_rows(path, encoding):
        yield place, _row(place, row)


def _row(place: str, row: Any) -> dict[Column, Any] | MalformedRow:
    if isinstance(row, dict):
        cut = row.get("truncated_cells")
        if cut and _unwrapped(row) is not row:
            return MalformedRow(place, f"has cells that the viewer has cut off ({', '.join(map(str, cut))})")
        found: dict[Column, Any] = _unwrapped(row)
        return found
    if isinstance(row, MalformedRow):
        return row
    if not isinstance(row, list):
        return MalformedRow(place, f"is a {type(row).__name__}, expected an object with the columns")
    if any(isinstance(cell, dict) for cell in row):
        return MalformedRow(place, "is a list of objects, but rows stand in one list (`jq flatten FILE` joins them)")
    return MalformedRow(
        place,
        "is a list of cells without the names of their columns, expected an object with the columns; pandas writes "
        "such objects with to_json(orient='records')",
    )


def _unwrapped(row: Any) -> Any:
    """The row in what the viewer of Hugging Face gives for one; anything else as it is."""
    is_wrapped = isinstance(row, dict) and row.keys() <= VIEWED and isinstance(row.get("row"), dict)
    return row["row"] if is_wrapped else row


def _rows_of_object(path: Path, columns: Columns, encoding: str | None) -> Rows:
    with open_json(path, encoding) as stream:
        entries = ((key, _start_of_value(stream)) for key in stream.entries())
        first = next((entry for entry in entries if entry[1] != []), None)  # an empty list says nothing
    if first is None:
        return
    if first[0] == "columns" and isinstance(first[1], list):
        yield from _rows_beside_columns(path, encoding, first)
    elif _is_keyed_by_image(*first, columns):
        yield from _rows_by_image(path, columns, encoding)
    elif _is_column(first[1]):
        yield from _rows_of_columns(path, encoding)
    else:
        yield from _rows_of_lists(path, columns, encoding, first)


def _start_of_value(stream: JsonStream) -> Any:
    """The value that comes next; of a list its first members."""
    return list(islice(stream.members(), LOOKED_AT)) if stream.kind == "list" else stream.value()


def _rows_by_image(path: Path, columns: Columns, encoding: str | None) -> Rows:
    """The rows of an object that has the images as keys, and captions or objects with captions as values."""
    with open_json(path, encoding) as stream:
        for number, key in enumerate(stream.entries()):
            place, value = f"{path}, entry {number} (`{key}`)", stream.value()
            if isinstance(value, dict):
                yield place, {columns.image: key, **value}
            else:
                yield place, {columns.image: key, columns.captions[0]: value}
        stream.end()


def _rows_of_columns(path: Path, encoding: str | None) -> Rows:
    """The rows of an object that has the columns as keys, and a list or an object by row numbers as each value."""
    found: dict[str, list[Any]] = {}
    order: list[str] | None = None
    with open_json(path, encoding) as stream:
        for key in stream.entries():
            value = stream.value()
            if isinstance(value, dict) and value:
                order = order or list(value)
                if value.keys() != set(order):
                    raise DataError(f"{path} has columns whose rows differ: `{key}` and the first one.{_AS_RECORDS}")
                value = [value[row] for row in order]
            if not isinstance(value, list):
                raise DataError(f"{path} has the columns as its keys, but `{key}` is no list.{_AS_RECORDS}")
            found[key] = value
        stream.end()
    if len({len(cells) for cells in found.values()}) > 1:
        lengths = ", ".join(f"{key} {len(cells):,}" for key, cells in found.items())
        raise DataError(f"{path} has the columns as its keys, but they differ in length ({lengths}).{_AS_RECORDS}")
    for number, cells in enumerate(zip(*found.values(), strict=True)):
        yield f"{path}, row {number}", dict(zip(found, cells, strict=True))


def _rows_beside_columns(path: Path, encoding: str | None, first: tuple[str, Any]) -> Rows:
    """The rows of an object with the names of the columns in `columns` and lists of cells in `data`."""
    names: list[Any] = []
    has_data = False
    with open_json(path, encoding) as stream:
        for key in stream.entries():
            if key == "columns":
                names = stream.value()
            elif key == "data" and stream.kind == "list":
                has_data = True
                for number, cells in enumerate(stream.members()):
                    place = f"{path}, row {number} of `data`"
                    if isinstance(cells, list) and len(cells) == len(names):
                        yield place, dict(zip(names, cells, strict=True))
                    else:
                        yield place, MalformedRow(place, f"is no list of {len(names)} cells, one for each column")
            else:
                stream.skip()
        if not has_data:
            raise _no_table(path, *first)
        stream.end()


_AS_RECORDS = " Expected a value of each column for each row; pandas writes rows with to_json(orient='records')."


def _rows_of_lists(path: Path, columns: Columns, encoding: str | None, first: tuple[str, Any]) -> Rows:
    """The rows of the only list of rows in an object, or of those of the splits, which get a column `split`."""
    lists: list[str] = []
    others: dict[str, int] = {}  # the lists of objects that are no rows, and how many each has
    total, found = None, 0
    with open_json(path, encoding) as stream:
        for key in stream.entries():
            if key == "num_rows_total":  # of the viewer of Hugging Face
                total = stream.value()
                continue
            if stream.kind != "list":
                stream.skip()
                continue
            members = stream.members()
            member = next(members, None)
            if key == "images" or (key == "annotations" and not _names_a_file(member)):  # as COCO has them
                raise _no_table(path, *first)
            if not (isinstance(member, dict) and _names_its_image(_unwrapped(member), columns)):
                count = sum(1 for _ in members)
                others |= {key: count} if isinstance(member, dict) else {}
                continue
            lists.append(key)
            if len(lists) > 1 and None in map(split_named, lists):
                raise DataError(
                    f"{path} has several lists of rows, `{lists[0]}` and `{key}`, whose keys are not names of splits."
                    f"{_taking(path, lists[0])}"
                )
            for row in _rows_of_list(path, key, chain([member], members)):
                found += 1
                yield row
        if not lists:
            raise _no_table(path, *first, max(others, key=lambda key: others[key], default=None))
        stream.end()
    if isinstance(total, int) and total > found:
        _tell_of_a_page(path, found, total)


@cache
def _tell_of_a_page(path: Path, found: int, total: int) -> None:
    log.warning(
        "%s has %s of %s rows, by its `num_rows_total`: the viewer of Hugging Face gives 100 at a time; download the "
        "Parquet files of the data set for all of them.",
        path,
        f"{found:,}",
        f"{total:,}",
    )


def _rows_of_list(path: Path, key: str, members: Iterable[Any]) -> Rows:
    """The rows of a list; with a column `split` if its key is the name of one."""
    split: dict[Column, Any] = {} if split_named(key) is None else {"split": key}
    for number, member in enumerate(members):
        place = f"{path}, row {number} of `{key}`"
        row = _row(place, member)
        yield place, row if isinstance(row, MalformedRow) else {**split, **row}


def _no_table(path: Path, key: str, value: Any, longest: str | None = None) -> DataError:
    """The error about an object that starts with a key and a value. `longest` is its longest list of objects."""
    how = _how_to_get_rows(path, key, value) if longest is None else _taking(path, longest)
    return DataError(
        f"{path} is one JSON object that starts with the key `{key}`. Expected a list of rows, an object a line, or an "
        "object that has the images as keys and their captions as values, the columns as keys, or one list of rows; "
        f"the formats `coco` and `karpathy` read the objects of those projects.{how}"
    )


def _how_to_get_rows(path: Path, key: str, value: Any) -> str:
    """A sentence on what makes rows of an object, by its first key and the start of its value."""
    if key == "images":  # of COCO or Karpathy
        return ""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return _taking(path, key)
    if isinstance(value, list | dict):
        return ""
    command = f"jq -c . {shlex.quote(path.name)} > rows.jsonl"
    return f" If it has several objects after one another, `{command}` writes each into a line."


def _taking(path: Path, key: str) -> str:
    what = shlex.quote(f".{key}" if key.isidentifier() else f".[{json.dumps(key)}]")
    return f" `jq {what} {shlex.quote(path.name)} > rows.json` takes the list out of it."


def _is_keyed_by_image(key: str, value: Any, columns: Columns) -> bool:
    if key in [column for _, column in columns.named()]:
        return False
    if isinstance(value, dict):
        captions = {*columns.captions, *CAPTION_KEYS, *LISTS_OF_CAPTIONS}
        return bool(IMAGE_NAME.search(key)) or not captions.isdisjoint(value)
    if captions_in({"": value}, "")[1] is not None:
        return False
    if isinstance(value, list):
        if any(isinstance(row, dict) and _names_its_image(row, columns) for row in value):
            return False  # rows under a key such as `data`
        if value and all(isinstance(cell, str) and IMAGE_NAME.search(cell) for cell in value):
            return False  # the column of the images
    return bool(IMAGE_NAME.search(key)) or isinstance(value, list) or _is_number(key)


def _is_column(value: Any) -> bool:
    """Whether a value has a cell for each row: in a list, or in an object by the numbers of the rows."""
    cells = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(cells, list) or not cells:
        return False
    members = (member for cell in cells for member in (cell if isinstance(cell, list) else [cell]))
    return not any(isinstance(member, dict) for member in members)


def _is_number(key: str) -> bool:
    """Whether a key is an image's number, perhaps after a short name: `17`, `COCO_val2014_000000391895`."""
    return sum(map(str.isdecimal, key)) * 2 > len(key) and "." not in key  # 1.0 is a version


def _names_its_image(row: dict[str, Any], columns: Columns) -> bool:
    """Whether an object says of which image it is, as a row does and one of several captions of an image does not."""
    return columns.image in row or "image_id" in row or _names_a_file(row)


def _names_a_file(row: Any) -> bool:
    """Whether a value of an object looks like the name of an image file."""
    values = row.values() if isinstance(row, dict) else ()
    return any(isinstance(value, str) and IMAGE_NAME.search(value) for value in values)
