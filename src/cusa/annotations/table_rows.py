"""The rows of a table file: delimited text, JSON or Parquet, distinguished by the file's content."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cusa.annotations.delimited import IMAGE_NAME, delimited_rows, sniffed
from cusa.annotations.json_table import json_table
from cusa.annotations.sources.parquet_rows import MAGIC, parquet_rows, parquet_schema
from cusa.annotations.sources.source import MalformedRow
from cusa.common.text import open_bytes, open_text, refuse_stand_in
from cusa.config.data_files import JSON_ENDINGS
from cusa.config.dataset_tables import Column, Columns
from cusa.errors import DataError

PARQUET_ROWS = 8192
# A CSV may start with a bracket too, but hardly with two.
# A list of mappings; or a mapping, in a file that is named as YAML.
_YAML_LIST = re.compile(r"(\s*#[^\n]*\n|---[^\n]*\n|\s)*-\s+[\w\"']+\s*:(\s[^\n]*)?\n\s+[\w\"']+\s*:")
_YAML_MAPPING = re.compile(r"(\s*#[^\n]*\n|---[^\n]*\n|\s)*[^,;\t|\n]+:(\s|$)")
_RULE = re.compile(r"[-\s|:+]*---[-\s|:+]*")  # the line below the heading in Markdown, or in a database's answer
_JSON_START = re.compile(r"\s*(\[\s*[\[{]|\[\s*\]|\{\s*\")")


@dataclass(frozen=True)
class Reading:
    """How a table is read if it does not say it itself: the keys of that name of TableDataset."""

    encoding: str | None = None
    separator: str | None = None
    quotes: bool | None = None
    heading: bool | None = None


def table_kind(path: Path, encoding: str | None = None) -> str:
    """The kind of a table file: `parquet`, `json` (a list, JSON Lines or an object) or `delimited`."""
    with open_bytes(path) as file:
        if file.read(len(MAGIC)) == MAGIC:
            return "parquet"
    name = path.name.lower()
    if name.removesuffix(".gz").endswith(".parquet"):
        refuse_stand_in(path)
        raise DataError(f"{path} is not a complete Parquet file (it does not start like one).")
    with open_text(path, encoding) as text:
        start = text.read(4096)
    if name.endswith(JSON_ENDINGS) or _JSON_START.match(start):
        return "json"
    if _YAML_LIST.match(start) or (name.endswith((".yaml", ".yml")) and _YAML_MAPPING.match(start)):
        raise DataError(f"{path} is YAML, it seems; write the rows as JSON or CSV. {_FROM_YAML}")
    return "delimited"


_FROM_YAML = "In Python: import json, yaml; json.dump(yaml.safe_load(open('rows.yaml')), open('rows.json', 'w'))"


def table_rows(
    path: Path, columns: Columns | None = None, reading: Reading | None = None
) -> Iterator[tuple[str, dict[Column, Any] | MalformedRow]]:
    """The place of every row, and the row by its columns, or a MalformedRow with the reason.

    Only `columns` are read, all if they are None: by the names of the heading, or by their numbers if there is
    none. `reading` is None for tables that no key describes. Raises DataError if a column is missing or the file is
    damaged.
    """
    has_keys, reading = reading is not None, reading or Reading()
    kind = table_kind(path, reading.encoding)
    if kind == "parquet":
        yield from _parquet_rows(path, columns)
    elif kind == "json":
        yield from json_table(path, columns or Columns(), reading.encoding)
    else:
        yield from _delimited_rows(path, columns, reading, has_keys)


def _delimited_rows(
    path: Path, columns: Columns | None, reading: Reading, has_keys: bool
) -> Iterator[tuple[str, dict[Column, Any] | MalformedRow]]:
    names = [column for _, column in columns.named() if isinstance(column, str)] if columns else []
    wanted = names if reading.heading is not False else []
    rows = delimited_rows(
        path, sniffed(path, wanted, reading.separator, reading.quotes, reading.encoding), reading.encoding
    )
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path} is empty; expected a heading and rows.")
    if first.reason is not None:
        raise DataError(f"{path}, line {first.line} {first.reason}.")
    cells = [cell.strip() for cell in first.cells]
    if reading.heading is False:
        positions = _positions(path, columns, list[Column](range(len(cells))))
        yield f"{path}, line {first.line}", {key: first.cells[place] for key, place in positions}
    else:
        if reading.heading is None:
            _require_heading(path, columns, cells, has_keys)
        positions = _positions(path, columns, cells)
    for number, row in enumerate(rows):
        place = f"{path}, line {row.line}"
        if number == 0 and _RULE.fullmatch("|".join(row.cells)):
            raise DataError(
                f"{place} is a rule below the heading, as tables in Markdown and printed answers of databases have; "
                "write the table as CSV, without this line and without bars around the cells."
            )
        if row.reason is not None:
            yield place, MalformedRow(place, row.reason)
        elif len(row.cells) != len(cells):
            counts = f"({len(row.cells)}, not {len(cells)})"
            advice = "every column needs a name, and a cell that holds the separator needs quotation marks"
            if len(cells) == 1:
                advice = f"the heading is `{cells[0][:60]}`; if that is a title or a remark, remove the lines above it"
            yield place, MalformedRow(place, f"has more or fewer cells than the heading {counts}: {advice}")
        else:
            found = row.cells
            yield place, {key: found[position] for key, position in positions}


def _require_heading(path: Path, columns: Columns | None, cells: list[str], has_keys: bool) -> None:
    """Refuse a first row that holds an image, which would be lost as a heading."""
    if columns is not None and isinstance(columns.image, str) and columns.image in cells:
        return
    if any(IMAGE_NAME.search(cell) for cell in cells):
        advice = (
            "Set dataset.heading to false and number the columns from 0, for instance columns: {image: 0, caption: 1}; "
            "or to true if it is a heading."
            if has_keys
            else "Write a first line above it with the names of the columns."
        )
        raise DataError(f"{path} has no heading, it seems: its first row is {', '.join(cells)}. {advice}")


def _positions(path: Path, columns: Columns | None, names: Sequence[Column]) -> list[tuple[Column, int]]:
    """The key of each column that is read, and its place in a row."""
    if columns is None:
        # Of equal names, the first has the name and the others have their numbers.
        return [(name if names.index(name) == place else place, place) for place, name in enumerate(names)]
    found: list[tuple[Column, int]] = []
    for key, column in columns.named():
        if isinstance(column, int) and 0 <= column < len(names):
            found.append((column, column))
        elif names.count(column) > 1:
            places = ", ".join(str(place) for place, name in enumerate(names) if name == column)
            raise DataError(
                f"{path} has {names.count(column)} columns `{column}`; say by its number which one is "
                f"dataset.columns.{key}: {places}."
            )
        elif column in names:
            found.append((column, names.index(column)))
        else:
            shown = ", ".join(map(str, names)) if len(names) > 1 else f"one column, `{names[0]}`"
            shown = f"the columns {shown}" if len(names) > 1 else shown
            raise DataError(
                f"{path} has {shown}, but not {_lacking(columns, names)}; correct the mapping"
                + ("." if len(names) > 1 else ", or dataset.separator, the character between the cells.")
            )
    return found


def _lacking(columns: Columns, names: Sequence[Column]) -> str:
    missing = [(key, column) for key, column in columns.named() if column not in names]
    missing = [(key, column) for key, column in missing if not (isinstance(column, int) and 0 <= column < len(names))]
    return ", ".join(f"dataset.columns.{key} `{column}`" for key, column in missing)


def _parquet_rows(path: Path, columns: Columns | None) -> Iterator[tuple[str, dict[Column, Any] | MalformedRow]]:
    names = parquet_schema(path).names
    positions = _positions(path, columns, names)
    wanted = list(dict.fromkeys(names[place] for _, place in positions))
    for number, row in parquet_rows(path, wanted, PARQUET_ROWS):
        place = f"{path}, row {number}"
        if isinstance(row, str):
            yield place, MalformedRow(place, row)
        else:
            yield place, {key: row[names[position]] for key, position in positions}
