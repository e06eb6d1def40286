"""The published JSON of a split, written many members at a time."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

KEYS = ("image_path", "caption", "image_id")
ESCAPED = r'[\x00-\x1f"\\]'  # what JSON cannot have in a text as it is


class PublishedJson:
    """Writes a JSON list of {"image_path", "caption", "image_id"} to a file, one member per line.

    The bytes are those of `json.dumps` with ensure_ascii=False for each member.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")
        self.separator = b"[\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; if no error ended the block, the list in it is complete."""
        with self.file:
            if kind is None:
                self.file.write(b"\n]\n")

    def add(self, members: pa.Buffer | None) -> None:
        """Write some members as `joined_members` gives them."""
        if members is not None:
            self.file.write(self.separator)
            self.file.write(members)
            self.separator = b",\n"


def joined_members(table: pa.Table) -> pa.Buffer | None:
    """The members of a table with the columns KEYS, texts without null, as UTF-8; None for an empty table."""
    if not len(table):
        return None
    text = pa.large_string()  # 64-bit offsets: all members together may be long
    pieces: list[pa.Scalar | pa.Array] = []
    for number, key in enumerate(KEYS):
        before = ("{" if number == 0 else '", ') + f'"{key}": "'
        pieces += [pa.scalar(before, text), _escaped(table[key].combine_chunks().cast(text))]
    rows = pc.binary_join_element_wise(*pieces, pa.scalar('"}', text), pa.scalar("", text))
    ends = pa.array([0, len(rows)], pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(ends, rows), pa.scalar(",\n", text))[0].as_buffer()


def _escaped(texts: pa.Array) -> pa.Array:
    """The texts as they stand between the quotation marks of JSON."""
    odd = pc.match_substring_regex(texts, ESCAPED)
    if not pc.any(odd).as_py():
        return texts
    escaped = [json.dumps(text, ensure_ascii=False)[1:-1] for text in texts.filter(odd).to_pylist()]
    return pc.replace_with_mask(texts, odd, pa.array(escaped, pa.large_string()))
