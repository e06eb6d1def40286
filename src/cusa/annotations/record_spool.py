"""Records on disk while a data set is converted, so that memory does not grow with them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cusa.annotations.captions import clean_caption
from cusa.annotations.problems import Problems
from cusa.annotations.sources.source import LeftOut, MalformedRow, Record
from cusa.common.text import unstorable
from cusa.config.captions import PUBLISHED, CaptionCleaning
from cusa.config.dataset import SPLITS


class RecordSpool:
    """Records in an Arrow file. A batch is read when it is needed, and only the columns that are needed.

    `has_languages` says whether some records have a language. In memory are `split`, each record's split as an index
    into `split_names`, and `captioned`, whether it has a caption.
    """

    def __init__(
        self,
        path: Path,
        splits: list[np.ndarray],
        captioned: list[np.ndarray],
        names: list[str],
        has_languages: bool = False,
    ) -> None:
        self.path, self.split_names, self.has_languages = path, names, has_languages
        self.split, self.captioned = np.concatenate(splits), np.concatenate(captioned)
        self.starts = np.cumsum([0, *map(len, splits)])
        self.batch = lru_cache(maxsize=8)(self._batch)
        self.reader = cache(self._reader)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _reader(self, columns: tuple[str, ...]) -> pa.ipc.RecordBatchFileReader:
        options = pa.ipc.IpcReadOptions(included_fields=[SPOOLED.get_field_index(name) for name in columns])
        return pa.ipc.open_file(pa.OSFile(str(self.path)), options=options)

    def _batch(self, number: int, columns: tuple[str, ...]) -> pa.RecordBatch:
        return self.reader(columns).get_batch(number)

    def column(self, name: str) -> pa.ChunkedArray:
        """All values of one column."""
        batches = [self._batch(number, (name,)) for number in range(len(self.starts) - 1)]
        return pa.chunked_array([batch.column(0) for batch in batches], SPOOLED.field(name).type)

    def take(self, rows: np.ndarray, columns: list[str]) -> pa.Table:
        """The given rows in the given order. Only batches with one of these rows are read."""
        which = np.searchsorted(self.starts, rows, side="right") - 1
        order = np.argsort(which, kind="stable")
        numbers, first = np.unique(which[order], return_index=True)
        wanted = tuple(sorted(columns, key=SPOOLED.get_field_index))
        pieces = [
            self.batch(number, wanted).take(pa.array(rows[members] - self.starts[number]))
            for number, members in zip(numbers.tolist(), np.split(order, first[1:]), strict=False)
        ]
        back = np.empty(len(rows), dtype=np.int64)
        back[order] = np.arange(len(rows))
        schema = pa.schema([SPOOLED.field(name) for name in wanted])
        return pa.Table.from_batches(pieces, schema).take(pa.array(back))


SPOOLED = pa.schema(
    [
        ("image_id", pa.string()),
        ("image_path", pa.string()),
        ("label", pa.string()),
        ("caption", pa.string()),
        ("cleaned", pa.string()),
        ("caption_id", pa.int64()),
        ("place", pa.string()),
        ("language", pa.string()),
    ]
)


BLOCK_ROWS = 65_536
# What programs write into a table where there is no value, such as pandas and R. It may also be a caption.
NO_VALUE = frozenset({"nan", "none", "null", "n/a", "na", "nil", "<na>"})


def _unstorable(record: Record) -> str | None:
    """What in a record no table can store, as a sentence; formats of other packages may not look for it."""
    for key, value in zip(record._fields, record, strict=True):
        if isinstance(value, str) and (what := unstorable(value)):
            return f"{record.image_id!r} has {what} in its {key}"
    return None


def spool_records(
    records: Iterable[Record | MalformedRow | LeftOut],
    path: Path,
    problems: Problems,
    cleaning: CaptionCleaning = PUBLISHED,
) -> RecordSpool:
    """Write records with cleaned captions to an Arrow file.

    A caption that is empty after the clean-up is a problem, and only its image is written.
    """
    codes = {str(split): number for number, split in enumerate(SPLITS)}
    columns: list[list[Any]] = [[] for _ in SPOOLED]
    splits: list[int] = []
    has_languages = False
    split_parts, captioned_parts = [], []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SPOOLED) as writer:

        def flush() -> None:
            arrays = [pa.array(column, field.type) for column, field in zip(columns, SPOOLED, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=SPOOLED))
            split_parts.append(np.array(splits, dtype=np.int16))
            captioned_parts.append(arrays[SPOOLED.get_field_index("cleaned")].is_valid().to_numpy(zero_copy_only=False))
            for column in (*columns, splits):
                column.clear()

        for record in records:
            if isinstance(record, MalformedRow):
                problems.add(record.kind, f"{record.place} {record.reason}")
                continue
            if isinstance(record, LeftOut):
                problems.note("left_out", f"{record.place} {record.reason}")
                continue
            if what := _unstorable(record):
                problems.add("malformed_row", what)
                continue
            caption, cleaned = record.caption, None
            if caption is not None and not (cleaned := clean_caption(caption, cleaning)):
                problems.add("empty_caption", f"{record.image_id}: {caption!r}")
                caption = cleaned = None
            if caption is not None and caption.strip().lower() in NO_VALUE:
                problems.note("no_value", f"{record.image_id}: {caption!r}")
            texts = (record.image_id, record.image_path, record.label, caption, cleaned)
            row = (*texts, record.caption_id, record.place, record.language if caption is not None else None)
            has_languages = has_languages or record.language is not None
            for column, value in zip(columns, row, strict=True):
                column.append(value)
            splits.append(codes.setdefault(record.split, len(codes)))
            if len(splits) == BLOCK_ROWS:
                flush()
        flush()
    return RecordSpool(path, split_parts, captioned_parts, list(codes), has_languages)
