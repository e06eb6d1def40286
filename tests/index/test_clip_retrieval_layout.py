"""The folder for clip-retrieval and autofaiss, read as their code reads it: by plain faiss, numpy, pyarrow and json."""

from __future__ import annotations

import json

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
from gallery_files import clustered, save_gallery

from cusa.errors import DataError
from cusa.index.build import build_index
from cusa.index.changes import remove_items
from cusa.index.clip_retrieval import write_clip_retrieval
from cusa.index.folder import SearchIndex
from cusa.index.options import IndexOptions

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", ["flat", "ivf_sq", "hnsw"])
def test_plain_faiss_and_pyarrow_read_it(tmp_path, kind):
    rows = clustered(1500, 32)
    paths = [tmp_path / f"{row}.png" for row in range(1500)]
    out = save_gallery(tmp_path / "out", rows, pictures=paths, columns={"label": list(range(1500))})
    build_index(out, options=IndexOptions(kind=kind, target_recall=0.9, duplicates="none"))
    remove_items(out, ["0003.png", "0700.png"])
    index = SearchIndex.open(out)
    folder = write_clip_retrieval(index, tmp_path / "clip")

    (name,) = (places := json.loads((folder / "indices_paths.json").read_text()))
    assert places[name] == str(folder)
    read = faiss.read_index(str(folder / "image.index"), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    tables = [pq.read_table(path) for path in sorted((folder / "metadata").glob("*.parquet"))]
    embeddings = np.concatenate([np.load(path) for path in sorted((folder / "img_emb").glob("*.npy"))])
    (metadata,) = tables
    assert read.ntotal == len(embeddings) == metadata.num_rows == 1498
    assert np.array_equal(embeddings, np.delete(rows, [3, 700], axis=0))
    assert metadata.column_names[:2] == ["image_path", "caption"]
    assert metadata["image_path"][3].as_py() == str(tmp_path / "4.png")
    assert metadata["caption"][3].as_py() == "number 4"
    assert metadata["label"][698].as_py() == 699

    # What clip-retrieval asks for: the nearest and their embeddings, by which it leaves out duplicates.
    _, found, again = read.search_and_reconstruct(rows[[900, 4]], 5)
    assert found[:, 0].tolist() == [898, 3]
    assert np.allclose(again[:, 0], rows[[900, 4]], atol=0.05)
    ours = index.nearest(rows[[900]], 5)[1][0]
    assert len(set(found[0].tolist()) & set(ours.tolist())) >= 4


def test_texts_have_the_names_of_texts(tmp_path):
    texts = ["a red car", "a blue one"]
    out = save_gallery(tmp_path / "out", clustered(2, 8), texts, modality="text", captions=[[], []])
    build_index(out)
    folder = write_clip_retrieval(SearchIndex.open(out), tmp_path / "clip")
    assert np.load(folder / "text_emb/text_emb_0.npy").shape == (2, 8)
    assert faiss.read_index(str(folder / "text.index")).ntotal == 2
    assert pq.read_table(folder / "metadata/metadata_0.parquet")["caption"].to_pylist() == texts


def test_a_folder_that_exists_stays_as_it_is(tmp_path):
    build_index(save_gallery(tmp_path / "out", clustered(2, 8)))
    (tmp_path / "clip").mkdir()
    with pytest.raises(DataError, match="clip exists already; name another folder"):
        write_clip_retrieval(SearchIndex.open(tmp_path / "out"), tmp_path / "clip")
