"""Rows of Parquet files, a few at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cusa.common.files import parquet_damage
from cusa.common.text import refuse_pipe, refuse_stand_in

MAGIC = b"PAR1"
READ_AHEAD = 1 << 20  # bytes
# What Arrow raises for values that no object of Python holds: dates outside of its years, zones that it does not know.
NOT_IN_PYTHON = (ValueError, OverflowError, LookupError, pa.ArrowException)


def is_parquet(path: Path) -> bool:
    """Whether a file starts like Parquet, whatever its ending. Says nothing of what cannot be read.

    Raises DataError for a pipe.
    """
    refuse_pipe(path)
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def parquet_schema(path: Path) -> pa.Schema:
    """The Arrow schema of a Parquet file. Raises DataError if the file is not there or is damaged."""
    refuse_stand_in(path)
    with parquet_damage(path):
        return pq.read_schema(path)


def parquet_rows(
    path: Path, columns: Sequence[str] | None, batch_rows: int, row_groups: Sequence[int] | None = None
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The number of each row, from 0, and the row: a dict, or a text with the reason why it cannot be read.

    Only `columns` and `row_groups` are read, all if they are None; the numbers count the rows that are read. Memory
    holds `batch_rows` rows, however large the file's row groups are. Raises DataError if the file is not there or is
    damaged.
    """
    number = 0
    with parquet_damage(path), pq.ParquetFile(path, buffer_size=READ_AHEAD, pre_buffer=False) as file:
        names, groups = (None if wanted is None else list(wanted) for wanted in (columns, row_groups))
        for batch in file.iter_batches(batch_rows, row_groups=groups, columns=names):
            for row in _dicts(batch):
                yield number, row
                number += 1


@dataclass(frozen=True)
class _Unreadable:
    """The reason why a cell cannot be read."""

    reason: str


def _dicts(batch: pa.RecordBatch) -> Iterable[dict[str, Any] | str]:
    try:
        return list(batch.to_pylist())
    except NOT_IN_PYTHON:
        columns = [(name, _cells(column)) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
        return (_row({name: cells[number] for name, cells in columns}) for number in range(len(batch)))


def _row(cells: dict[str, Any]) -> dict[str, Any] | str:
    broken = next((cell for cell in cells.values() if isinstance(cell, _Unreadable)), None)
    return cells if broken is None else broken.reason


def _cells(column: pa.Array) -> list[Any]:
    try:
        return list(column.to_pylist())
    except NOT_IN_PYTHON:
        return [_cell(scalar) for scalar in column]


def _cell(scalar: pa.Scalar) -> Any:
    try:
        return _value(scalar)
    except UnicodeDecodeError as error:
        return _Unreadable(f"has text that is not UTF-8 ({error.reason} at byte {error.start})")


def _value(scalar: pa.Scalar) -> Any:
    """The value of a cell; as text if Python has no such value, for instance a date after the year 9999.

    Raises UnicodeDecodeError for text that is not UTF-8.
    """
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        raise
    except NOT_IN_PYTHON:
        if isinstance(scalar, pa.StructScalar):
            return {key: _value(scalar[key]) for key in scalar}
        return list(map(_value, scalar.values)) if isinstance(scalar, pa.ListScalar) else _text(scalar)


def _text(scalar: pa.Scalar) -> str:
    try:
        return str(scalar.cast(pa.string()))
    except NOT_IN_PYTHON:  # a zone that this system does not know
        return f"{scalar.type}: {getattr(scalar, 'value', 'cannot be read')}"
