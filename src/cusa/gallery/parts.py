"""Writes the parts of a gallery, and joins them into one gallery."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cusa.common.files import (
    atomic_file,
    atomic_folder,
    parquet_damage,
    read_array,
    read_json,
    require_space,
    write_json,
)
from cusa.errors import DataError
from cusa.gallery.items import UNREADABLE_SCHEMA, cast_items, items_table, joined_schema
from cusa.gallery.plan import END, PLAN, read_plan
from cusa.gallery.sources.source import Entry
from cusa.gallery.store import (
    BLOCK_BYTES,
    EMBEDDINGS,
    ITEMS,
    META,
    PARTS,
    UNREADABLE,
    GalleryMeta,
    Part,
    read_meta,
    write_meta,
)

log = logging.getLogger(__name__)
PART = "part.json"
DAMAGED_PART = "delete the folder of this part, and run the same command again."
PICTURES = "pictures"
EXAMPLES = 3
Found = TypeVar("Found")


def part_name(number: int) -> str:
    """The name of a part's folder."""
    return f"{number:06d}"


def finished_parts(folder: Path) -> set[int]:
    """The numbers of the parts that are there."""
    return {int(path.parent.name) for path in (folder / PARTS).glob(f"[0-9]*/{PART}")}


@dataclass
class PartWriter:
    """Collects the rows of one part, and writes them when the part is complete."""

    folder: Path
    number: int
    dimension: int
    dtype: str
    keep_pictures: bool
    blocks: list[np.ndarray] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    offset: int = 0
    _file: Any = None

    def add(self, entries: list[Entry], embeddings: np.ndarray) -> None:
        """Add items with their embeddings, float32 [n, D]. An embedding that is not finite makes an item unreadable."""
        with np.errstate(over="ignore"):
            stored = embeddings.astype(self.dtype)
        finite = np.isfinite(stored).all(axis=1)
        self.blocks.append(stored[finite])
        for entry, is_finite in zip(entries, finite.tolist(), strict=True):
            if is_finite:
                self._add_picture(entry)
                self.entries.append(entry)
            else:
                self.unreadable.append((entry.item, f"its embedding is not finite in {self.dtype}"))

    def _add_picture(self, entry: Entry) -> None:
        """Give a picture that has no place of its own one in this gallery."""
        if entry.content is None:
            return
        if self.keep_pictures:
            if self._file is None:
                self._file = self._pictures_file()
            self._file.write(entry.content)
            entry.path, entry.offset = f"{PICTURES}/{part_name(self.number)}.bin", self.offset
            entry.size = len(entry.content)
            self.offset += len(entry.content)
        entry.content = None  # frees the memory before the part is complete

    def _pictures_file(self) -> Any:
        path = self.folder / PICTURES / f".{part_name(self.number)}.bin.partial"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """A block in which rows are added; at its end the part is written, unless there was an error."""
        try:
            yield
            self._write()
        finally:
            if self._file is not None:
                self._file.close()
                Path(self._file.name).unlink(missing_ok=True)

    def _write(self) -> None:
        if self._file is not None:
            self._file.close()
            Path(self._file.name).replace(self.folder / PICTURES / f"{part_name(self.number)}.bin")
        names = list(dict.fromkeys(name for entry in self.entries for name in entry.columns))
        table = items_table(
            [entry.item for entry in self.entries],
            [entry.path for entry in self.entries],
            [entry.offset for entry in self.entries],
            [entry.size for entry in self.entries],
            [entry.captions for entry in self.entries],
            {name: [entry.columns.get(name) for entry in self.entries] for name in names},
        )
        embeddings = np.concatenate([np.empty((0, self.dimension), self.dtype), *self.blocks])
        with atomic_folder(self.folder / PARTS / part_name(self.number)) as temporary:
            np.save(temporary / EMBEDDINGS, embeddings, allow_pickle=False)
            pq.write_table(table, temporary / ITEMS)
            columns = list(zip(*self.unreadable, strict=True)) or [(), ()]
            pq.write_table(
                pa.table(list(map(pa.array, columns, UNREADABLE_SCHEMA.types)), schema=UNREADABLE_SCHEMA),
                temporary / UNREADABLE,
            )
            write_json(temporary / PART, {"rows": len(table), "unreadable": len(self.unreadable)})


def join(folder: Path, keep_parts: bool = False) -> GalleryMeta:
    """Make one gallery of the parts in `folder`, a block at a time; the parts are removed unless `keep_parts`.

    Raises DataError if parts are missing, or hold no item that could be read.
    """
    if (folder / META).is_file():
        _clean(folder, read_meta(folder))
        return read_meta(folder)
    plan, places = read_plan(folder), _complete_parts(folder)
    counts = [read_json(place / PART) for place in places]
    rows, unreadable = (sum(count[key] for count in counts) for key in ("rows", "unreadable"))
    _joined(places, UNREADABLE, folder / UNREADABLE)
    if not rows:
        _refuse_nothing(folder, unreadable)
    parts = [
        Part(embeddings=f"{PARTS}/{place.name}/{EMBEDDINGS}", items=f"{PARTS}/{place.name}/{ITEMS}", rows=count["rows"])
        for place, count in zip(places, counts, strict=True)
        if count["rows"]
    ]
    if not keep_parts:
        size = rows * plan.dimension * np.dtype(plan.dtype).itemsize
        require_space(folder, size, f"{folder / EMBEDDINGS}")
        _join_embeddings(folder, parts, rows, plan.dimension, plan.dtype)
        _joined(places, ITEMS, folder / ITEMS)
        parts = [Part(rows=rows)]
    meta = GalleryMeta(
        model=plan.model,
        model_sha256=plan.model_sha256,
        modality=plan.modality,
        head=plan.head,
        dimension=plan.dimension,
        dtype=plan.dtype,
        rows=rows,
        parts=parts,
        unreadable=unreadable,
        source=plan.source,
        versions=plan.versions,
    )
    write_meta(folder, meta)
    _clean(folder, meta)
    return meta


def _clean(folder: Path, meta: GalleryMeta | None) -> None:
    """Remove the files that a complete gallery, or an empty one, does not need."""
    if meta is None or not any(part.embeddings.startswith(f"{PARTS}/") for part in meta.parts):
        shutil.rmtree(folder / PARTS, ignore_errors=True)
    for name in (PLAN, END):
        (folder / name).unlink(missing_ok=True)


def _complete_parts(folder: Path) -> list[Path]:
    """The folders of all parts, in order. Raises DataError if some are missing."""
    found = finished_parts(folder)
    if not (folder / END).is_file():
        raise DataError(
            f"{folder} has {len(found)} parts, and no run has come to the end of the source yet, so there is nothing "
            "to join; run the same command again, it continues. Join when every share has ended."
        )
    count = int(read_json(folder / END)["parts"])
    if missing := [number for number in range(count) if number not in found]:
        shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        raise DataError(
            f"{folder} lacks {len(missing)} of its {count} parts ({shown}); embed the other shares first (--part I "
            "--of N), then join."
        )
    return [folder / PARTS / part_name(number) for number in range(count)]


def _joined(places: list[Path], name: str, output: Path) -> pa.Schema:
    """Join the tables of this name of all parts, one part in memory at a time."""
    schemas = []
    for place in places:
        with parquet_damage(place / name):
            schemas.append(pq.read_schema(place / name))
    schema = joined_schema(schemas) if schemas else UNREADABLE_SCHEMA
    with atomic_file(output) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for place in places:
            with parquet_damage(place / name):
                table = pq.read_table(place / name)
            if len(table):
                writer.write_table(cast_items(table, schema))
    return schema


def _join_embeddings(folder: Path, parts: list[Part], rows: int, dimension: int, dtype: str) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": (rows, dimension),
    }
    step = max(1, BLOCK_BYTES // (np.dtype(dtype).itemsize * dimension))
    # The file is not memory-mapped: on a full disk, a write raises an error, and memory-mapping kills the process.
    with atomic_file(folder / EMBEDDINGS) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            array = read_array(folder / part.embeddings, DAMAGED_PART)
            if array.shape != (part.rows, dimension) or array.dtype != np.dtype(dtype):
                raise DataError(f"{folder / part.embeddings} is not what its {PART} says; {DAMAGED_PART}")
            for start in range(0, part.rows, step):
                file.write(np.ascontiguousarray(array[start : start + step]).data)


def _refuse_nothing(folder: Path, unreadable: int) -> None:
    _clean(folder, None)  # so that the corrected command can start again
    if not unreadable:
        raise DataError(f"{folder}: the source has no item, so there is nothing to embed.")
    table = pq.read_table(folder / UNREADABLE).slice(0, EXAMPLES).to_pylist()
    shown = "\n    ".join(f"{row['item']}: {row['reason']}" for row in table)
    raise DataError(
        f"none of the {unreadable:,} items can be embedded; {folder / UNREADABLE} lists them with reasons. Correct "
        f"them, or how they are named, and embed again:\n    {shown}"
    )
