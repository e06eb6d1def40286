"""SearchIndex: nearest neighbours, filters, pictures, and what is wrong with a folder."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from gallery_files import clustered, save_gallery, save_picture

from cusa.errors import DataError
from cusa.index.build import build_index
from cusa.index.folder import SearchIndex


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    return clustered(500, 32)


@pytest.fixture(scope="module", params=[None, 3], ids=["one file", "three parts"])
def out(request, tmp_path_factory, embeddings):
    folder = save_gallery(tmp_path_factory.mktemp("gallery") / "out", embeddings, parts=request.param)
    build_index(folder)
    return folder


@pytest.fixture
def index(out) -> SearchIndex:
    return SearchIndex.open(out)


def exact(queries: np.ndarray, gallery: np.ndarray, top: int) -> np.ndarray:
    return np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :top]


def test_the_nearest_rows_are_those_with_the_highest_cosines(index, embeddings):
    queries = clustered(7, 32, seed=1)
    scores, rows = index.nearest(queries, 10)
    assert (scores.dtype, rows.dtype, scores.shape) == (np.float32, np.int64, (7, 10))
    assert np.array_equal(rows, exact(queries, embeddings, 10))
    assert np.allclose(scores, np.take_along_axis(queries @ embeddings.T, rows, axis=1), atol=1e-6)
    assert (index.rows, index.dimension, index.modality, index.head) == (500, 32, "image", "cross")


def test_rows_that_are_not_allowed_are_not_found(index, embeddings):
    queries = clustered(3, 32, seed=2)
    allowed = np.arange(500) % 3 == 1
    _, rows = index.nearest(queries, 5, allowed)
    assert np.array_equal(rows, np.flatnonzero(allowed)[exact(queries, embeddings[allowed], 5)])


def test_fewer_rows_than_asked_for_end_in_minus_one(index):
    allowed = np.zeros(500, dtype=bool)
    allowed[[3, 5]] = True
    scores, rows = index.nearest(clustered(2, 32, seed=3), 4, allowed)
    assert sorted(rows[0, :2].tolist()) == [3, 5]
    assert (rows[:, 2:] == -1).all() and np.isneginf(scores[:, 2:]).all()
    scores, rows = index.nearest(clustered(1, 32), 4, np.zeros(500, dtype=bool))
    assert (rows == -1).all() and np.isneginf(scores).all()
    scores, rows = index.nearest(clustered(1, 32), 600)
    assert sorted(rows[0, :500].tolist()) == list(range(500)) and (rows[0, 500:] == -1).all()
    assert index.nearest(np.empty((0, 32), dtype=np.float32), 3)[1].shape == (0, 3)


def test_rows_have_items_captions_and_vectors(index, embeddings):
    assert index.items["item"][499].as_py() == "0499.png"
    assert index.captions[7].as_py() == ["number 7"]
    assert np.array_equal(index.vector(400), embeddings[400])
    assert np.array_equal(index.vectors(np.array([400, 1])), embeddings[[400, 1]])
    with pytest.raises(DataError, match="item 3 of .* has no picture"):
        index.picture_bytes(3)
    with pytest.raises(DataError, match="there is no row 500 in .*; its rows are 0 to 499"):
        index.vector(500)


def test_the_bytes_of_pictures_are_files_or_parts_of_files(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = [save_picture(tmp_path / f"{number}.png", number) for number in range(3)]
    out = save_gallery(tmp_path / "out", clustered(3, 8), pictures=pictures)
    (tmp_path / "all.tar").write_bytes(b"head" + pictures[1].read_bytes() + b"tail")
    table = pq.read_table(out / "items.parquet").to_pylist()
    table[1] |= {"path": str(tmp_path / "all.tar"), "offset": 4, "size": pictures[1].stat().st_size}
    pq.write_table(pa.Table.from_pylist(table), out / "items.parquet")
    build_index(out)
    index = SearchIndex.open(out)
    assert index.picture_bytes(0) == pictures[0].read_bytes()
    assert index.picture_bytes(1) == pictures[1].read_bytes()
    pictures[2].unlink()
    with pytest.raises(DataError, match=r"2\.png cannot be read .No such file"):
        index.picture_bytes(2)


@pytest.mark.parametrize(
    ("queries", "allowed", "message"),
    [
        (np.zeros((1, 31)), None, r"shape \[1, 31\], but the index .* dimension 32"),
        (np.zeros(32), None, r"shape \[32\]"),
        (np.full((1, 32), np.nan), None, "not finite"),
        (np.ones((1, 32)), np.ones(499, dtype=bool), r"bool \[499\]; expected bool \[500\]"),
        (np.ones((1, 32)), np.ones(500), "float64"),
    ],
    ids=["dimension", "one vector", "nan", "short mask", "mask of numbers"],
)
def test_wrong_queries_are_sentences(index, queries, allowed, message):
    with pytest.raises(DataError, match=message):
        index.nearest(queries, 3, allowed)


def test_an_index_elsewhere_names_its_gallery(tmp_path, embeddings):
    out = save_gallery(tmp_path / "out", embeddings)
    build_index(out, tmp_path / "search/test")
    index = SearchIndex.open(tmp_path / "search/test")
    assert index.items.num_rows == 500
    assert json.loads((tmp_path / "search/test/meta.json").read_text())["gallery"] == "../../out"
    assert "index" not in json.loads((out / "meta.json").read_text())
    with pytest.raises(DataError, match="has embeddings but no index yet; run `cusa index "):
        SearchIndex.open(out)


def test_opening_imports_no_torch(out):
    code = f"from cusa.index.folder import SearchIndex; SearchIndex.open({str(out)!r}); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "sentence_transformers"} & set(done.stdout.split())
