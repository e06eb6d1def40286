"""The columns of items.parquet: what an item is called, where its picture is, its captions, and the user's columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

FIELDS: Mapping[str, pa.DataType] = {
    "item": pa.string(),
    "path": pa.string(),
    "offset": pa.int64(),
    "size": pa.int64(),
    "captions": pa.list_(pa.string()),
}
UNREADABLE_SCHEMA = pa.schema([("item", pa.string()), ("reason", pa.string())])
OWN_SUFFIX = "_of_table"  # a column of the user's that is called as one of FIELDS gets this at its end


def items_table(
    items: Sequence[str],
    paths: Sequence[str | None] | None = None,
    offsets: Sequence[int | None] | None = None,
    sizes: Sequence[int | None] | None = None,
    captions: Sequence[Sequence[str]] | None = None,
    columns: Mapping[str, Any] | None = None,
) -> pa.Table:
    """A table of items, one row an embedding; what is None is null, or no caption, for every item.

    `items` are names, each of which occurs once. `paths` are files that hold pictures, with the picture's bytes at
    `offsets`, of length `sizes` in bytes; null for a file that is a picture as a whole. `columns` are more columns
    [rows], on which filters are built; a name of FIELDS gets the ending `_of_table`.
    """
    rows = len(items)
    nothing = [None] * rows
    given = (items, paths or nothing, offsets or nothing, sizes or nothing, captions or [[]] * rows)
    table = {name: pa.array(values, kind) for (name, kind), values in zip(FIELDS.items(), given, strict=True)}
    table |= {own_name(name): column_of(values) for name, values in (columns or {}).items()}
    return pa.table(table)


def own_name(column: object) -> str:
    """The name that a column of a user's table has in items.parquet; numbered columns are `column_{n}`."""
    name = f"column_{column}" if isinstance(column, int) else str(column)
    return f"{name}{OWN_SUFFIX}" if name in FIELDS else name


def column_of(values: Any) -> pa.Array:
    """Values as an Arrow array; values of several types become text."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array(map(_as_text, values), pa.string())


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)


def joined_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """The schema that the items of several parts have together: a column of several types is text, or wider numbers."""
    fields: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            fields[field.name] = _common(fields.get(field.name, field.type), field.type)
    return pa.schema(list(fields.items()))


def _common(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    if first == second or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    numbers = (pa.types.is_integer, pa.types.is_floating)
    if all(any(is_kind(kind) for is_kind in numbers) for kind in (first, second)):
        return pa.float64() if any(map(pa.types.is_floating, (first, second))) else pa.int64()
    if pa.types.is_list(first) and pa.types.is_list(second):
        return pa.list_(_common(first.value_type, second.value_type))
    return pa.string()


def cast_items(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the columns of `schema`, in its order and types; columns that it lacks are null."""
    arrays = []
    for field in schema:
        if field.name not in table.column_names:
            arrays.append(pa.nulls(len(table), field.type))
        else:
            arrays.append(_cast(table[field.name], field.type))
    return pa.table(arrays, schema=schema)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    if column.type == kind:
        return column
    try:
        return column.cast(kind)
    except pa.ArrowException:
        return pa.array(map(_as_text, column.to_pylist()), pa.string())
