"""The queries that an index is measured with: held-out rows, and texts."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa

from cusa.common.files import sha256_of_file
from cusa.common.workflow_files import workflow_command
from cusa.errors import CusaError, DataError
from cusa.gallery.store import Gallery
from cusa.model.exported import Exported
from cusa.model.loading import kind_of, load
from cusa.runs.record import WEIGHTS

log = logging.getLogger(__name__)
QUERIES = 500  # of each sample
HELD_OUT = "gallery"
TEXTS = "texts"


def held_out(rows: np.ndarray, seed: int) -> np.ndarray:
    """The rows that serve as queries before they are added to the index, sorted; at most a twentieth of all."""
    count = min(QUERIES, max(1, len(rows) // 20))
    return np.sort(np.random.default_rng(seed + 3).choice(rows, count, replace=False))


def text_queries(
    items: pa.Table, modality: str, head: str, dimension: int, sha256: str, model: Path, queries: Path | None, seed: int
) -> np.ndarray | None:
    """Embeddings of texts as users may ask for them, float32 [n, D], or None if there are none.

    They are those of the folder `queries`, else of captions of the gallery's pictures, encoded by `model`. A gallery
    of the head `uni` is not asked by texts, and rows that are texts are texts themselves.
    """
    if queries is not None:
        return _given(queries, dimension, sha256, seed)
    if modality != "image" or head != "cross":
        return None
    captions = _some_captions(items["captions"], seed)
    if not captions:
        log.warning(
            "the gallery has no captions, so its index is measured with pictures as queries only; give texts that were "
            "embedded by `cusa embed` as --queries, because an index can serve texts worse than pictures"
        )
        return None
    try:
        return load(model).encode_text(captions, head="cross")
    except (CusaError, ImportError) as error:
        log.warning("the index is measured with pictures as queries only; captions cannot be encoded: %s", error)
        return None


def weights_of(model: Path) -> str:
    """The sha256 of the weights of a run folder or an exported folder, without loading it."""
    if kind_of(model) == "run":
        weights = model / WEIGHTS
        if not weights.is_file():
            raise DataError(f"{weights} does not exist; run `{workflow_command('models')}` first.")
        return sha256_of_file(weights)
    return Exported.read(model).weights_sha256


def _given(folder: Path, dimension: int, sha256: str, seed: int) -> np.ndarray:
    gallery = Gallery.open(folder)
    if (gallery.meta.model_sha256, gallery.dimension) != (sha256, dimension):
        raise DataError(
            f"the queries in {folder} come from the weights {gallery.meta.model_sha256[:12]} and have "
            f"{gallery.dimension} values, but the gallery is of {sha256[:12]} and {dimension} values; embed the "
            "queries with the gallery's model."
        )
    if not gallery.rows:
        raise DataError(f"{folder}, which --queries names, has no embeddings.")
    rows = np.random.default_rng(seed + 4).permutation(gallery.rows)[:QUERIES]
    return gallery.vectors[np.sort(rows)]


def _some_captions(captions: pa.ChunkedArray, seed: int) -> list[str]:
    """One caption of each of at most QUERIES items that have some."""
    order = np.random.default_rng(seed + 5).permutation(len(captions))[: 4 * QUERIES]
    found = captions.take(np.sort(order)).to_pylist()
    chosen = (next((text for text in texts if text and text.strip()), None) for texts in found if texts)
    return [text for text in chosen if text is not None][:QUERIES]
