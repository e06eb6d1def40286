"""The folder that `clip-retrieval back` and autofaiss read, written from an index.

img_emb/img_emb_0.npy        float32 [rows, D]; of texts: text_emb/text_emb_0.npy
metadata/metadata_0.parquet  one row an embedding: image_path, caption, and the columns of the gallery
image.index                  an index of faiss whose ids are the numbers of those rows; of texts: text.index
indices_paths.json           {name: folder}, what `clip-retrieval back --indices_paths` is given
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cusa.common.files import atomic_folder, write_json
from cusa.errors import DataError
from cusa.index.folder import SearchIndex
from cusa.index.galleries import BLOCK_BYTES
from cusa.index.kinds import EF_CONSTRUCTION, LINKS
from cusa.index.meta import INDEX_FILE
from cusa.metrics.neighbours import import_faiss

NAMES = {"image": ("img_emb", "image"), "text": ("text_emb", "text")}
PLACES = ("path", "offset", "size", "captions")  # columns that image_path and caption stand for


def write_clip_retrieval(index: SearchIndex, folder: str | Path) -> Path:
    """Write the rows of `index` to a new folder in the layout of clip-retrieval.

    Its faiss index is of the same kind, is searched with the same settings by default, and can reconstruct its rows,
    as clip-retrieval needs for leaving out duplicates. Raises DataError if the folder exists.
    """
    folder = Path(folder).absolute()
    if folder.exists():
        raise DataError(f"{folder} exists already; name another folder, nothing is overwritten.")
    embeddings, name = NAMES[index.modality]
    with atomic_folder(folder) as temporary:
        (temporary / embeddings).mkdir()
        (temporary / "metadata").mkdir()
        _write_embeddings(index, temporary / embeddings / f"{embeddings}_0.npy")
        pq.write_table(_metadata(index), temporary / "metadata" / "metadata_0.parquet")
        import_faiss().write_index(_numbered(index), str(temporary / f"{name}.index"))
        write_json(temporary / "indices_paths.json", {folder.name: str(folder)})
    return folder


def _blocks(index: SearchIndex) -> list[np.ndarray]:
    step = max(1, BLOCK_BYTES // (4 * index.dimension))
    return [np.arange(start, min(start + step, index.rows)) for start in range(0, index.rows, step)]


def _write_embeddings(index: SearchIndex, path: Path) -> None:
    array = np.lib.format.open_memmap(path, "w+", np.float32, (index.rows, index.dimension))
    for rows in _blocks(index):
        array[rows[0] : rows[-1] + 1] = index.vectors(rows)
    array.flush()


def _metadata(index: SearchIndex) -> pa.Table:
    """The items, with the names of clip-retrieval. A caption is the first one that is known of an item, or empty."""
    items, captions = index.items, index.captions
    path = items["path"] if index.modality == "image" else items["item"]
    names = pa.array([known or item for known, item in zip(path.to_pylist(), items["item"].to_pylist(), strict=True)])
    first = [texts[0] if texts else "" for texts in captions.to_pylist()]
    texts = pa.array(first if index.modality == "image" else items["item"].to_pylist(), pa.string())
    columns: dict[str, Any] = {"image_path": names, "caption": texts}
    columns |= {name: items[name] for name in items.column_names if name not in (*PLACES, *columns)}
    return pa.table(columns)


def _numbered(index: SearchIndex) -> Any:
    """An index of faiss in memory whose ids are the numbers of the rows, with the search settings as its defaults."""
    faiss = import_faiss()
    settings = index.meta.search
    if settings.nprobe is not None:
        # What was trained, with new lists in memory in place of the mapped ones.
        path = index.meta.file(index.folder, INDEX_FILE)
        copy = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        lists = faiss.ArrayInvertedLists(copy.nlist, copy.code_size)
        copy.replace_invlists(lists, True)
        lists.this.disown()  # the index owns them now
        copy.ntotal, copy.nprobe = 0, settings.nprobe
        for rows in _blocks(index):
            copy.add_with_ids(index.vectors(rows), rows)
        return copy
    if settings.ef_search is not None:
        copy = faiss.IndexHNSWFlat(index.dimension, LINKS, faiss.METRIC_INNER_PRODUCT)
        copy.hnsw.efConstruction, copy.hnsw.efSearch = EF_CONSTRUCTION, settings.ef_search
    else:
        copy = faiss.IndexFlatIP(index.dimension)
    for rows in _blocks(index):
        copy.add(index.vectors(rows))
    return copy
