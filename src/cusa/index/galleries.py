"""The galleries of an index, as one numbering of rows: those of the first gallery, then those of the added ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from cusa.errors import DataError
from cusa.gallery.items import cast_items, joined_schema
from cusa.gallery.store import EMBEDDINGS, Gallery, Vectors, made_again

LENGTHS = (0.99, 1.01)  # of normalised embeddings, stored in any precision
BLOCK_BYTES = 64 << 20  # of embeddings that are read at once


def joined_vectors(galleries: Sequence[Gallery]) -> Vectors:
    """The embeddings of all galleries, mapped, as one array."""
    arrays = [array for gallery in galleries for array in gallery.vectors.arrays]
    return Vectors(arrays, galleries[0].dimension)


def joined_items(galleries: Sequence[Gallery]) -> pa.Table:
    """The items of all galleries, with absolute paths; a column that a gallery does not have is null there."""
    tables = [with_paths(gallery.items, gallery.folder.joinpath) for gallery in galleries]
    if len(tables) == 1:
        return tables[0]
    schema = joined_schema([table.schema for table in tables])
    return pa.concat_tables([cast_items(table, schema) for table in tables])


def with_paths(items: pa.Table, moved: Callable[[str], Path]) -> pa.Table:
    """Items with `moved(path)` in place of each path that is relative to the folder of its gallery."""
    paths = items["path"].combine_chunks().dictionary_encode()
    known = paths.dictionary.to_pylist()
    absolute = [path.startswith(os.sep) for path in known]
    if all(absolute):
        return items
    new = [path if stays else os.path.normpath(moved(path)) for path, stays in zip(known, absolute, strict=True)]
    column = pa.array(new, pa.string()).take(paths.indices)
    return items.set_column(items.column_names.index("path"), "path", column)


def blocks(vectors: Vectors, rows: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers, int64 [b], and embeddings, float32 [b, D], of one block after the other, of all rows or of `rows`.

    `rows` are sorted, so that files are read from their beginning to their end.
    """
    rows = np.arange(len(vectors)) if rows is None else rows
    step = max(1, BLOCK_BYTES // (4 * vectors.shape[1]))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        dense = len(block) == block[-1] - block[0] + 1
        yield block, vectors[int(block[0]) : int(block[-1]) + 1] if dense else vectors[block]


def require_sound(gallery: Gallery) -> None:
    """Raise DataError if a gallery has no rows, or rows that are not finite or not normalised."""
    if not gallery.rows:
        raise DataError(
            f"{gallery.folder} has no embeddings, so there is nothing to index; {gallery.meta.unreadable:,} items "
            "could not be read (unreadable.parquet lists them)."
        )
    wrong, first = 0, -1
    for rows, block in blocks(gallery.vectors):
        lengths = np.sqrt(np.einsum("ij,ij->i", block, block))
        bad = rows[~((lengths > LENGTHS[0]) & (lengths < LENGTHS[1]))]
        first = int(bad[0]) if len(bad) and first < 0 else first
        wrong += len(bad)
    if wrong:
        advice = made_again(gallery.folder / EMBEDDINGS)
        raise DataError(
            f"{wrong:,} of {gallery.rows:,} embeddings in {gallery.folder} are not finite or not normalised (the first "
            f"is row {first}); the model has diverged, or the file is damaged: {advice}"
        )
