"""A gallery on disk: embeddings.npy (or parts of it), items.parquet and meta.json, read by mapping; no torch here.

gallery = Gallery.open("out")
gallery.vectors[rows]          # float32 [n, D], normalised
gallery.items                  # pyarrow table: item, path, offset, size, captions, and the user's columns
gallery.picture_bytes(17)      # the picture file of row 17
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cusa import __version__
from cusa.common.files import atomic_file, read_array, read_json, read_parquet, sha256_of_file, write_json
from cusa.common.pydantic_errors import first_problem
from cusa.errors import DataError
from cusa.gallery.items import FIELDS, UNREADABLE_SCHEMA, cast_items, joined_schema, typed_items
from cusa.runs.record import made_of_run_again

META = "meta.json"
EMBEDDINGS = "embeddings.npy"
ITEMS = "items.parquet"
UNREADABLE = "unreadable.parquet"
PARTS = "parts"
SCHEMA = 1
BLOCK_BYTES = 64 << 20
GalleryModality = Literal["image", "text"]


def made_again(path: Path) -> str:
    """The advice for a damaged file of a gallery."""
    return made_of_run_again(path, f"delete {path.parent}, and run the same `cusa embed` command again.")


class Part(BaseModel):
    """One part of a gallery: its files, as paths from the gallery's folder, and its number of rows."""

    model_config = ConfigDict(frozen=True)
    embeddings: str = EMBEDDINGS
    items: str = ITEMS
    rows: int = Field(ge=0)


class GalleryMeta(BaseModel):
    """The content of meta.json. Keys that later releases add are kept; `index` is that of `cusa index`."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, protected_namespaces=(), extra="allow")

    schema_version: int = Field(default=SCHEMA, alias="schema")
    model: str = Field(description="Absolute folder of the run or of the exported model.")
    model_sha256: str = Field(description="SHA-256 of the run's best.safetensors.")
    modality: GalleryModality = "image"
    head: Literal["cross", "uni"] = "cross"
    dimension: int = Field(gt=0)
    dtype: Literal["float32", "float16"] = "float32"
    rows: int = Field(ge=0)
    parts: list[Part]
    unreadable: int = Field(default=0, ge=0, description="Items that could not be read; see unreadable.parquet.")
    source: dict[str, Any] = Field(default_factory=dict, description="What was embedded, and how it was read.")
    versions: dict[str, str] = Field(default_factory=dict)
    index: dict[str, Any] | None = None
    files_sha256: dict[str, str] = Field(default_factory=dict, description="SHA-256 of embeddings and items, by file.")

    def content(self) -> dict[str, Any]:
        """The object that meta.json holds."""
        found = self.model_dump(mode="json", by_alias=True)
        return {key: value for key, value in found.items() if key not in ("index", "files_sha256") or value}


class Vectors:
    """The embeddings of a gallery as one array [rows, D], read from disk when they are asked for, as float32."""

    def __init__(self, arrays: Sequence[np.ndarray], dimension: int) -> None:
        self.arrays = list(arrays)
        self.starts = np.cumsum([0, *(len(array) for array in self.arrays)])
        self.shape = (int(self.starts[-1]), dimension)
        self.dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    @overload
    def __getitem__(self, rows: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, rows: slice | np.ndarray | Sequence[int]) -> np.ndarray: ...
    def __getitem__(self, rows: Any) -> np.ndarray:
        """Row `rows` as float32 [D], or copies of several rows as float32 [n, D]: a slice, row numbers or a mask."""
        if isinstance(rows, slice):
            return self._slice(*rows.indices(len(self)))
        numbers = np.asarray(rows)
        if numbers.dtype == np.bool_:
            numbers = np.flatnonzero(numbers)
        numbers = numbers.astype(np.int64, copy=False)
        if len(outside := numbers[(numbers < 0) | (numbers >= len(self))].reshape(-1)):
            raise IndexError(f"row {outside[0]} of a gallery of {len(self)} rows")
        if numbers.ndim == 0:
            return np.asarray(self._take(numbers[None])[0])
        return self._take(numbers)

    def blocks(self, rows: int | None = None) -> Iterator[np.ndarray]:
        """All embeddings in row order, float32, at most `rows` at a time; by default as many as 64 MiB hold."""
        step = rows or max(1, BLOCK_BYTES // (4 * self.shape[1]))
        for start in range(0, len(self), step):
            yield self[start : start + step]

    def _slice(self, start: int, stop: int, step: int) -> np.ndarray:
        if step != 1:
            return self._take(np.arange(start, stop, step))
        found = np.empty((max(0, stop - start), self.shape[1]), dtype=np.float32)
        for array, first in zip(self.arrays, self.starts.tolist(), strict=False):
            begin, end = max(start, first), min(stop, first + len(array))
            if begin < end:
                found[begin - start : end - start] = array[begin - first : end - first]
        return found

    def _take(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        part_of_row = np.searchsorted(self.starts, rows, side="right") - 1
        for part in np.unique(part_of_row):
            mine = part_of_row == part
            found[mine] = self.arrays[part][rows[mine] - self.starts[part]]
        return found


class Gallery:
    """The embeddings, items and pictures of one folder OUT."""

    def __init__(self, folder: Path, meta: GalleryMeta, vectors: Vectors) -> None:
        self.folder, self.meta, self.vectors = folder, meta, vectors

    @classmethod
    def open(cls, folder: str | Path) -> Gallery:
        """Open a gallery. Raises DataError when it is not there, is not finished, is damaged, or has other sizes."""
        folder = Path(folder).absolute()
        meta = read_meta(folder)
        arrays = []
        for part in meta.parts:
            path = folder / part.embeddings
            array = read_array(path, made_again(path))
            if array.shape != (part.rows, meta.dimension) or array.dtype != np.dtype(meta.dtype):
                raise DataError(
                    f"{path} holds {array.dtype} {list(array.shape)}, but {folder / META} says {meta.dtype} "
                    f"{[part.rows, meta.dimension]}; {made_again(path)}"
                )
            arrays.append(array)
        if (rows := sum(part.rows for part in meta.parts)) != meta.rows:
            path = folder / META
            raise DataError(f"{path} says {meta.rows:,} rows, but its parts have {rows:,}; {made_again(path)}")
        return cls(folder, meta, Vectors(arrays, meta.dimension))

    @property
    def rows(self) -> int:
        """The number of embeddings."""
        return self.meta.rows

    @property
    def dimension(self) -> int:
        """The length D of an embedding."""
        return self.meta.dimension

    def embeddings(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The embeddings of rows `start` to `stop` (not included), float32 [n, D], normalised; a copy in memory."""
        return self.vectors[start:stop]

    @cached_property
    def items(self) -> pa.Table:
        """One row an embedding, in row order: the columns of cusa.gallery.items.FIELDS, then the user's."""
        tables = [self._part_items(part) for part in self.meta.parts]
        if not tables:
            return pa.schema(list(FIELDS.items())).empty_table()
        if len(tables) == 1:
            return tables[0]
        schema = joined_schema([table.schema for table in tables])
        return pa.concat_tables([cast_items(table, schema) for table in tables])

    def _part_items(self, part: Part) -> pa.Table:
        path = self.folder / part.items
        table = read_parquet(path, made_again(path))
        if lacking := [name for name in FIELDS if name not in table.column_names]:
            raise DataError(f"{path} has no column {', '.join(lacking)}; {made_again(path)}")
        if len(table) != part.rows:
            raise DataError(
                f"{path} has {len(table):,} rows, but {self.folder / META} says {part.rows:,} embeddings; "
                f"{made_again(path)}"
            )
        try:
            return typed_items(table)
        except DataError as error:
            raise DataError(f"{path} {error}; correct it, or {made_again(path)}") from None

    @cached_property
    def unreadable(self) -> pa.Table:
        """The items that could not be read, with the columns item and reason."""
        path = self.folder / UNREADABLE
        if not path.is_file():
            return UNREADABLE_SCHEMA.empty_table()
        return read_parquet(path, made_again(path))

    def picture_path(self, row: int) -> Path | None:
        """The file that holds the picture of a row; None for an item without one, as texts are."""
        path = self._value("path", row)
        return None if path is None else self.folder / str(path)  # an absolute path stays as it is

    def picture_bytes(self, row: int) -> bytes:
        """The bytes of the picture file of a row, read from where the picture was when it was embedded.

        Raises IndexError for a row that does not exist, and DataError if the item has no picture, or the file was
        removed or is shorter than it was.
        """
        path, offset, size = self.picture_path(row), self._value("offset", row), self._value("size", row)
        if path is None:
            raise DataError(f"item {row} of {self.folder} (`{self._value('item', row)}`) has no picture.")
        return read_bytes(path, offset, size)

    def _value(self, column: str, row: int) -> Any:
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} of a gallery of {self.rows} rows")
        return self.items[column][row].as_py()


def read_bytes(path: Path, offset: int | None = None, size: int | None = None) -> bytes:
    """The bytes of a file, or `size` bytes from `offset` on. Raises DataError if they are not there (any more)."""
    try:
        with path.open("rb") as file:
            if offset is None or size is None:
                return file.read()
            end = os.fstat(file.fileno()).st_size
            content = os.pread(file.fileno(), size, offset) if 0 <= offset <= end - size <= end else b""
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    if len(content) != size:
        raise DataError(f"{path} is shorter than it was when it was embedded; embed the gallery again.")
    return content


def read_meta(folder: Path) -> GalleryMeta:
    """The meta.json of a gallery. Raises DataError when there is none, or it does not describe a gallery."""
    path = folder / META
    if not path.is_file():
        if (folder / PARTS).is_dir():
            raise DataError(
                f"{folder} is not finished: it has {PARTS}/, but no {META}. Run the same `cusa embed` command again; "
                "it continues. Where shares were embedded with --part, run it with --join."
            )
        raise DataError(f"{path} does not exist; `cusa embed RUN ITEMS --output {folder}` writes it.")
    content = read_json(path, made_again(path))
    try:
        meta = GalleryMeta.model_validate(content)
    except ValidationError as error:
        key, message = first_problem(error)
        raise DataError(f"{path} does not describe a gallery ({key}: {message}); {made_again(path)}") from None
    if meta.schema_version > SCHEMA:
        raise DataError(
            f"{path} has the schema {meta.schema_version}, and this cusa ({__version__}) reads up to {SCHEMA}; use a "
            "newer cusa."
        )
    return meta


def write_meta(folder: Path, meta: GalleryMeta) -> None:
    """Write the meta.json of a gallery whose files are complete, with their digests."""
    names = [name for part in meta.parts for name in (part.embeddings, part.items)]
    files = {name: sha256_of_file(folder / name) for name in names}
    write_json(folder / META, meta.model_copy(update={"files_sha256": files}).content())


def write_gallery(
    folder: str | Path,
    embeddings: np.ndarray,
    items: pa.Table,
    model: str | Path,
    model_sha256: str,
    unreadable: pa.Table | None = None,
    **described: Any,
) -> Gallery:
    """Write a gallery that fits into memory, and open it.

    `embeddings` is float32 or float16 [rows, D], normalised; `items` is a table as `items_table` makes it, one row an
    embedding. `described` are other keys of GalleryMeta: modality, head, source, versions. meta.json is written last.
    Raises DataError if the rows differ, a column is missing or has another type, or an item occurs twice.
    """
    folder = Path(folder).absolute()
    if lacking := [name for name in FIELDS if name not in items.column_names]:
        raise DataError(f"the items of {folder} have no column {', '.join(lacking)}.")
    try:
        items = typed_items(items)
    except DataError as error:
        raise DataError(f"the table of the items of {folder} {error}.") from None
    if embeddings.ndim != 2 or len(embeddings) != len(items):
        raise DataError(f"{folder}: {len(items):,} items, but embeddings of shape {list(embeddings.shape)}.")
    if (distinct := len(items["item"].unique())) != len(items):
        raise DataError(f"{folder}: {len(items) - distinct:,} of the {len(items):,} items occur twice.")
    unreadable = UNREADABLE_SCHEMA.empty_table() if unreadable is None else unreadable
    meta = GalleryMeta(
        model=str(Path(model).absolute()),
        model_sha256=model_sha256,
        dimension=embeddings.shape[1],
        dtype=embeddings.dtype.name,  # type: ignore[arg-type]
        rows=len(items),
        parts=[Part(rows=len(items))],
        unreadable=len(unreadable),
        **described,
    )
    with atomic_file(folder / EMBEDDINGS) as temporary, temporary.open("wb") as file:
        np.save(file, embeddings, allow_pickle=False)
    for name, table in ((ITEMS, items), (UNREADABLE, unreadable)):
        with atomic_file(folder / name) as temporary:
            pq.write_table(table, temporary)
    write_meta(folder, meta)
    return Gallery.open(folder)
