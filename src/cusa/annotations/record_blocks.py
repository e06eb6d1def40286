"""Blocks of records as columns: their captions cleaned, their texts checked.

A block with a problem is rare, so blocks are checked column by column, which is several times as fast as record by
record. Only a block with a problem is read again record by record, so that its problems are reported in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from cusa.annotations.captions import clean_caption, clean_captions
from cusa.annotations.problems import Problems
from cusa.annotations.sources.source import LeftOut, MalformedRow, Record
from cusa.common.text import unstorable
from cusa.config.captions import CaptionCleaning

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
# Programs such as pandas and R write these texts for a missing value. They may also be captions.
NO_VALUE = frozenset({"nan", "none", "null", "n/a", "na", "nil", "<na>"})


@dataclass(frozen=True)
class RecordBlock:
    """Some records: `batch` has the columns SPOOLED, `splits` the name of each record's split.

    `has_languages` is true if one of them has a language, also if the record has no caption.
    """

    batch: pa.RecordBatch
    splits: Sequence[str]
    has_languages: bool = False


def record_block(
    found: Sequence[Record | MalformedRow | LeftOut], problems: Problems, cleaning: CaptionCleaning
) -> RecordBlock:
    """The records that a source yielded, with cleaned captions.

    Malformed rows, and texts that no table can store, are counted as problems and left out. A caption that is empty
    after the clean-up is also a problem; its image is kept.
    """
    return _sound_block(found, problems, cleaning) or _block_by_records(found, problems, cleaning)


def sound_columns(
    image_ids: Sequence[str] | None, image_paths: Sequence[str], captions: Sequence[str], cleaning: CaptionCleaning
) -> pa.RecordBatch | None:
    """The columns SPOOLED of records that have a path, a caption and nothing else; None if something is wrong.

    Something is also wrong if a caption may stand for a cell without a value. `image_ids` None leaves ids empty.
    """
    if not (_are_storable(image_paths, captions) and (image_ids is None or _are_storable(image_ids))):
        return None
    cleaned = clean_captions(captions, cleaning)
    if "" in cleaned or _may_have_no_value(cleaned, cleaning):
        return None
    return _batch(image_id=image_ids, image_path=image_paths, caption=captions, cleaned=cleaned, count=len(cleaned))


def _sound_block(
    found: Sequence[Record | MalformedRow | LeftOut], problems: Problems, cleaning: CaptionCleaning
) -> RecordBlock | None:
    """The block if it has no problem and every record has a caption; else None."""
    if set(map(type, found)) != {Record}:
        return None
    columns: tuple[Sequence[Any], ...] = tuple(zip(*found, strict=True))
    split, image_id, image_path, caption, label, caption_id, place, language = columns
    optional = {"label": label, "place": place, "language": language}
    given = {name: values for name, values in optional.items() if values.count(None) < len(values)}
    present = ([value for value in values if value is not None] for values in given.values())
    if not _are_storable(split, image_id, image_path, caption, *present):
        return None
    cleaned = clean_captions(caption, cleaning)
    if "" in cleaned:
        return None
    if _may_have_no_value(cleaned, cleaning):
        for key, text in zip(image_id, caption, strict=True):
            _note_no_value(key, text, problems)
    if caption_id.count(None) < len(caption_id):
        given["caption_id"] = caption_id
    batch = _batch(
        image_id=image_id, image_path=image_path, caption=caption, cleaned=cleaned, count=len(found), **given
    )
    return RecordBlock(batch, split, "language" in given)


def _batch(count: int, **columns: Sequence[Any] | None) -> pa.RecordBatch:
    """The columns SPOOLED of `count` records; those that are not given, or None, are null."""
    arrays = [
        pa.nulls(count, field.type) if (values := columns.get(field.name)) is None else pa.array(values, field.type)
        for field in SPOOLED
    ]
    return pa.record_batch(arrays, schema=SPOOLED)


def _are_storable(*columns: Sequence[Any]) -> bool:
    """Whether all values are texts that Parquet and JSON can store."""
    return all(set(map(type, column)) <= {str} and unstorable("".join(column)) is None for column in columns)


def _may_have_no_value(cleaned: Sequence[str], cleaning: CaptionCleaning) -> bool:
    """Whether a caption, which is cleaned here, may be one of NO_VALUE: others may become the same."""
    return not _cleaned_no_value(cleaning).isdisjoint(map(str.lower, cleaned))


@cache
def _cleaned_no_value(cleaning: CaptionCleaning) -> frozenset[str]:
    return frozenset(clean_caption(text, cleaning).lower() for text in NO_VALUE)


def _note_no_value(image_id: str, caption: str, problems: Problems) -> None:
    if caption.strip().lower() in NO_VALUE:
        problems.note("no_value", f"{image_id}: {caption!r}")


def _block_by_records(
    found: Sequence[Record | MalformedRow | LeftOut], problems: Problems, cleaning: CaptionCleaning
) -> RecordBlock:
    """The block, with its problems counted in their order."""
    rows: list[tuple[Any, ...]] = []
    has_languages = False
    for record in found:
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
        if caption is not None:
            _note_no_value(record.image_id, caption, problems)
        texts = (record.split, record.image_id, record.image_path, record.label, caption, cleaned)
        rows.append((*texts, record.caption_id, record.place, record.language if caption is not None else None))
        has_languages = has_languages or record.language is not None
    splits, *columns = zip(*rows, strict=True) if rows else [()] * (1 + len(SPOOLED))
    batch = _batch(count=len(rows), **dict(zip(SPOOLED.names, columns, strict=True)))
    return RecordBlock(batch, splits, has_languages)


def _unstorable(record: Record) -> str | None:
    """A sentence about a text that no table can store; formats of other packages may not check for it."""
    for key, value in zip(record._fields, record, strict=True):
        if isinstance(value, str) and (what := unstorable(value)):
            return f"{record.image_id!r} has {what} in its {key}"
    return None
