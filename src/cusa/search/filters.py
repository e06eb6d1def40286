"""Filters: conditions on the columns of the items, and the rows that satisfy them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cusa.errors import ConfigurationError
from cusa.gallery.items import FIELDS

OWN_COLUMNS = tuple(FIELDS)  # of every gallery; the others come from the user's data
MOST_VALUES = 50  # of a column that is offered as a choice
BOUNDS = {">=": "at_least", "<=": "at_most", ">": "above", "<": "below"}
COMPARISONS = {
    "at_least": pc.greater_equal,
    "at_most": pc.less_equal,
    "above": pc.greater,
    "below": pc.less,
}


@dataclass(frozen=True)
class Range:
    """Limits of a number or a date; those that are None do not limit."""

    at_least: Any = None
    at_most: Any = None
    above: Any = None
    below: Any = None


Where = Mapping[str, Any]


def rows_where(items: pa.Table, where: Where) -> np.ndarray:
    """The items that satisfy every condition: bool [rows].

    `where` has, for each column, one value, a list of values of which one must be equal, or a Range of numbers or
    dates. None stands for a missing value. In a column of lists, one element must be equal. Values may be given as
    text, as a command line or a URL has them; they are read as the column's type says. Raises ConfigurationError if
    a column does not exist or a value does not fit its type.
    """
    allowed = np.ones(items.num_rows, dtype=bool)
    for name, condition in where.items():
        column = _column(items, name)
        if isinstance(condition, Range):
            allowed &= _in_range(name, column, condition)
        else:
            values = list(condition) if isinstance(condition, list | tuple | set | frozenset) else [condition]
            allowed &= _is_one_of(name, column, values)
    return allowed


def parse_where(texts: Iterable[str]) -> dict[str, Any]:
    """Conditions of a command line, `column=value` or `column>=number` (also <=, > and <), as `rows_where` reads them.

    Several values for one column are alternatives; several limits make a range. Raises ConfigurationError if a text
    is not a condition, or a column has both values and limits.
    """
    where: dict[str, Any] = {}
    for text in texts:
        match = re.fullmatch(r"\s*([^<>=]+?)\s*(>=|<=|=|>|<)\s*(.*?)\s*", text, flags=re.S)
        if match is None:
            raise ConfigurationError(
                f"--where {text!r} is not a condition; expected column=value, or column>=number (also <=, > and <)."
            )
        column, operator, value = match.groups()
        known = where.get(column)
        if operator == "=":
            if isinstance(known, Range):
                raise ConfigurationError(_both(column))
            where[column] = [*(known or []), value]
        else:
            if isinstance(known, list):
                raise ConfigurationError(_both(column))
            limits = {} if known is None else {name: limit for name, limit in vars(known).items() if limit is not None}
            where[column] = Range(**limits | {BOUNDS[operator]: value})
    return where


def choices(items: pa.Table, most: int = MOST_VALUES) -> dict[str, list[Any]]:
    """The values of each column that a reader can choose from, sorted: those of at most `most` different values.

    Columns of lists, and the columns that every gallery has, are left out.
    """
    found = {}
    for name in items.column_names:
        column = items[name]
        if name in OWN_COLUMNS or pa.types.is_nested(column.type):
            continue
        values = [value for value in pc.unique(_plain(column)).to_pylist() if value is not None]
        if 1 < len(values) <= most:
            found[name] = sorted(values)
    return found


def _both(column: str) -> str:
    return f"--where has a value and a limit for the column {column!r}; give values or limits, not both."


def _column(items: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in items.column_names:
        names = items.column_names
        alike = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {alike[0]!r}?" if alike else ""
        raise ConfigurationError(
            f"A filter names the column {name!r}, but the items have the columns {', '.join(names)}.{hint}"
        )
    return _plain(items[name])


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_one_of(name: str, column: pa.ChunkedArray, values: list[Any]) -> np.ndarray:
    if pa.types.is_null(column.type):  # no value is known
        return np.full(len(column), None in values)
    if not _is_list(column.type):
        wanted = pa.array([_typed(name, column.type, value) for value in values], type=column.type)
        return _booleans(pc.is_in(column, value_set=wanted))
    wanted = pa.array([_typed(name, column.type.value_type, value) for value in values], type=column.type.value_type)
    lists = column.combine_chunks()
    parents = pc.list_parent_indices(lists)
    found = np.zeros(len(column), dtype=bool)
    found[parents.to_numpy()[_booleans(pc.is_in(pc.list_flatten(lists), value_set=wanted))]] = True
    return found


def _in_range(name: str, column: pa.ChunkedArray, limits: Range) -> np.ndarray:
    if pa.types.is_null(column.type):
        return np.zeros(len(column), dtype=bool)
    if _is_text(column.type):
        column = _read_text(column)
    kind = column.type
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (numbers or pa.types.is_temporal(kind)):
        raise ConfigurationError(
            f"A filter limits the column {name!r}, which holds {_described(kind)}; limits are for numbers and dates. "
            f"Use {name}=VALUE."
        )
    allowed = np.ones(len(column), dtype=bool)
    for bound, compare in COMPARISONS.items():
        if (limit := getattr(limits, bound)) is not None:
            # A limit of whole numbers may lie between them.
            typed = _typed(name, pa.float64() if pa.types.is_integer(kind) else kind, limit)
            allowed &= _booleans(compare(column, typed))
    return allowed


def _read_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of text, such as those of a CSV file, as numbers or times where all its values are; else as it is."""
    filled = pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), None, column)
    for kind in (pa.float64(), pa.timestamp("us")):
        try:
            return filled.cast(kind)
        except pa.ArrowException:
            continue
    return column


def _typed(name: str, kind: pa.DataType, value: Any) -> pa.Scalar:
    """A value as a scalar of a column's type."""
    if value is None:
        return pa.scalar(None, type=kind)
    if isinstance(value, pa.Scalar):
        value = value.as_py()
    try:
        if _is_text(kind):
            return pa.scalar(str(value), type=kind)
        return pa.scalar(value.strip() if isinstance(value, str) else value).cast(kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise ConfigurationError(
            f"A filter compares the column {name!r} with {value!r:.80}, but it holds {_described(kind)}."
        ) from None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _described(kind: pa.DataType) -> str:
    if _is_text(kind):
        return "text"
    if pa.types.is_integer(kind):
        return "whole numbers"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "numbers"
    if pa.types.is_boolean(kind):
        return "true or false"
    if pa.types.is_temporal(kind):
        return f"dates or times ({kind})"
    return f"{kind}"


def _booleans(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A pyarrow column of booleans as numpy; missing ones are false."""
    booleans: np.ndarray = np.asarray(pc.fill_null(column, False).to_numpy(zero_copy_only=False), dtype=bool)
    return booleans
