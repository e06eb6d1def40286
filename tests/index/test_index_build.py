"""Building an index: the kind that is chosen, its recall, reproducibility, and what is wrong with a gallery."""

from __future__ import annotations

import json
import logging
import sys

import faiss
import numpy as np
import pytest
from gallery_files import clustered, save_gallery, unit

from cusa.errors import ConfigurationError, DataError
from cusa.index.build import build_index
from cusa.index.contents import Contents
from cusa.index.folder import SearchIndex
from cusa.index.meta import VERSIONS
from cusa.index.options import IndexOptions
from cusa.index.sample import Sample
from cusa.index.table import table

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = 3000


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    return clustered(ROWS, 32, clusters=60)


@pytest.fixture(scope="module")
def made(tmp_path_factory, embeddings):
    return save_gallery(tmp_path_factory.mktemp("made") / "out", embeddings)


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> str:
    """Queries that lie elsewhere than the gallery, as texts do."""
    rows = unit(clustered(200, 32, seed=4, clusters=60) + 1.5 * clustered(1, 32, seed=5))
    return save_gallery(tmp_path_factory.mktemp("texts") / "out", rows, modality="text")


def measured_recall(index: SearchIndex, embeddings: np.ndarray, queries: np.ndarray) -> float:
    exact = np.sort(queries @ embeddings.T, axis=1)[:, -10]
    return float((index.nearest(queries, 10)[0] >= exact[:, None] - 1e-5).mean())


def test_few_rows_are_compared_one_by_one(made, tmp_path):
    meta = build_index(made, tmp_path / "index")
    assert (meta.kind, meta.measured_recall, meta.search.model_dump(exclude_none=True)) == ("flat", 1.0, {})
    plain = faiss.read_index(str(tmp_path / "index/index.faiss"))
    assert plain.ntotal == ROWS


@pytest.mark.parametrize("kind", ["hnsw", "ivf_sq", "ivf_pq"])
def test_each_kind_reaches_its_target_for_pictures_and_texts(made, texts, embeddings, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("cusa.index.folder.EXACT_ROWS", 10)  # so that the index itself is asked
    meta = build_index(made, tmp_path / "index", IndexOptions(kind=kind, queries=texts))
    assert meta.kind == kind
    assert set(meta.sample) == {"gallery", "texts"}
    assert meta.measured_recall >= 0.95
    index = SearchIndex.open(tmp_path / "index")
    assert index.faiss_index.ntotal == ROWS  # also the rows that were queries
    for seed in (7, 8):
        assert measured_recall(index, embeddings, clustered(200, 32, seed=seed, clusters=60)) >= 0.93
    few = np.random.default_rng(0).random(ROWS) < 0.05
    scores, rows = index.nearest(embeddings[:20], 10, few)
    exact = np.sort(embeddings[:20] @ embeddings[few].T, axis=1)[:, -10]
    assert few[rows].all()
    assert (scores >= exact[:, None] - 1e-5).mean() >= 0.9
    assert index.nearest(embeddings[:2], 2500)[1].shape == (2, 2500)


def test_the_quickest_kind_that_reaches_the_target_is_chosen(made, tmp_path):
    meta = build_index(made, tmp_path / "index", IndexOptions(flat_rows=1000))
    (chosen,) = [trial for trial in meta.tried if trial.chosen]
    assert {trial.kind for trial in meta.tried} == {"ivf_pq", "ivf_sq", "hnsw"}
    assert (chosen.kind, chosen.search) == (meta.kind, meta.search)
    reaching = [trial for trial in meta.tried if min(trial.recall.values()) >= 0.97]
    assert all(trial.milliseconds >= chosen.milliseconds for trial in reaching)
    lines = table(meta)
    assert lines[0].split()[:2] == ["index", "search"]
    assert sum("chosen" in line for line in lines) == 1
    assert len(lines) == len(meta.tried) + 2
    stored = json.loads((tmp_path / "index/meta.json").read_text())["index"]
    assert stored["target_recall"] == 0.95 and len(stored["tried"]) == len(meta.tried)


def test_texts_are_a_sample_of_their_own(made, texts, tmp_path, caplog):
    """A gallery without captions is measured by pictures alone, and says so."""
    plain = save_gallery(tmp_path / "out", clustered(2000, 32), captions=[[] for _ in range(2000)])
    with caplog.at_level(logging.WARNING):
        meta = build_index(plain, options=IndexOptions(kind="ivf_sq"))
    assert set(meta.sample) == {"gallery"}
    assert "has no captions" in caplog.text
    with caplog.at_level(logging.WARNING):
        build_index(made, tmp_path / "index", IndexOptions(kind="ivf_sq"))
    assert "captions cannot be encoded" in caplog.text
    other = save_gallery(tmp_path / "other", clustered(10, 32), model_sha256="c" * 64, modality="text")
    with pytest.raises(DataError, match="come from the weights cccccccccccc"):
        build_index(made, tmp_path / "third", IndexOptions(kind="ivf_sq", queries=other))


def test_the_same_seed_makes_the_same_index(made, tmp_path):
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build_index(made, tmp_path / name, IndexOptions(kind="ivf_pq", seed=seed, target_recall=0.8))
        files.append((tmp_path / name / "index.faiss").read_bytes())
    assert files[0] == files[1] != files[2]


def test_a_new_index_takes_the_place_of_the_old_one(made, tmp_path):
    first = build_index(made, tmp_path / "index")
    old = SearchIndex.open(tmp_path / "index")
    second = build_index(made, tmp_path / "index", IndexOptions(kind="ivf_sq", target_recall=0.8))
    assert first.fingerprint != second.fingerprint
    assert SearchIndex.open(tmp_path / "index").meta.kind == "ivf_sq"
    assert [path.name for path in (tmp_path / "index" / VERSIONS).iterdir()] == [second.fingerprint]
    assert old.nearest(old.vectors(np.array([17])), 1)[1][0, 0] == 17


def test_recall_counts_rows_of_equal_scores():
    exact = np.array([[0.9] * 9 + [0.5], [0.9] * 9 + [-np.inf]], dtype=np.float32)
    sample = Sample("gallery", np.zeros((2, 4), dtype=np.float32), exact)
    found = np.array([[0.9] * 9 + [0.4999999], [0.9] * 8 + [0.1, -np.inf]], dtype=np.float32)
    assert sample.recall(found).tolist() == pytest.approx([1.0, 8 / 9])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.empty((0, 8), dtype=np.float32), "has no embeddings, so there is nothing to index"),
        (np.where(np.arange(8) < 7, clustered(5, 8), np.nan).astype(np.float32), "5 of 5 embeddings .* first is row 0"),
        (clustered(5, 8) * 3, "not finite or not normalised"),
    ],
    ids=["no rows", "nan", "lengths"],
)
def test_embeddings_that_cannot_be_searched_are_sentences(tmp_path, rows, message):
    out = save_gallery(tmp_path / "out", rows)
    with pytest.raises(DataError, match=message):
        build_index(out)
    assert not (out / "index.faiss").exists()


def test_damaged_folders_are_sentences(made, tmp_path):
    with pytest.raises(DataError, match="meta.json does not exist; `cusa embed RUN ITEMS"):
        build_index(tmp_path)
    out = save_gallery(tmp_path / "out", clustered(50, 8))
    content = (out / "embeddings.npy").read_bytes()
    (out / "embeddings.npy").write_bytes(content[:-100])
    with pytest.raises(DataError, match="embeddings.npy is not a complete npy file"):
        build_index(out)
    (out / "embeddings.npy").write_bytes(content)
    build_index(out, tmp_path / "index")
    with pytest.raises(DataError, match=f"holds the index of {out.resolve()}, not an index of"):
        build_index(made, tmp_path / "index")
    with pytest.raises(DataError, match="holds a gallery, not an index of"):
        build_index(made, out)
    index = next((tmp_path / "index" / VERSIONS).glob("*/index.faiss"))
    index.write_bytes(index.read_bytes()[:200])
    with pytest.raises(DataError, match=r"index.faiss is not a complete faiss file .*run `cusa index .*index` again"):
        SearchIndex.open(tmp_path / "index")
    index.unlink()
    with pytest.raises(DataError, match=r"index.faiss does not exist, but .* names it; run `cusa index .*index` again"):
        SearchIndex.open(tmp_path / "index")


def test_a_file_of_the_users_is_not_overwritten(made, tmp_path):
    (tmp_path / "index").mkdir()
    (tmp_path / "index/index.faiss").write_text("mine")
    with pytest.raises(DataError, match="`cusa index` did not write it; move it away"):
        build_index(made, tmp_path / "index")
    assert (tmp_path / "index/index.faiss").read_text() == "mine"


def test_a_damaged_key_is_named(made, tmp_path):
    build_index(made, tmp_path / "index")
    path = tmp_path / "index/meta.json"
    content = json.loads(path.read_text())
    content["index"]["rows"] = "many"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"the key index\.rows is not as expected"):
        SearchIndex.open(tmp_path / "index")


def test_faiss_that_is_missing_is_a_sentence(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigurationError, match=r"faiss cannot be imported .*pip install 'cusa\[cpu\]'"):
        build_index(made, tmp_path / "index")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target_recall": 1.5}, "target recall is 1.5; expected a share"),
        ({"kind": "lsh"}, "kind of index is 'lsh'; expected one of flat, hnsw, ivf_sq, ivf_pq"),
        ({"threads": 0}, "threads is 0; expected at least 1"),
        ({"duplicates": "all"}, "duplicates is 'all'; expected one of near, same, none"),
    ],
    ids=["recall", "kind", "threads", "duplicates"],
)
def test_options_that_make_no_sense(values, message):
    with pytest.raises(ConfigurationError, match=message):
        IndexOptions(**values)


def test_a_target_that_nothing_reaches(made, tmp_path, monkeypatch):
    monkeypatch.setattr("cusa.index.tuning.RERANK", (1,))
    with pytest.raises(ConfigurationError, match=r"no index reaches the target recall 1.0 .*--kind flat"):
        build_index(made, tmp_path / "a", IndexOptions(kind="ivf_pq", target_recall=1.0))
    meta = build_index(made, tmp_path / "b", IndexOptions(flat_rows=100, target_recall=1.0, memory=1 << 20))
    assert meta.kind in ("flat", "ivf_sq") and meta.measured_recall == 1
    with pytest.raises(ConfigurationError, match=r"takes about .* GiB are allowed; give more by --memory"):
        build_index(made, tmp_path / "c", IndexOptions(flat_rows=100, memory=1000))


def test_codes_are_not_learned_from_a_handful_of_rows(tmp_path):
    few = save_gallery(tmp_path / "few", clustered(30, 32, clusters=3))
    with pytest.raises(ConfigurationError, match=r"ivf-pq learns its codes from 256 rows at least, but there are 30"):
        build_index(few, tmp_path / "a", IndexOptions(kind="ivf_pq"))
    meta = build_index(few, tmp_path / "b", IndexOptions(flat_rows=10))
    assert "ivf_pq" not in {trial.kind for trial in meta.tried}
    assert len(meta.tried) > 1


def test_the_contents_of_a_gallery_are_its_rows(made):
    contents = Contents.of(made, made)
    assert np.array_equal(contents.live, np.arange(ROWS))
    assert contents.without(np.array([3, 5])).live[3] == 4
