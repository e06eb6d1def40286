"""The contents of an index: its galleries, and the rows of them that are removed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from cusa.common.files import read_json, read_parquet
from cusa.errors import DataError
from cusa.gallery.store import META, Gallery, Vectors
from cusa.index.galleries import joined_items, joined_vectors
from cusa.index.meta import REMOVED_FILE, GalleryPart, IndexMeta, index_of, read_meta

LOCK = ".index.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time change the index of a folder. Raises DataError if another one is at work."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout:
        raise DataError(f"another `cusa index` is changing {folder}; wait until it has ended.") from None


@dataclass(frozen=True)
class Contents:
    """The galleries of the index in `folder`, and the rows of them that are removed, int64, sorted.

    Rows are numbered through all galleries, one after the other.
    """

    folder: Path
    galleries: tuple[Gallery, ...]
    removed: np.ndarray

    @classmethod
    def of(cls, folder: Path, out: Path, from_scratch: bool = False) -> Contents:
        """The gallery in `out` with what was added to its index in `folder` and removed from it, if that exists.

        `from_scratch` forgets both. Raises DataError if the folder holds something else than an index of `out`.
        """
        gallery = Gallery.open(out)
        content = read_json(folder / META) if (folder / META).is_file() else {}
        if folder != out and content:
            gallery_there = (folder / str(content.get("gallery"))).resolve()
            if content.get("gallery") is None or gallery_there != out.resolve():
                other = "a gallery" if content.get("gallery") is None else f"the index of {gallery_there}"
                raise DataError(f"{folder} holds {other}, not an index of {out}; name another folder by --output.")
        if from_scratch or content.get("index") is None:
            return cls(folder, (gallery,), np.empty(0, dtype=np.int64))
        previous = index_of(folder, content)
        galleries = (gallery, *(Gallery.open(folder / part.folder) for part in previous.galleries[1:]))
        for added in galleries[1:]:
            require_same_model(gallery, added)
        return cls(folder, galleries, cls._removed_rows(folder, previous, galleries))

    @classmethod
    def of_index(cls, folder: Path) -> tuple[Contents, IndexMeta]:
        """The contents of the index that exists in `folder`. Raises DataError if there is none."""
        content = read_meta(folder)
        meta = index_of(folder, content)
        return cls.of(folder, (folder / meta.galleries[0].folder).resolve()), meta

    @staticmethod
    def _removed_rows(folder: Path, meta: IndexMeta, galleries: Sequence[Gallery]) -> np.ndarray:
        """The removed items by their names, because the first gallery may have been embedded again."""
        if not meta.removed:
            return np.empty(0, dtype=np.int64)
        path = meta.file(folder, REMOVED_FILE)
        table = read_parquet(path)
        places, names = table["gallery"].to_numpy(), table["item"].to_pylist()
        found, start = [], 0
        for place, gallery in enumerate(galleries):
            mine = {name for name, where in zip(names, places.tolist(), strict=True) if where == place}
            if mine:
                found.append(start + rows_of(gallery.items["item"], mine))
            start += gallery.rows
        return np.sort(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)

    @cached_property
    def vectors(self) -> Vectors:
        """The embeddings of all rows, removed ones included."""
        return joined_vectors(self.galleries)

    @cached_property
    def items(self) -> pa.Table:
        """The items of all rows, removed ones included."""
        return joined_items(self.galleries)

    @cached_property
    def live(self) -> np.ndarray:
        """The rows that are not removed, int64, sorted. Their positions in this array are their numbers in searches."""
        return np.setdiff1d(np.arange(len(self.vectors)), self.removed, assume_unique=True)

    def without(self, rows: np.ndarray) -> Contents:
        """The same with `rows` removed too. Raises DataError if that leaves none."""
        smaller = replace(self, removed=np.union1d(self.removed, rows))
        if not len(smaller.live):
            raise DataError(f"this would leave no row in {self.folder}, and an index has one at least.")
        return smaller

    def parts(self) -> list[GalleryPart]:
        """The galleries as meta.json names them."""
        return [
            GalleryPart(folder=os.path.relpath(gallery.folder, self.folder), rows=gallery.rows)
            for gallery in self.galleries
        ]

    def write_removed(self, path: Path) -> None:
        """Write the removed rows: the place of their gallery, item, and row through all galleries."""
        starts = np.cumsum([0, *(gallery.rows for gallery in self.galleries)])
        places = np.searchsorted(starts, self.removed, side="right") - 1
        pq.write_table(
            pa.table({"gallery": places, "item": self.items["item"].take(self.removed), "gallery_row": self.removed}),
            path,
        )


def require_same_model(gallery: Gallery, added: Gallery) -> None:
    """Raise DataError unless the embeddings of both come from the same weights and head, of the same modality."""
    names = {"model_sha256": "model", "dimension": "dimension", "head": "head", "modality": "modality"}
    for name, what in names.items():
        mine, theirs = getattr(gallery.meta, name), getattr(added.meta, name)
        if mine != theirs:
            raise DataError(
                f"{added.folder} cannot be added to {gallery.folder}: its {what} is {str(theirs)[:12]}, expected "
                f"{str(mine)[:12]}; embed its items again with {gallery.meta.model} --head {gallery.meta.head}."
            )


def rows_of(column: pa.ChunkedArray, names: set[str]) -> np.ndarray:
    """The rows of a column of items whose value is among `names`, int64."""
    return np.flatnonzero(pc.is_in(column, value_set=pa.array(sorted(names), column.type)).to_numpy()).astype(np.int64)
