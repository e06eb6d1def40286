"""Parquet files with the bytes of the pictures, as Hugging Face's datasets has them, read in small batches.

A picture is a value of bytes, or a struct {bytes, path}; if its bytes are null, the file at its path is the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cusa.annotations.sources.image_paths import image_path, without_prefix
from cusa.annotations.sources.packed import OTHER_ENDING, PackedSource, ending_of
from cusa.annotations.sources.parquet_rows import parquet_rows, parquet_schema
from cusa.annotations.sources.rows import captions_of, language_of, malformed
from cusa.annotations.sources.rows import identity as identity_of
from cusa.annotations.sources.source import MalformedRow, Record
from cusa.common.files import parquet_damage
from cusa.common.images import picture_size
from cusa.common.text import refuse_stand_in
from cusa.config.dataset import ParquetDataset, Split
from cusa.errors import DataError

SETTINGS = ParquetDataset
BATCH_ROWS = 32
LOOKED_AT = 20  # values, to see whether bytes are pictures
MOST_ROWS = 100_000  # in which they are looked for; those without a value cost nothing


class ParquetSource(PackedSource):
    """Reads the pictures' column and the columns that `columns` names.

    An image's id is that of its column; else the path in its struct if no two rows have the same one; else the
    digest of its bytes, so that rows with the same picture are captions of one image.
    """

    dataset: ParquetDataset

    def file_records(self, path: Path, split: Split | None) -> Iterator[Record | MalformedRow]:
        """Every caption of every row, in file order."""
        _require_pictures(path, self.dataset)
        wanted = list(dict.fromkeys(str(name) for _, name in self.dataset.columns.named()))
        for number, row in parquet_rows(path, wanted, BATCH_ROWS):
            place = f"{path}, row {number}"
            if isinstance(row, str):
                yield MalformedRow(place, row)
            else:
                yield from self._row_records(row, place, path, split)

    def _row_records(
        self, row: dict[str, Any], place: str, path: Path, split: Split | None
    ) -> Iterator[Record | MalformedRow]:
        columns = self.dataset.columns
        names = [name for name in (columns.image_id, columns.split) if name is not None]
        if columns.split is not None and self.splits.explains(row[columns.split]):
            names.remove(columns.split)
        content, name = _picture(row[columns.image])
        captions, reason = captions_of(row, columns.captions)
        language, no_language = language_of(None if columns.language is None else row[columns.language])
        if reason := malformed(row, dict.fromkeys(names, (str, int, float))) or reason or no_language:
            yield MalformedRow(place, reason)
            return
        if content is not None:
            location, identity = self.pictures.add(content)
        elif name is not None:
            name = without_prefix(name, self.dataset.image_prefix)
            location = identity = image_path(self.dataset.image_root, path, name)
        else:
            yield MalformedRow(place, f"has no picture in `{columns.image}`: neither bytes nor a path")
            return
        # The digest decides a draw, so that equal pictures are in the same split.
        if (mine := self.splits.of_row(split, identity, row.get(columns.split or ""), place)) is None:
            return
        if columns.image_id is not None:
            identity = identity_of(row[columns.image_id])
        elif name is not None and self.paths_are_ids:
            identity = name
        label = None if columns.label is None or row[columns.label] is None else identity_of(row[columns.label])
        for caption in captions:
            yield Record(mine, identity, location, caption, label, place=place, language=language)

    @cached_property
    def paths_are_ids(self) -> bool:
        """Whether the paths in the structs of all rows of all files are distinct. Only the paths are read for this."""
        column = f"{self.dataset.columns.image}.path"
        blocks = [np.empty(0, dtype=np.int64)]
        for file in self.dataset.files.values():
            if _has_path(parquet_schema(Path(file)).field(self.dataset.columns.image).type):
                rows = parquet_rows(Path(file), [column], batch_rows=65_536)
                names = [_picture(next(iter(row.values())))[1] for _, row in rows if isinstance(row, dict)]
                blocks.append(np.array([hash(name) for name in names if name is not None], dtype=np.int64))
        hashes = np.sort(np.concatenate(blocks))
        return not bool((hashes[1:] == hashes[:-1]).any())


def open_source(dataset: ParquetDataset, image_folder: Path) -> ParquetSource:
    """The source of Parquet files; it writes their pictures into `image_folder`."""
    return ParquetSource(dataset, image_folder)


def is_picture_type(kind: Any) -> bool:
    """Whether an Arrow type is bytes, or a struct with a field `bytes`."""
    if pa.types.is_struct(kind):
        names = [kind.field(number).name for number in range(kind.num_fields)]
        return "bytes" in names and is_picture_type(kind.field(names.index("bytes")).type)
    return is_bytes(kind)


def is_bytes(kind: Any) -> bool:
    """Whether an Arrow type is bytes, also in a dictionary, which stores equal values once."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(is_kind(kind) for is_kind in kinds)


def columns_of_bytes(path: Path) -> list[str]:
    """The columns of a Parquet file whose type may hold pictures. Raises DataError if the file is damaged."""
    return [field.name for field in parquet_schema(path) if is_picture_type(field.type)]


def picture_columns(path: Path) -> list[str]:
    """The columns of a Parquet file that hold pictures. Raises DataError if the file is damaged.

    A struct of bytes holds pictures, whatever they are. Other bytes may be anything, so one of the first values that
    are not null has to be a picture. If no column has one, those without a value count, which may have pictures later.
    """
    typed, schema = columns_of_bytes(path), parquet_schema(path)
    plain = [name for name in typed if not pa.types.is_struct(schema.field(name).type)]
    looked, pictures = dict.fromkeys(plain, 0), set(typed) - set(plain)
    rows = islice(parquet_rows(path, plain, LOOKED_AT), MOST_ROWS) if plain and has_rows(path) else iter(())
    for _, row in rows:
        undecided = [name for name in plain if name not in pictures and looked[name] < LOOKED_AT]
        if not undecided:
            break
        found = {name: row[name] for name in undecided if row[name] is not None} if isinstance(row, dict) else {}
        looked.update({name: looked[name] + 1 for name in found})
        pictures.update(name for name, content in found.items() if _is_picture(content))
    return [name for name in typed if name in pictures] or [name for name in plain if not looked[name]]


def has_rows(path: Path) -> bool:
    """Whether a Parquet file has a row. Raises DataError if it is damaged, or something else."""
    refuse_stand_in(path)
    with parquet_damage(path):
        return bool(pq.read_metadata(path).num_rows)


def _is_picture(content: bytes) -> bool:
    if ending_of(content) != OTHER_ENDING:
        return True
    try:
        picture_size(content)
    except DataError:
        return False
    return True


def _has_path(kind: Any) -> bool:
    return bool(pa.types.is_struct(kind)) and kind.get_field_index("path") >= 0


def _picture(value: Any) -> tuple[bytes | None, str | None]:
    """The bytes and the path of a picture, each None if it is not there."""
    if isinstance(value, dict):
        path = value.get("path")
        return value.get("bytes"), path if isinstance(path, str) and path else None
    return value, None


def _require_pictures(path: Path, dataset: ParquetDataset) -> None:
    """Raise DataError unless the file has each column once, and pictures in the column of pictures."""
    schema, columns = parquet_schema(path), dataset.columns
    wanted = columns.named()
    if lacking := [f"dataset.columns.{key} `{name}`" for key, name in wanted if name not in schema.names]:
        raise DataError(
            f"{path} has the columns {', '.join(schema.names)}, but not {', '.join(lacking)}; correct the mapping."
        )
    if twice := [name for _, name in wanted if schema.names.count(name) > 1]:
        raise DataError(f"{path} has the column `{twice[0]}` more than once; rename one of them.")
    kind = schema.field(columns.image).type
    if not is_picture_type(kind):
        advice = " Paths of pictures are for `format: table`." if pa.types.is_string(kind) else ""
        raise DataError(
            f"{path}: the column `{columns.image}` has the type {kind}, expected the bytes of pictures (binary, or a "
            f"struct of bytes and path); name another column in dataset.columns.image.{advice}"
        )
