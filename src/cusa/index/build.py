"""Building the index of a gallery: chosen by measuring, its duplicates marked, published as a whole."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cusa import __version__
from cusa.errors import ConfigurationError
from cusa.index.choice import Chosen, choose
from cusa.index.contents import Contents, locked
from cusa.index.duplicates import find_duplicates
from cusa.index.galleries import require_sound
from cusa.index.kinds import Plan
from cusa.index.meta import DUPLICATES_FILE, INDEX_FILE, REMOVED_FILE, IndexMeta
from cusa.index.options import IndexOptions
from cusa.index.queries import HELD_OUT, TEXTS, held_out, text_queries, weights_of
from cusa.index.sample import Sample, exact_samples
from cusa.index.storage import new_fingerprint, now, publish, require_free
from cusa.metrics.neighbours import import_faiss

log = logging.getLogger(__name__)


def build_index(
    out: str | Path,
    output: str | Path | None = None,
    options: IndexOptions | None = None,
    from_scratch: bool = False,
) -> IndexMeta:
    """Build the index of the gallery in `out`, in the folder `output` (None: in `out` itself), and return its meta.

    An existing index answers until the new one is complete. Its added and removed items stay added and removed, unless
    `from_scratch`. Raises DataError for a gallery that is damaged, empty, or has rows that are not finite.
    """
    options = options or IndexOptions()
    out = Path(out).absolute()
    folder = out if output is None else Path(output).absolute()
    import_faiss()
    contents = Contents.of(folder, out, from_scratch)  # before the folder is made
    with locked(folder), threads(options.processors()):
        require_free(folder)
        for gallery in contents.galleries:
            require_sound(gallery)
        return make(contents, options)


def make(contents: Contents, options: IndexOptions) -> IndexMeta:
    """Choose, build, mark and publish an index of the rows of `contents` that are not removed."""
    model = answering_model(contents, options.model)
    plan = Plan(contents.vectors, contents.live, options.seed)
    flat = options.kind == "flat" or (options.kind is None and len(plan.rows) <= options.flat_rows)
    held = np.empty(0, dtype=np.int64) if flat else held_out(plan.rows, options.seed)
    samples = [] if flat else samples_of(contents, held, model, options)
    chosen = choose(plan, held, samples, options)
    duplicates = find_duplicates(contents, chosen.kind, chosen.index, options)
    sample = {one.name: len(one.queries) for one in samples}
    return publish_chosen(contents, chosen, options, model, sample, len(contents.live), duplicates)


def samples_of(contents: Contents, held: np.ndarray, model: Path, options: IndexOptions) -> list[Sample]:
    """The queries that an index is measured with, and their exact neighbours among the rows that are not held out."""
    meta = contents.galleries[0].meta
    items = contents.items.take(contents.live) if len(contents.removed) else contents.items
    queries = {HELD_OUT: contents.vectors[held]}
    texts = text_queries(
        items, meta.modality, meta.head, meta.dimension, meta.model_sha256, model, options.queries, options.seed
    )
    if texts is not None:
        queries[TEXTS] = texts
    log.info("exact neighbours of %s", ", ".join(f"{len(found)} {name}" for name, found in queries.items()))
    return exact_samples(contents.vectors, np.setdiff1d(contents.live, held, assume_unique=True), queries)


def publish_chosen(
    contents: Contents,
    chosen: Chosen,
    options: IndexOptions,
    model: Path,
    sample: dict[str, int],
    built_rows: int,
    duplicates: pa.Table,
) -> IndexMeta:
    """Publish a chosen index, with the table of its duplicates, as the index of its folder."""
    faiss = import_faiss()
    gallery = contents.galleries[0]
    meta = IndexMeta(
        kind=chosen.kind,
        factory=chosen.factory,
        search=chosen.search,
        rows=len(contents.live),
        removed=len(contents.removed),
        built_rows=built_rows,
        options=options.stored(),
        dimension=gallery.dimension,
        model=str(model),
        model_from_index=os.path.relpath(model, contents.folder),
        model_sha256=gallery.meta.model_sha256,
        modality=gallery.meta.modality,
        head=gallery.meta.head,
        galleries=contents.parts(),
        target_recall=options.target_recall,
        measured_recall=chosen.recall,
        sample=sample,
        tried=chosen.tried,
        bytes=0,
        seed=options.seed,
        made=now(),
        fingerprint=new_fingerprint(),
        versions={"cusa": __version__, "faiss": faiss.__version__, "numpy": version("numpy")},
    )

    def write(folder: Path) -> None:
        faiss.write_index(chosen.index, str(folder / INDEX_FILE))
        pq.write_table(duplicates, folder / DUPLICATES_FILE)
        contents.write_removed(folder / REMOVED_FILE)

    return publish(contents.folder, meta, write)


def answering_model(contents: Contents, model: Path | None) -> Path:
    """The folder of the model that encodes queries. Raises ConfigurationError if it holds other weights."""
    gallery = contents.galleries[0]
    if model is None:
        return Path(gallery.meta.model)
    model = Path(model).absolute()
    if (found := weights_of(model)) != gallery.meta.model_sha256:
        raise ConfigurationError(
            f"{model} comes from the weights {found[:12]}, but the embeddings in {gallery.folder} from "
            f"{gallery.meta.model_sha256[:12]}; name the run {gallery.meta.model}, or an export of it."
        )
    return model


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the number of faiss's threads within the block."""
    faiss: Any = import_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
