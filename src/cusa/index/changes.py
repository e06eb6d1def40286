"""Adds items to an index and removes items, without embedding or building again if that can be avoided.

Added embeddings become part of the index: their files are linked into its folder `added`, or copied if the file
system has no hard links, so the folder that they come from may be deleted. Removed rows stay in the files, but are
never found; when they are many, the index is built again without them.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cusa.common.files import atomic_folder, read_parquet
from cusa.errors import DataError
from cusa.gallery.store import META, UNREADABLE, Gallery
from cusa.index.build import make, publish_chosen, threads
from cusa.index.choice import Chosen
from cusa.index.contents import Contents, locked, require_same_model, rows_of
from cusa.index.duplicates import find_duplicates, renumbered
from cusa.index.galleries import require_sound, with_paths
from cusa.index.kinds import add
from cusa.index.meta import ADDED, DUPLICATES_FILE, INDEX_FILE, REMOVED_FILE, IndexMeta
from cusa.index.options import IndexOptions
from cusa.index.queries import held_out
from cusa.index.sample import exact_samples
from cusa.index.storage import new_fingerprint, now, publish, sweep
from cusa.index.tuning import Tuner, reaches
from cusa.metrics.neighbours import import_faiss

log = logging.getLogger(__name__)
MOST_REMOVED = 0.2  # of the rows of index.faiss; with more, it is built again
MOST_GROWTH = 1.5  # times the rows that the index was built of; with more, it is built again
EXAMPLES = 5
Change = Callable[[IndexOptions], IndexOptions]


def add_gallery(
    folder: str | Path, out: str | Path, change: Change | None = None, replace_items: bool = False
) -> IndexMeta:
    """Add the embeddings of `out` to the index in `folder`; return the meta of the new index.

    They must come from the same weights. Items that the index has already are an error, unless `replace_items`: then
    the new rows take the places of the old ones. `change` makes other options of those that the index was built with,
    used if it is built again. The old index serves until the new one is whole.
    """
    folder, added = Path(folder).absolute(), Gallery.open(out)
    before, meta = Contents.of_index(folder)
    options = _as_before(before, meta, change)
    require_same_model(before.galleries[0], added)
    require_sound(added)
    with locked(folder), threads(options.processors()):
        before, meta = Contents.of_index(folder)
        known = _known(before, added)
        if len(known) and not replace_items:
            names = before.items["item"].take(known[:EXAMPLES]).to_pylist()
            raise DataError(
                f"{len(known):,} of the {added.rows:,} items of {added.folder} are in the index {folder} already, for "
                f"instance {', '.join(map(repr, names))}; take the new ones in their place by --replace, or leave them "
                "out."
            )
        kept = _keep(added, folder)
        after = replace(before, galleries=(*before.galleries, kept), removed=np.union1d(before.removed, known))
        try:
            return _grown(before, after, meta, options)
        finally:
            sweep(folder)


def remove_items(
    folder: str | Path, items: Sequence[str], change: Change | None = None, missing_ok: bool = False
) -> IndexMeta:
    """Remove items from the index in `folder`; return the meta of the new index.

    `change` makes other options of those that the index was built with, used if it is built again. Items that
    it does not have are an error, unless `missing_ok`. The old index serves until the new one is whole.
    """
    folder = Path(folder).absolute()
    with locked(folder):
        before, meta = Contents.of_index(folder)
        options = _as_before(before, meta, change)
        column = before.items["item"].take(before.live)
        rows = before.live[rows_of(column, set(items))]
        if (lacking := len(set(items)) - len(rows)) and not missing_ok:
            here = set(column.to_pylist())
            names = [item for item in dict.fromkeys(items) if item not in here][:EXAMPLES]
            raise DataError(
                f"{lacking:,} of the {len(set(items)):,} items are not in the index {folder}, for instance "
                f"{', '.join(map(repr, names))}; nothing was removed. Leave them out, or give --missing-ok."
            )
        if not len(rows):
            return meta
        after = before.without(rows)
        with threads(options.processors()):
            if len(after.removed) > MOST_REMOVED * len(after.vectors):
                log.info("%d of %d rows are removed; the index is built again", len(after.removed), len(after.vectors))
                return make(after, options)
            return _smaller(before, after, meta)


def _as_before(before: Contents, meta: IndexMeta, change: Change | None) -> IndexOptions:
    """The options that an index was built with, after `change`."""
    other_model = None if meta.model == before.galleries[0].meta.model else Path(meta.model)
    options = IndexOptions(**meta.options, model=other_model)
    return options if change is None else change(options)


def _known(before: Contents, added: Gallery) -> np.ndarray:
    """The rows of the index whose items are among those of `added`."""
    column = before.items["item"].take(before.live)
    found = pc.is_in(column, value_set=added.items["item"].combine_chunks()).to_numpy()
    return np.asarray(before.live[found])


def _keep(added: Gallery, folder: Path) -> Gallery:
    """The gallery in the folder of the index: its files linked, or copied if that is not possible."""
    parent = folder / ADDED
    numbers = [int(path.name) for path in parent.iterdir() if path.name.isdigit()] if parent.is_dir() else []
    kept = parent / f"{max(numbers, default=-1) + 1:06}"
    with atomic_folder(kept) as temporary:
        for name in [META, *(part.embeddings for part in added.meta.parts)]:
            _link_or_copy(added.folder / name, temporary / name)
        if (added.folder / UNREADABLE).is_file():
            _link_or_copy(added.folder / UNREADABLE, temporary / UNREADABLE)
        for part in added.meta.parts:
            _keep_items(added.folder, part.items, temporary, kept)
    return Gallery.open(kept)


def _keep_items(source: Path, name: str, temporary: Path, kept: Path) -> None:
    """Write a part's items into `temporary`, which becomes `kept`. Pictures inside the gallery come along."""
    items = read_parquet(source / name)

    def moved(path: str) -> Path:
        inside = Path(os.path.normpath(path))
        if inside.parts[0] == "..":  # beside the gallery, where it stays
            return Path(os.path.relpath(source / path, kept))
        if not (temporary / inside).exists():
            _link_or_copy(source / inside, temporary / inside)
        return inside

    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(with_paths(items, moved), temporary / name)


def _grown(before: Contents, after: Contents, meta: IndexMeta, options: IndexOptions) -> IndexMeta:
    """The index with the added rows of `after`; built again if it has far more rows now, or a low recall on them."""
    new = np.arange(len(before.vectors), len(after.vectors))
    again = (
        len(after.live) > MOST_GROWTH * meta.built_rows
        or len(after.removed) > MOST_REMOVED * len(after.vectors)
        or (meta.kind == "flat" and len(after.live) > options.flat_rows)
    )
    if again:
        return make(after, options)
    index = _in_memory(meta, after.folder)
    chosen = Chosen(meta.kind, meta.factory, index, meta.search, 1.0)
    sample = {}
    if meta.kind != "flat":
        held = held_out(new, options.seed)
        (measured,) = exact_samples(after.vectors, _rows_in(index, before), {"added": after.vectors[held]})
        sample = {"added": len(held)}
        tuner = Tuner(meta.kind, meta.factory, index, meta.bytes, after.vectors, [measured])
        recalls = tuner.recalls(meta.search)
        if not reaches(recalls, meta.target_recall):
            log.info("the index serves the added rows worse than its target, so it is built again")
            return make(after, options)
        chosen.recall = min(meta.measured_recall, float(recalls["added"].mean()))
        chosen.tried = [*meta.tried]
    add(index, after.vectors, new)
    known = renumbered(_duplicates(meta, after.folder), _new_numbers(before, after))
    duplicates = find_duplicates(after, meta.kind, index, options, new, known)
    return publish_chosen(
        after, chosen, options, Path(meta.model), {**meta.sample, **sample}, meta.built_rows, duplicates
    )


def _rows_in(index: Any, before: Contents) -> np.ndarray:
    """The rows that a search of `index` without a filter can find: all that were not removed when it was built."""
    return np.arange(len(before.vectors)) if index.ntotal == len(before.vectors) else before.live


def _new_numbers(before: Contents, after: Contents) -> np.ndarray:
    """The number of each row of the old index in the new one, -1 for removed ones."""
    numbers = np.full(len(after.vectors), -1, dtype=np.int64)
    numbers[after.live] = np.arange(len(after.live))
    return np.asarray(numbers[before.live])


def _duplicates(meta: IndexMeta, folder: Path) -> pa.Table:
    return read_parquet(meta.file(folder, DUPLICATES_FILE))


def _in_memory(meta: IndexMeta, folder: Path) -> Any:
    return import_faiss().read_index(str(meta.file(folder, INDEX_FILE)))


def _smaller(before: Contents, after: Contents, meta: IndexMeta) -> IndexMeta:
    """The same index.faiss with more rows that are never found."""
    folder = after.folder
    duplicates = renumbered(_duplicates(meta, folder), _new_numbers(before, after))
    smaller = meta.model_copy(
        update={
            "rows": len(after.live),
            "removed": len(after.removed),
            "galleries": after.parts(),
            "fingerprint": new_fingerprint(),
            "made": now(),
        }
    )

    def write(version: Path) -> None:
        _link_or_copy(meta.file(folder, INDEX_FILE), version / INDEX_FILE)
        pq.write_table(duplicates, version / DUPLICATES_FILE)
        after.write_removed(version / REMOVED_FILE)

    return publish(folder, smaller, write)


def _link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
