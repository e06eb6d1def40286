"""Records on disk while a data set is converted, so that memory does not grow with them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from cusa.annotations.problems import Problems
from cusa.annotations.record_blocks import BLOCK_ROWS, SPOOLED, RecordBlock, record_block
from cusa.annotations.sources.source import LeftOut, MalformedRow, Record
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
        chunks = []
        for number in range(len(self.starts) - 1):
            values = self._batch(number, (name,)).column(0)
            # Two arrays are copied to one, which leaves the memory that the batch has for its other columns.
            chunks.append(pa.concat_arrays([values, values.slice(0, 0)]))
        return pa.chunked_array(chunks, SPOOLED.field(name).type)

    def has_values(self, name: str) -> bool:
        """Whether a column has any value."""
        batches = (self._batch(number, (name,)).column(0) for number in range(len(self.starts) - 1))
        return any(values.null_count < len(values) for values in batches)

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


def spool_records(
    records: Iterable[Record | MalformedRow | LeftOut],
    path: Path,
    problems: Problems,
    cleaning: CaptionCleaning = PUBLISHED,
) -> RecordSpool:
    """Write records with cleaned captions to an Arrow file; see `record_block` for what is left out."""
    source = iter(records)
    blocks = iter(lambda: list(islice(source, BLOCK_ROWS)), [])
    return spool_blocks((record_block(found, problems, cleaning) for found in blocks), path)


def spool_blocks(blocks: Iterable[RecordBlock], path: Path) -> RecordSpool:
    """Write blocks of records to an Arrow file."""
    codes = {str(split): number for number, split in enumerate(SPLITS)}
    splits, captioned, has_languages = [np.empty(0, np.int16)], [np.empty(0, bool)], False
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SPOOLED) as writer:
        # There is a batch, even if there is no record.
        writer.write_batch(pa.RecordBatch.from_pylist([], schema=SPOOLED))
        for block in blocks:
            writer.write_batch(block.batch)
            for split in dict.fromkeys(block.splits):
                codes.setdefault(split, len(codes))
            splits.append(np.fromiter(map(codes.__getitem__, block.splits), np.int16, len(block.splits)))
            captioned.append(block.batch["cleaned"].is_valid().to_numpy(zero_copy_only=False))
            has_languages = has_languages or block.has_languages
    return RecordSpool(path, splits, captioned, list(codes), has_languages)
