"""Rows of Parquet files, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cusa.common.files import parquet_damage
from cusa.common.text import refuse_stand_in

READ_AHEAD = 1 << 20  # bytes


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


def _dicts(batch: pa.RecordBatch) -> list[dict[str, Any] | str]:
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError as error:
        if len(batch) == 1:
            return [f"has text that is not UTF-8 ({error.reason} at byte {error.start})"]
    return [row for number in range(len(batch)) for row in _dicts(batch.slice(number, 1))]
