"""Hits as a table of text, for people."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from cusa.search.searcher import Hit

ITEM_SHARE = 0.4  # of the width, at most, for the names of the items
DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they reorder what follows
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def table_lines(hits: Sequence[Hit], width: int | None = None) -> Iterator[str]:
    """The lines of a table of hits, cut to `width` columns of a terminal; None cuts nothing.

    Control characters in names and captions are replaced, so that none of them reaches a terminal.
    """
    rows = [("", "score", "row", "item", "captions")]
    for rank, hit in enumerate(hits, start=1):
        captions = [] if hit.captions == (hit.item,) else list(hit.captions)  # the captions of a text are the text
        note = [] if hit.duplicate_of is None else [f"(as row {hit.duplicate_of})"]
        rows.append((str(rank), f"{hit.score:.3f}", str(hit.row), printable(hit.item), printable("; ".join(captions))))
        rows[-1] = (*rows[-1][:4], " ".join([*note, rows[-1][4]]).strip())
    widths = [max(columns_of(row[place]) for row in rows) for place in range(4)]
    if width is not None:
        widths[3] = min(widths[3], max(len("item"), int(ITEM_SHARE * width)))
    for row in rows:
        numbers = " ".join(f"{cell:>{cells}}" for cell, cells in zip(row[:3], widths[:3], strict=True))
        line = f"{numbers}  {padded(row[3], widths[3])}  {row[4]}".rstrip()
        yield line if width is None else cut(line, width)


def printable(text: str) -> str:
    """A text without control characters and ends of lines: each becomes a blank."""
    return "".join(" " if _controls(character) else character for character in text)


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes: Chinese, Japanese and Korean characters and emoji take two."""
    return sum(_columns(character) for character in text)


def cut(text: str, width: int) -> str:
    """A text that takes at most `width` columns; one that was cut ends in an ellipsis."""
    if columns_of(text) <= width:
        return text
    kept, taken = [], 1
    for character in text:
        taken += _columns(character)
        if taken > width:
            break
        kept.append(character)
    return "".join(kept) + ELLIPSIS


def padded(text: str, width: int) -> str:
    """A text cut and filled with blanks to `width` columns."""
    text = cut(text, width)
    return text + " " * (width - columns_of(text))


def _controls(character: str) -> bool:
    return character in DIRECTIONS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
