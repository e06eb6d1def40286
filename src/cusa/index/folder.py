"""SearchIndex: an index that `cusa index` wrote, opened for search. It imports no torch and maps its files."""

from __future__ import annotations

import mmap
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cusa.common.files import array_damage, read_parquet
from cusa.errors import DataError
from cusa.gallery.store import Gallery
from cusa.index.galleries import joined_items, joined_vectors
from cusa.index.meta import DUPLICATES_FILE, INDEX_FILE, REMOVED_FILE, IndexMeta, built_again, index_of, read_meta
from cusa.index.searching import EXACT_ROWS, exact_nearest, faiss_nearest, lacking, mapping_flag
from cusa.metrics.neighbours import import_faiss

if TYPE_CHECKING:
    import pyarrow as pa

ATTEMPTS = 5  # attempts to open an index that is replaced at the same moment


class SearchIndex:
    """The rows of one or several galleries that can be found, numbered from 0, and their nearest neighbours.

    Removed rows have no number. Numbers are valid for one `fingerprint`: adding and removing items may change them.
    Threads can search at the same time.
    """

    def __init__(self, folder: Path) -> None:
        """Use `SearchIndex.open`."""
        self.folder = folder
        self.meta: IndexMeta = index_of(folder, read_meta(folder))
        self._file(INDEX_FILE)
        self._galleries = [Gallery.open(folder / part.folder) for part in self.meta.galleries]
        self._require_the_same_galleries()
        self._vectors = joined_vectors(self._galleries)
        self._starts = np.cumsum([0, *(gallery.rows for gallery in self._galleries)])
        self._live = self._live_rows()
        self.faiss_index = self._read_faiss()
        # Rows that are the same as others or nearly: row, group (its first row), kind (`same` or `near`). They are read
        # now, because a newer version deletes the file.
        self.duplicates: pa.Table = read_parquet(self._file(DUPLICATES_FILE), built_again(folder))

    @classmethod
    def open(cls, folder: str | Path) -> SearchIndex:
        """Open the index in `folder`, which `cusa index` wrote. Raises DataError if there is none or it is damaged.

        An index that is replaced at this moment is opened in its old or its new version.
        """
        folder = Path(folder).absolute()
        for _ in range(ATTEMPTS):
            try:
                return cls(folder)
            except FileNotFoundError as error:
                missing = error.filename or error
        raise DataError(f"{missing} does not exist, but {folder / 'meta.json'} names it; {built_again(folder)}")

    @property
    def rows(self) -> int:
        """How many rows can be found."""
        return self.meta.rows

    @property
    def dimension(self) -> int:
        """The length D of the embeddings."""
        return self.meta.dimension

    @property
    def fingerprint(self) -> str:
        """Names this version of the index: it changes with every rebuild, addition and removal."""
        return self.meta.fingerprint

    @property
    def model(self) -> Path:
        """The folder of the model that encodes queries, as `cusa.load` takes it; also if results were moved."""
        named = Path(self.meta.model)
        if self.meta.model_from_index is None or named.is_dir():
            return named
        moved = Path(os.path.normpath(self.folder / self.meta.model_from_index))
        return moved if moved.is_dir() else named

    @property
    def model_sha256(self) -> str:
        """The sha256 of the weights that the embeddings come from."""
        return self.meta.model_sha256

    @property
    def modality(self) -> str:
        """The modality of the rows: `image` or `text`."""
        return self.meta.modality

    @property
    def head(self) -> str:
        """The head that the embeddings come from: `cross` or `uni`."""
        return self.meta.head

    @cached_property
    def items(self) -> pa.Table:
        """The items, a pyarrow table of `rows` rows with at least the columns item, path, offset, size and captions."""
        table = joined_items(self._galleries)
        return table if self._live is None else table.take(self._live)

    @property
    def captions(self) -> pa.ChunkedArray:
        """The captions that the data know of each row, list<string> [rows]; a list may be empty."""
        return self.items["captions"]

    @cached_property
    def groups(self) -> np.ndarray:
        """The first row that is the same as each row or nearly, int64 [rows]; the row itself if it is the first."""
        groups = np.arange(self.rows, dtype=np.int64)
        # Not to_numpy, which imports pandas: that takes half a second.
        rows, first = (np.from_dlpack(self.duplicates[name].combine_chunks()) for name in ("row", "group"))
        groups[rows] = first
        return groups

    def picture_bytes(self, row: int) -> bytes:
        """The bytes of a row's picture file. Raises DataError if the row is not a picture, or its file is gone."""
        gallery, gallery_row = self._place_of(row)
        return gallery.picture_bytes(gallery_row)

    def picture_path(self, row: int) -> Path | None:
        """The file that holds a row's picture, as a whole or at `offset`; None if the row is not a picture."""
        gallery, gallery_row = self._place_of(row)
        return gallery.picture_path(gallery_row)

    def _place_of(self, row: int) -> tuple[Gallery, int]:
        """The gallery that has a row, and the row's number in it."""
        gallery_row = int(self._gallery_rows(np.array([self._checked_row(row)]))[0])
        place = int(np.searchsorted(self._starts, gallery_row, side="right")) - 1
        return self._galleries[place], gallery_row - int(self._starts[place])

    def vector(self, row: int) -> np.ndarray:
        """The embedding of a row, float32 [D], normalised."""
        return np.asarray(self.vectors(np.array([self._checked_row(row)]))[0])

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """The embeddings of rows, int64 [n] -> float32 [n, D], normalised."""
        return self._vectors[self._gallery_rows(np.asarray(rows, dtype=np.int64))]

    def nearest(
        self, vectors: np.ndarray, top: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `top` rows with the highest inner products with each of `vectors`, best first.

        `vectors` is float32 [n, D]; of normalised vectors the scores are cosines. `allowed`, bool [rows], leaves out
        rows. Returns scores float32 [n, top] and rows int64 [n, top], which end in -inf and -1 if fewer rows are
        allowed than `top`. Raises DataError for vectors of another dimension or with values that are not finite.
        """
        vectors = self._checked_vectors(vectors)
        mask = None if allowed is None else self._checked_mask(allowed)
        count = self.rows if mask is None else int(mask.sum())
        if min(count, top, len(vectors)) == 0:
            return lacking(len(vectors), top)
        if count <= EXACT_ROWS and (mask is not None or self.meta.kind != "flat"):
            candidates = np.arange(self.rows) if mask is None else np.flatnonzero(mask)
            scores, found = exact_nearest(self._vectors, self._gallery_rows(candidates), vectors, top)
        else:
            scores, found = faiss_nearest(
                self.faiss_index, self.meta.search, self._vectors, vectors, top, self._bits(mask), count / self.rows
            )
        return scores, self._numbers(found)

    def _checked_vectors(self, vectors: np.ndarray) -> np.ndarray:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise DataError(
                f"the queries have shape {list(vectors.shape)}, but the index in {self.folder} has embeddings of "
                f"dimension {self.dimension}; encode the queries with {self.model}."
            )
        if not np.isfinite(vectors).all():
            raise DataError("the queries have values that are not finite; the model that encoded them is damaged.")
        return vectors

    def _checked_mask(self, allowed: np.ndarray) -> np.ndarray:
        allowed = np.asarray(allowed)
        if allowed.dtype != np.bool_ or allowed.shape != (self.rows,):
            raise DataError(
                f"`allowed` is {allowed.dtype} {list(allowed.shape)}; expected bool [{self.rows}], one a row."
            )
        return allowed

    def _checked_row(self, row: int) -> int:
        if not 0 <= row < self.rows:
            raise DataError(f"there is no row {row} in {self.folder}; its rows are 0 to {self.rows - 1}.")
        return int(row)

    # Rows of the galleries, one after the other, are the ids in index.faiss. Removed ones have no number here.

    def _gallery_rows(self, rows: np.ndarray) -> np.ndarray:
        return rows if self._live is None else self._live[rows]

    @cached_property
    def _number_of(self) -> np.ndarray:
        numbers = np.full(len(self._vectors) + 1, -1, dtype=np.int64)  # the last one is for -1
        numbers[np.arange(len(self._vectors)) if self._live is None else self._live] = np.arange(self.rows)
        return numbers

    def _numbers(self, gallery_rows: np.ndarray) -> np.ndarray:
        return gallery_rows if self._live is None else self._number_of[gallery_rows]

    def _bits(self, mask: np.ndarray | None) -> np.ndarray | None:
        """The rows of the galleries that may be found, packed as faiss reads them; None if index.faiss has no other."""
        if mask is None:
            return self._live_bits
        rows = np.flatnonzero(mask)
        return _packed(self._gallery_rows(rows), len(self._vectors))

    @cached_property
    def _live_bits(self) -> np.ndarray | None:
        if self._live is None or self.faiss_index.ntotal == self.rows:
            return None
        return _packed(self._live, len(self._vectors))

    def _live_rows(self) -> np.ndarray | None:
        """The rows of the galleries that are not removed, int64 [rows]; None if no row is removed."""
        if not self.meta.removed:
            return None
        table = read_parquet(self._file(REMOVED_FILE), built_again(self.folder))
        removed = table["gallery_row"].to_numpy()
        live = np.ones(len(self._vectors), dtype=bool)
        live[removed] = False
        return np.flatnonzero(live)

    def _require_the_same_galleries(self) -> None:
        for part, gallery in zip(self.meta.galleries, self._galleries, strict=True):
            found = (gallery.rows, gallery.dimension, gallery.meta.model_sha256)
            if found != (part.rows, self.meta.dimension, self.meta.model_sha256):
                raise DataError(
                    f"the index in {self.folder} was made of other embeddings than {gallery.folder} has now: of "
                    f"{part.rows:,} rows of {self.meta.dimension} values by the model {self.meta.model_sha256[:12]}, "
                    f"found {found[0]:,} rows of {found[1]} by {found[2][:12]}; "
                    f"{built_again(self.folder)}"
                )

    def _file(self, name: str) -> Path:
        """A file of this version. Raises FileNotFoundError if a newer version has deleted it."""
        path = self.meta.file(self.folder, name)
        if not path.is_file():
            raise FileNotFoundError(path)
        return path

    def _read_faiss(self) -> Any:
        faiss = import_faiss()
        path = self.meta.file(self.folder, INDEX_FILE)
        with array_damage(path, built_again(self.folder)):
            index = faiss.read_index(str(path), mapping_flag(self.meta.kind))
        if index.d != self.dimension or index.ntotal < self.rows:
            raise DataError(
                f"{path} has {index.ntotal:,} rows of {index.d} values, but meta.json says {self.rows:,} of "
                f"{self.dimension}; {built_again(self.folder)}"
            )
        if self.meta.search.nprobe is not None:
            # Threads that prefetch lists cost more time than they save, because they are started for each query.
            faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0
            for array in self._vectors.arrays:
                _read_at_random(array)
        return index


def _read_at_random(array: np.ndarray) -> None:
    """Tell the system that rows are read one by one, so that it does not read neighbouring pages from disk."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)


def _packed(rows: np.ndarray, total: int) -> np.ndarray:
    mask = np.zeros(total, dtype=bool)
    mask[rows] = True
    return np.packbits(mask, bitorder="little")
