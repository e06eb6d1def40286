"""Delimited text (CSV, TSV and similar files), whose separator and quoting are detected."""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from cusa.common.text import open_text, without_mark

SEPARATORS = (",", ";", "\t", "|")
END_OF_DOS = "\x1a"  # Ctrl-Z, which old programs write at the end of a file
SNIFFED = 1 << 16  # characters
SNIFFED_ROWS = 100
BLANKS_LOOKED_FOR = 10  # rows
IMAGE_NAME = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?|avif|hei[cf])$", re.IGNORECASE)
_EXCEL_SEPARATOR = re.compile(r"sep=(.)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """How cells are written. `quotes`: true follows RFC 4180, false takes quotation marks as text, null detects it.

    `blanks` is true if a blank follows each separator. Blanks around a separator are then no part of the cells.
    """

    separator: str
    quotes: bool | None = None
    blanks: bool = False


@dataclass(frozen=True)
class Row:
    """The cells of a row that starts in a line, or the reason why it cannot be read."""

    line: int
    cells: list[str]
    reason: str | None = None


class _Lines:
    """The lines of a file. The lines of the last row can be given back, and are then read again as separate rows."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines, self.waiting = iter(lines), deque[str]()
        self.number, self.taken = 0, list[str]()

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.waiting.popleft() if self.waiting else next(self.lines)
        self.number += 1
        line = line if self.taken else without_mark(line)
        self.taken.append(line)
        return line

    def give_back(self) -> None:
        """Give back all lines of the row but its first."""
        self.waiting.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1


def rows_of_lines(lines: Iterable[str], dialect: Dialect) -> Iterator[Row]:
    """Every row that is not blank. Each line belongs to exactly one row, so no open quotation mark takes in other rows.

    A quoted cell may contain line ends (RFC 4180). But if its lines look like rows, or its quotation mark is never
    closed, the mark was meant as text. In a TSV, the mark is then read as text. In other files, the row is reported as
    unreadable, and the next line is the next row.
    """
    source, separator = _Lines(lines), dialect.separator
    quoting: Literal[0, 3] = csv.QUOTE_NONE if dialect.quotes is False else csv.QUOTE_MINIMAL
    reader = csv.reader(source, delimiter=separator, quoting=quoting, strict=True, skipinitialspace=dialect.blanks)
    as_text = separator == "\t" and dialect.quotes is None
    width = 0
    while True:
        source.taken.clear()
        reason = None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells, reason = [], _reason(str(error), source.taken)
        taken = source.taken
        if len(taken) > 1:
            line = source.number - len(taken) + 1
            if reason is None and dialect.quotes is None and _look_like_rows(taken, separator, width):
                reason = (
                    f"has a quotation mark that line {source.number} closes, over lines that look like rows: double it "
                    "within a cell in quotation marks, or set dataset.quotes to false where quotation marks are text, "
                    "or to true where the cell has line ends"
                )
            if reason is not None:
                source.give_back()
        else:
            line = source.number
        if as_text and (reason is not None or (len(cells) != width and width and '"' in taken[0])):
            plain = taken[0].rstrip("\r\n").split(separator)
            if reason is not None or len(plain) == width:
                cells, reason = plain, None
        if cells or reason:
            width = width or len(cells)
            yield Row(line, [cell.rstrip(" ") for cell in cells] if dialect.blanks else cells, reason)


def _reason(error: str, taken: Sequence[str]) -> str:
    if "field limit" in error and len(taken) == 1:
        return f"has a cell of more than {csv.field_size_limit():,} characters"
    if "expected after" in error and len(taken) == 1:
        return (
            "has a quotation mark that ends before its cell does: double it, or set dataset.quotes to false where "
            "quotation marks are text"
        )
    return (
        "has a quotation mark that opens a cell, and no line closes it rightly: double it within a cell in quotation "
        "marks, or set dataset.quotes to false where quotation marks are text"
    )


def _look_like_rows(lines: Sequence[str], separator: str, width: int) -> bool:
    """Whether lines of one row look like rows of their own.

    Each row names an image in the same place, so one such line is enough. If the names have no endings, all lines must
    have as many cells as the heading.
    """
    first, *others = (line.rstrip("\r\n").split(separator) for line in lines)
    place = next((number for number, cell in enumerate(first) if _names_image(cell)), None)
    if place is not None:
        return any(len(cells) > place and _names_image(cells[place]) for cells in others)
    return width > 1 and all(len(cells) == width for cells in (first, *others))


def _names_image(cell: str) -> bool:
    return IMAGE_NAME.search(cell.strip().strip('"')) is not None


def delimited_rows(path: Path, dialect: Dialect, encoding: str | None = None) -> Iterator[Row]:
    """The rows of a file, the heading included. A first line `sep=;`, which Excel writes, is skipped.

    Raises DataError if the file is not text.
    """
    with open_text(path, encoding) as file:
        for row in rows_of_lines(file, dialect):
            if row.cells != [END_OF_DOS] and not (row.line == 1 and _is_excel_separator(row.cells, dialect.separator)):
                yield row


def _is_excel_separator(cells: Sequence[str], separator: str) -> bool:
    return _EXCEL_SEPARATOR.fullmatch(separator.join(cells)) is not None


def sniffed(
    path: Path,
    names: Sequence[str] = (),
    separator: str | None = None,
    quotes: bool | None = None,
    encoding: str | None = None,
) -> Dialect:
    """The dialect of a file, from its first lines.

    The separator is the usual one of the file's ending, if the heading then has all `names`; else one with which the
    heading has them; else the one with which most rows have as many cells as the first row.
    """
    with open_text(path, encoding) as file:
        start = file.read(SNIFFED)
    lines = list(io.StringIO(without_mark(start), newline=""))
    if len(start) == SNIFFED and len(lines) > 1:
        lines.pop()  # it has been cut
    if lines and (match := _EXCEL_SEPARATOR.fullmatch(lines[0])):
        separator, lines = separator or match[1], lines[1:]
    usual = "\t" if path.name.lower().removesuffix(".gz").endswith((".tsv", ".tab")) else ","
    if separator is None:
        order = (usual, *(other for other in SEPARATORS if other != usual))
        found = (each for each in order if names and set(names) <= {cell.strip() for cell in _first(lines, each)})
        separator = next(found, None) or max(order, key=lambda each: _fit(lines, each, quotes))
    rows = [row.cells for row in islice(rows_of_lines(lines, Dialect(separator, quotes)), BLANKS_LOOKED_FOR)]
    blanks = bool(rows) and separator != "\t" and (_has_blanks(rows[:1]) or _has_blanks(rows[1:]))
    return Dialect(separator, quotes, blanks)


def _has_blanks(rows: Sequence[Sequence[str]]) -> bool:
    """Whether a blank follows every separator: of the heading, or of each of the first rows after it."""
    after = [cell for cells in rows for cell in cells[1:]]
    return bool(after) and all(cell.startswith(" ") for cell in after)


def _first(lines: Sequence[str], separator: str) -> list[str]:
    return next((row.cells for row in rows_of_lines(lines, Dialect(separator))), [])


def _fit(lines: Sequence[str], separator: str, quotes: bool | None) -> float:
    """How well a separator fits; 0 if the first row has only one cell. Of equal values, `max` takes the first.

    Returns the share of rows that have as many cells as the first row, and the share of rows with an image's name.
    """
    rows = [row.cells for row in islice(rows_of_lines(lines, Dialect(separator, quotes)), SNIFFED_ROWS)]
    if not rows or len(rows[0]) < 2:
        return 0.0
    alike = sum(len(cells) == len(rows[0]) for cells in rows)
    return (alike + sum(any(map(_names_image, cells)) for cells in rows)) / len(rows)
