"""Formats whose files are lists of independent rows: many rows are read at once.

A text of many rows is decoded and checked as columns, in this process or in another. If a row in it is odd, all its
rows are read one by one, so that problems are reported in the same way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from cusa.annotations.problems import Problems
from cusa.annotations.record_blocks import BLOCK_ROWS, RecordBlock, record_block, sound_columns
from cusa.annotations.sources.image_names import ImageNames
from cusa.annotations.sources.rows import decoded_line, is_json_lines, json_rows, require_list, row_of_line
from cusa.annotations.sources.source import MalformedRow, Record, Source
from cusa.common.json_stream import list_members, open_json
from cusa.common.text import open_text
from cusa.config.captions import CaptionCleaning

CHARACTERS = 1 << 22  # of a text that is decoded at once


class RowColumns(NamedTuple):
    """The records of some rows as columns. `image_ids` is None if the file of an image says its id."""

    image_ids: Sequence[str] | None
    image_paths: Sequence[str]
    captions: Sequence[str]


@dataclass(frozen=True)
class RowText:
    """The text of complete rows: members of a list, each followed by a comma, or lines; the last may lack its end."""

    text: str
    are_lines: bool

    def rows(self) -> list[Any] | None:
        """The rows; None if the text is not sound."""
        if not self.are_lines:
            return list_members(self.text)
        rows = [decoded_line(line) for line in self.text.split("\n") if line.strip()]
        return None if any(row is None for row in rows) else rows


class SoundRows(NamedTuple):
    """Rows in which nothing is odd: their number (lines, if they are lines), and their records as columns."""

    rows: int
    records: pa.RecordBatch


class RowReader(Protocol):
    """Reads texts of rows, some of them at once. `ahead` says how many texts it should have to read."""

    ahead: int

    def read(self, path: Path, text: RowText) -> Callable[[], SoundRows | None]:
        """Start to read a text of a file. The returned function waits for the rows; it returns None if a row is odd."""


class RowSource(Source):
    """The base of such formats. `encoding` is that of the files."""

    encoding: str | None = None

    def row_files(self) -> Iterator[tuple[str, Path]]:
        """Each split with its file, in the order of the records."""
        raise TypeError(f"{type(self).__name__} has to define row_files()")

    def row_records(self, split: str, path: Path, row: Any) -> Sequence[Record] | str:
        """The records of a row, or the reason why it is malformed. An id is empty if the file of an image says it."""
        raise TypeError(f"{type(self).__name__} has to define row_records()")

    def row_columns(self, path: Path, rows: Sequence[Any]) -> RowColumns | None:
        """The records of rows as columns, whose texts are still to be checked; None if a row is odd."""
        raise TypeError(f"{type(self).__name__} has to define row_columns()")

    def records(self) -> Iterator[Record | MalformedRow]:
        """Every record of every file, in the order of the files."""
        names = ImageNames()
        for split, path in self.row_files():
            for place, row in json_rows(path, self.encoding):
                yield from self._records(names, split, path, place, row)

    def record_blocks(self, reader: RowReader, problems: Problems, cleaning: CaptionCleaning) -> Iterator[RecordBlock]:
        """The same records in blocks, checked and with cleaned captions; problems are counted in their order."""
        names = ImageNames()
        odd: list[Record | MalformedRow] = []
        for split, path in self.row_files():
            for found in read_rows(path, self.encoding, reader):
                if isinstance(found, tuple):
                    odd += self._records(names, split, path, *found)
                    if len(odd) < BLOCK_ROWS:
                        continue
                if odd:
                    yield record_block(odd, problems, cleaning)
                    odd = []
                if isinstance(found, pa.RecordBatch):
                    yield RecordBlock(_with_ids(found, names), [split] * len(found))
        if odd:
            yield record_block(odd, problems, cleaning)

    def _records(
        self, names: ImageNames, split: str, path: Path, place: str, row: Any
    ) -> Iterator[Record | MalformedRow]:
        if isinstance(row, MalformedRow):
            yield row
        elif isinstance(found := self.row_records(split, path, row), str):
            yield MalformedRow(place, found)
        else:
            for record in found:
                yield record if record.image_id else record._replace(image_id=names.identity(record.image_path))


def read_text(source: RowSource, cleaning: CaptionCleaning, path: Path, text: RowText) -> SoundRows | None:
    """The records of a text of rows; None if something in it is odd."""
    if (rows := text.rows()) is None or (columns := source.row_columns(path, rows)) is None:
        return None
    records = sound_columns(*columns, cleaning)
    return None if records is None else SoundRows(_count(text, rows), records)


def read_rows(path: Path, encoding: str | None, reader: RowReader) -> Iterator[tuple[str, Any] | pa.RecordBatch]:
    """The rows of a JSON list or of JSON Lines: the records of many sound ones, or the place of one row and the row.

    Raises DataError as `json_rows` does.
    """
    return _lines(path, encoding, reader) if is_json_lines(path, encoding) else _members(path, encoding, reader)


def _members(path: Path, encoding: str | None, reader: RowReader) -> Iterator[tuple[str, Any] | pa.RecordBatch]:
    with open_json(path, encoding) as stream:
        require_list(stream)
        number = 0
        if stream.start_list():
            yield f"{path}, row {number}", stream.value()
            number += 1
            seam = stream.seam()
            ended = stream.ends_list()
            started: deque[tuple[RowText, Callable[[], SoundRows | None]]] = deque()
            while not ended:
                while seam and len(started) < reader.ahead and (members := stream.members_up_to(seam, CHARACTERS)):
                    text = RowText(members, are_lines=False)
                    started.append((text, reader.read(path, text)))
                if not started:
                    break
                text, wait = started.popleft()
                if (sound := wait()) is not None:
                    yield sound.records
                    number += sound.rows
                elif (rows := text.rows()) is not None:
                    for row in rows:
                        yield f"{path}, row {number}", row
                        number += 1
                else:
                    # The text was cut in the wrong place, or has an error: reading member by member shows which.
                    stream.put_back([text.text, *(later.text for later, _ in started)])
                    started.clear()
                    seam = None
            if not ended:
                for row in stream.more_members():
                    yield f"{path}, row {number}", row
                    number += 1
        stream.end()


def _lines(path: Path, encoding: str | None, reader: RowReader) -> Iterator[tuple[str, Any] | pa.RecordBatch]:
    number = 1
    started: deque[tuple[RowText, Callable[[], SoundRows | None]]] = deque()
    with open_text(path, encoding, newline=None) as file:
        texts = iter(lambda: file.read(CHARACTERS) + file.readline(), "")
        while True:
            while len(started) < reader.ahead and (lines := next(texts, "")):
                text = RowText(lines, are_lines=True)
                started.append((text, reader.read(path, text)))
            if not started:
                return
            text, wait = started.popleft()
            if (sound := wait()) is not None:
                yield sound.records
                number += sound.rows
                continue
            for line in text.text.removesuffix("\n").split("\n"):
                if line.strip():
                    place = f"{path}, line {number}"
                    yield place, row_of_line(place, line)
                number += 1


def _count(text: RowText, rows: Sequence[Any]) -> int:
    return text.text.removesuffix("\n").count("\n") + 1 if text.are_lines else len(rows)


def _with_ids(records: pa.RecordBatch, names: ImageNames) -> pa.RecordBatch:
    """The records, with the ids that their files say if they have none."""
    place = records.schema.get_field_index("image_id")
    if not records.column(place).null_count:
        return records
    # In the order of the records, each file once: its id is the same the next time.
    encoded = records["image_path"].dictionary_encode()
    ids = pa.array([names.identity(location) for location in encoded.dictionary.to_pylist()], pa.string())
    return records.set_column(place, records.schema.field(place), ids.take(encoded.indices))
