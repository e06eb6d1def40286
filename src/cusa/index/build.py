"""Building an index of a gallery."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cusa.errors import DataError
from cusa.index.galleries import GalleryFiles, Vectors
from cusa.index.meta import DUPLICATES_FILE, INDEX_FILE, GalleryPart, IndexMeta, SearchSettings
from cusa.index.storage import new_fingerprint, publish
from cusa.metrics.neighbours import import_faiss

log = logging.getLogger(__name__)
LENGTHS = (0.99, 1.01)  # of normalised embeddings, stored in any precision


def build_index(out: str | Path, output: str | Path | None = None) -> IndexMeta:
    """Build the index of the gallery in `out`, in the folder `output` (None: in `out` itself)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    faiss = import_faiss()
    out = Path(out).absolute()
    folder = out if output is None else Path(output).absolute()
    gallery = GalleryFiles(out)
    vectors = Vectors(gallery.arrays, gallery.dimension)
    require_sound(gallery, vectors)
    index = faiss.IndexFlatIP(gallery.dimension)
    for _, block in vectors.blocks():
        index.add(block)
    relative = os.path.relpath(out, folder)
    meta = IndexMeta(
        kind="flat",
        factory="Flat",
        search=SearchSettings(),
        rows=gallery.rows,
        dimension=gallery.dimension,
        model=gallery.model,
        model_sha256=gallery.model_sha256,
        modality=gallery.modality,  # type: ignore[arg-type]
        head=gallery.head,
        galleries=[GalleryPart(folder=relative, rows=gallery.rows)],
        target_recall=0.95,
        measured_recall=1.0,
        sample={},
        bytes=4 * gallery.rows * gallery.dimension,
        seed=0,
        made=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        fingerprint=new_fingerprint(),
    )

    def write(version: Path) -> None:
        faiss.write_index(index, str(version / INDEX_FILE))
        duplicates = pa.table(
            {"row": pa.array([], pa.int64()), "group": pa.array([], pa.int64()), "kind": pa.array([], pa.string())}
        )
        pq.write_table(duplicates, version / DUPLICATES_FILE)

    publish(folder, relative, meta, write)
    return meta


def require_sound(gallery: GalleryFiles, vectors: Vectors) -> None:
    """Raise DataError if a gallery has no rows, or rows that are not finite or not normalised."""
    if not len(vectors):
        raise DataError(f"{gallery.folder} has no embeddings (unreadable items are listed in unreadable.parquet).")
    wrong, first = 0, -1
    for start, block in vectors.blocks():
        lengths = np.sqrt(np.einsum("ij,ij->i", block, block))
        bad = np.flatnonzero(~((lengths > LENGTHS[0]) & (lengths < LENGTHS[1])))
        if len(bad) and first < 0:
            first = start + int(bad[0])
        wrong += len(bad)
    if wrong:
        raise DataError(
            f"{wrong:,} of {len(vectors):,} embeddings in {gallery.folder} are not finite or not normalised (the first "
            f"is row {first}); the model has probably diverged, or the file is damaged. Run `cusa embed` again."
        )
