"""The columns of items.parquet: what an item is called, where its picture is, its captions, and the user's columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from cusa.errors import DataError

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


def typed_items(table: pa.Table) -> pa.Table:
    """A table whose columns of FIELDS have their types. Other forms of the same type, as pandas writes them, are cast.

    Raises DataError, whose message continues a sentence about the file, for another type, and for an item or a caption
    that is null.
    """
    for place, (name, kind) in zip(map(table.column_names.index, FIELDS), FIELDS.items(), strict=True):
        column = table.column(place)
        if column.type == kind:
            continue
        try:
            cast = column.cast(kind) if _is_form_of(column.type, kind) else None
        except pa.ArrowException:
            cast = None
        if cast is None:
            raise DataError(f"has the type {_shown(column.type)} in the column `{name}`, expected {_shown(kind)}")
        table = table.set_column(place, name, cast)
    if count := table["item"].null_count:
        raise DataError(f"has {count:,} rows without a name in the column `item`, expected one in each row")
    if count := sum(chunk.flatten().null_count for chunk in table["captions"].chunks):
        raise DataError(f"has {count:,} nulls in the lists of the column `captions`, expected texts")
    return table


def _is_form_of(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of the type `found` are values of `wanted` in another form, such as integers with a decimal."""
    if pa.types.is_null(found):
        return True
    if pa.types.is_dictionary(found):
        return _is_form_of(found.value_type, wanted)
    if pa.types.is_list(wanted):
        lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        return any(is_kind(found) for is_kind in lists) and _is_form_of(found.value_type, wanted.value_type)
    texts, numbers = (pa.types.is_string, pa.types.is_large_string), (pa.types.is_integer, pa.types.is_floating)
    return any(is_kind(found) for is_kind in (texts if pa.types.is_string(wanted) else numbers))


def _shown(kind: pa.DataType) -> str:
    """The name of a type, without that of the field of a list, which is another one in each program."""
    return f"list<{_shown(kind.value_type)}>" if pa.types.is_list(kind) else str(kind)


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
