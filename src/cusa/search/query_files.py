"""Many queries from a file: one text per line, or a table or JSON with a column for each part of a query."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cusa.annotations.delimited import delimited_rows, sniffed
from cusa.common.text import text_lines
from cusa.errors import ConfigurationError, DataError
from cusa.search.query import Query

STANDARD_INPUT = Path("-")
TABLES = (".csv", ".tsv", ".tab")
JSON_LINES = (".json", ".jsonl", ".ndjson")
KEYS = ("text", "image", "like", "weight", "not")


def read_queries(path: Path) -> list[Query]:
    """The queries of a file, in its order.

    In .csv and .tsv files the columns, and in .json and .jsonl files the keys, are `text`, `image` (the path of a
    picture), `like` (a row of the index), `weight` and `not` (a text; in JSON also a list of texts). Any other file
    has one text per line; blank lines are left out. The path `-` is such text from standard input. Raises DataError if
    the file cannot be read, has no query, or has a row that is not a query; the error names the line.
    """
    if path == STANDARD_INPUT:
        lines: Iterable[str] = (line.rstrip("\r\n") for line in sys.stdin)
        queries = [Query(text=line) for line in lines if line.strip()]
    else:
        name = path.name.lower().removesuffix(".gz")
        if name.endswith(TABLES):
            queries = [_query(place, row) for place, row in _table_rows(path)]
        elif name.endswith(JSON_LINES):
            queries = [_query(place, row) for place, row in _json_rows(path)]
        else:
            queries = [Query(text=line) for line in text_lines(path) if line.strip()]
    if not queries:
        raise DataError(f"{path} has no query; expected one text per line, or the columns {', '.join(KEYS)}.")
    return queries


def _table_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    rows = delimited_rows(path, sniffed(path))
    first = next(rows, None)
    names = [] if first is None else [cell.strip() for cell in first.cells]
    if unknown := [name for name in names if name not in KEYS]:
        raise DataError(
            f"{path} has the column {unknown[0]!r} in its first line; expected a heading of the columns "
            f"{', '.join(KEYS)}. A file with one text per line has the ending .txt."
        )
    for row in rows:
        place = f"{path}, line {row.line}"
        if row.reason is not None:
            raise DataError(f"{place} {row.reason}.")
        if len(row.cells) != len(names):
            raise DataError(f"{place} has {len(row.cells)} cells, but the heading has {len(names)}; quote commas.")
        yield place, {name: cell for name, cell in zip(names, row.cells, strict=True) if cell.strip()}


def _json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from cusa.annotations.sources.rows import json_rows
    from cusa.annotations.sources.source import MalformedRow

    for place, row in json_rows(path):
        if isinstance(row, MalformedRow):
            raise DataError(f"{row.place} {row.reason}.")
        if not isinstance(row, dict):
            raise DataError(f"{place} is a {type(row).__name__}; expected an object with the keys {', '.join(KEYS)}.")
        if unknown := [key for key in row if key not in KEYS]:
            raise DataError(f"{place} has the key {unknown[0]!r}; expected {', '.join(KEYS)}.")
        yield place, {key: value for key, value in row.items() if value is not None}


def _query(place: str, row: Mapping[str, Any]) -> Query:
    try:
        return Query(
            text=row.get("text"),
            image=row.get("image"),
            weight=_number(row["weight"], float, "weight") if "weight" in row else Query.weight,
            exclude=_texts(row.get("not")),
            like=_number(row["like"], int, "like") if "like" in row else None,
        )
    except ConfigurationError as error:
        raise DataError(f"{place}: {error}") from None


def _number(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, str):
        return value  # Query checks it
    try:
        return kind(value)
    except ValueError:
        raise ConfigurationError(f"`{name}` of a query is {value!r:.80}; expected a number.") from None


def _texts(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)
