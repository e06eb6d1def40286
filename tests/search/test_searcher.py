"""Searching an index of real embeddings by a tiny model."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import draw_shape

from cusa.errors import ConfigurationError, DataError
from cusa.gallery.items import items_table
from cusa.gallery.store import write_gallery
from cusa.index.build import build_index
from cusa.search.filters import Range
from cusa.search.query import Query
from cusa.search.searcher import Searcher

SHA = "ab" * 32


@pytest.fixture(scope="module")
def searcher(shapes_index) -> Searcher:
    return Searcher.open(shapes_index, device="cpu")


@pytest.fixture(scope="module")
def embeddings(search_model, shapes_items) -> np.ndarray:
    return search_model.encode_image(shapes_items["path"].to_pylist())


class Unloadable:
    """In place of a model, where none may be loaded."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the model was asked for {name}")


def small_index(out: Path, count: int = 6, **described: object) -> Path:
    """An index of `count` vectors, each of which resembles the ones before and after it."""
    angles = np.linspace(0, 1, count)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    columns = {"day": [date(2026, 1, 1) + timedelta(row) for row in range(count)], "price": [float("nan")] * count}
    table = items_table([f"{row}.jpg" for row in range(count)], columns=columns)
    write_gallery(out, vectors, table, out.parent / "no-model", SHA, **described)
    build_index(out)
    return out


def mark_as_the_same(out: Path, groups: dict[int, int]) -> None:
    rows = pa.table({"row": list(groups), "group": list(groups.values()), "kind": ["near"] * len(groups)})
    for path in out.rglob("duplicates.parquet"):
        if not path.is_symlink():
            pq.write_table(rows, path)


def test_a_text_finds_the_pictures_of_the_highest_cosine(searcher, search_model, embeddings, shapes_items):
    (hits,) = searcher.search([Query(text="a large red circle")], top=5)
    scores = (search_model.encode_text(["a large red circle"]) @ embeddings.T)[0]
    best = np.argsort(-scores)[:5]
    assert np.allclose([hit.score for hit in hits], scores[best], atol=1e-5)
    assert [hit.row for hit in hits] == best.tolist()
    first = hits[0]
    row = shapes_items.slice(first.row, 1).to_pylist()[0]
    assert (first.item, first.path, list(first.captions)) == (row["item"], row["path"], row["captions"])
    assert first.columns == {name: row[name] for name in ("split", "colour", "radius")}


def test_a_picture_finds_itself_in_whatever_form_it_comes(searcher, shapes_items):
    path = shapes_items["path"][7].as_py()
    for image in (path, Path(path), Path(path).read_bytes()):
        (hits,) = searcher.search([Query(image=image)], top=1)
        assert hits[0].row == 7
        assert hits[0].score == pytest.approx(1, abs=1e-4)


def test_more_like_a_row_leaves_out_the_row_and_loads_no_model(shapes_index, embeddings):
    searcher = Searcher.open(shapes_index, Unloadable())
    (hits,) = searcher.search([Query(like=7)], top=3)
    scores = embeddings[7] @ embeddings.T
    assert [hit.row for hit in hits] == np.argsort(-scores)[1:4].tolist()


def test_several_queries_have_the_answers_that_each_has_alone(searcher, shapes_items):
    picture = shapes_items["path"][3].as_py()
    queries = [
        Query(text="a small blue square"),
        Query(like=0),
        Query(image=draw_shape("green", "cross", "large")),
        Query(text="yellow", image=picture, weight=0.3),
        Query(text="a circle", exclude=["red", "blue"]),
        Query(text="large", like=5, exclude=["small"]),
    ]
    together = searcher.search(queries, top=4)
    for query, hits in zip(queries, together, strict=True):
        (alone,) = searcher.search([query], top=4)
        assert [hit.row for hit in alone] == [hit.row for hit in hits]
        assert np.allclose([hit.score for hit in alone], [hit.score for hit in hits], atol=1e-5)


def test_query_vectors_are_the_weighted_sums_of_the_models_vectors(searcher, search_model, shapes_items):
    path = shapes_items["path"][3].as_py()
    vectors = searcher.query_vectors(
        [Query(text="red", image=path, weight=0.3), Query(text="red", exclude=["circle"]), Query(like=3)]
    )
    red, circle = search_model.encode_text(["red", "circle"])
    (picture,) = search_model.encode_image([path])
    expected = np.stack([0.3 * picture + 0.7 * red, red - 0.5 * circle, picture])
    assert np.allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    assert vectors.dtype == np.float32


def test_one_batch_is_one_call_of_the_model_for_texts_and_one_for_pictures(shapes_index, search_model, shapes_items):
    calls = []

    class Counting:
        weights_sha256, dimension, folder = search_model.weights_sha256, search_model.dimension, search_model.folder

        def encode_text(self, texts, head):
            calls.append(("text", list(texts), head))
            return search_model.encode_text(texts, head)

        def encode_image(self, items, head):
            calls.append(("image", len(items), head))
            return search_model.encode_image(items, head)

    path = shapes_items["path"][0].as_py()
    queries = [
        Query(text="red", exclude=["blue"]),
        Query(text="blue"),
        Query(text="red", image=path),
        Query(image=path),
    ]
    Searcher.open(shapes_index, Counting()).query_vectors(queries)
    assert calls == [("text", ["red", "blue"], "cross"), ("image", 2, "cross")]


def test_texts_that_the_model_does_not_know_are_told_for_each_query(searcher, shapes_items):
    picture = shapes_items["path"][0].as_py()
    queries = [
        Query(text="😀"),
        Query(text="a red circle"),
        Query(text="red 😀"),
        Query(text="red", exclude=["zebra", "blue", "zebra"]),
        Query(text="zebra", image=picture, exclude=["😀"]),
        Query(like=3),
    ]
    expected = [["😀"], [], [], ["zebra"], ["zebra", "😀"], []]
    assert searcher.unknown_texts(queries) == expected
    assert [searcher.unknown_texts([query])[0] for query in queries] == expected


def test_a_model_that_cannot_tell_knows_every_text_and_rows_load_no_model(shapes_index, search_model):
    class Older:
        weights_sha256, folder = search_model.weights_sha256, search_model.folder

    assert Searcher.open(shapes_index, Older()).unknown_texts([Query(text="😀"), Query(like=3)]) == [[], []]
    assert Searcher.open(shapes_index, Unloadable()).unknown_texts([Query(like=3)]) == [[]]


def test_filters_leave_out_rows(searcher):
    where = {"split": ["test", "val"], "radius": Range(at_least=10)}
    (hits,) = searcher.search([Query(text="a circle")], top=48, where=where)
    expected = [row for row in searcher.index.items.to_pylist() if row["split"] != "train" and row["radius"] == 20]
    assert {hit.item for hit in hits} == {row["item"] for row in expected}
    assert searcher.search([Query(text="a circle")], where={"colour": "brown"}) == [[]]
    with pytest.raises(ConfigurationError, match="'color', but the items have the columns .*mean 'colour'"):
        searcher.search([Query(text="a circle")], where={"color": "red"})


def test_an_index_with_fewer_rows_than_are_asked_for_gives_all(tmp_path):
    searcher = Searcher.open(small_index(tmp_path / "out"), Unloadable())
    assert [hit.row for hit in searcher.search([Query(like=0)], top=100)[0]] == [1, 2, 3, 4, 5]
    assert [len(hits) for hits in searcher.hits(np.eye(2, dtype=np.float32), top=100)] == [6, 6]
    with pytest.raises(ConfigurationError, match="top is 0; expected a number of hits from 1 on"):
        searcher.search([Query(like=0)], top=0)


def test_hits_that_are_the_same_name_the_better_one_or_are_left_out(tmp_path):
    out = small_index(tmp_path / "out", 40)
    mark_as_the_same(out, dict.fromkeys(range(30), 0))
    searcher = Searcher.open(out, Unloadable())
    vector = searcher.index.vector(5)[None]
    (hits,) = searcher.hits(vector, top=4)
    assert hits[0].row == 5
    assert hits[0].duplicate_of is None
    assert [hit.duplicate_of for hit in hits[1:]] == [5, 5, 5]
    (hits,) = searcher.hits(vector, top=4, collapse=True)
    assert [hit.row for hit in hits] == [5, 30, 31, 32], "more neighbours are asked for until there are enough"
    assert all(hit.duplicate_of is None for hit in hits)
    (hits,) = searcher.hits(vector, top=40, collapse=True)
    assert len(hits) == 11


def test_a_model_with_other_weights_is_refused(tmp_path, search_model):
    searcher = Searcher.open(small_index(tmp_path / "out"), search_model)
    with pytest.raises(
        ConfigurationError, match=f"has the weights {search_model.weights_sha256[:12]}.*by the weights abab"
    ):
        searcher.search([Query(text="red")])
    assert searcher.search([Query(like=0)], top=1)[0][0].row == 1, "a row needs no model"


def test_a_model_that_was_moved_is_named_with_what_to_do(tmp_path):
    searcher = Searcher.open(small_index(tmp_path / "out"))
    with pytest.raises(DataError, match="names the model .*no-model, which does not exist; give .* --model"):
        searcher.search([Query(text="red")])


@pytest.mark.parametrize(
    ("modality", "query", "sentence"),
    [
        ("image", Query(text="red"), "head `uni`, which compares pictures with pictures; texts cannot search it"),
        ("image", Query(like=0, exclude=["red"]), "texts cannot search it"),
        ("text", Query(image=b""), "head `uni`, which compares texts with texts; pictures cannot search it"),
    ],
    ids=["a text in pictures", "an excluded text in pictures", "a picture in texts"],
)
def test_a_gallery_of_the_head_uni_is_searched_within_its_modality(tmp_path, modality, query, sentence):
    searcher = Searcher.open(small_index(tmp_path / "out", modality=modality, head="uni"), Unloadable())
    with pytest.raises(ConfigurationError, match=sentence):
        searcher.search([query])


def test_a_picture_searches_a_gallery_of_the_head_uni_by_that_head(tmp_path, search_model, shapes_items):
    paths = shapes_items["path"].to_pylist()
    out = tmp_path / "out"
    vectors = search_model.encode_image(paths, head="uni")
    write_gallery(out, vectors, shapes_items, search_model.folder, search_model.weights_sha256, head="uni")
    build_index(out)
    (hits,) = Searcher.open(out, search_model).search([Query(image=paths[9])], top=1)
    assert hits[0].row == 9
    assert hits[0].score == pytest.approx(1, abs=1e-4)


def test_a_picture_that_lies_in_a_tar_is_named_with_its_place(tmp_path, search_model, shapes_items):
    content = [Path(path).read_bytes() for path in shapes_items["path"].to_pylist()[:2]]
    (tmp_path / "two.tar").write_bytes(b"".join(content))
    sizes = [len(each) for each in content]
    table = items_table(["a", "b"], ["../two.tar"] * 2, [0, sizes[0]], sizes)
    out = tmp_path / "out"
    vectors = search_model.encode_image(content)
    write_gallery(out, vectors, table, search_model.folder, search_model.weights_sha256)
    build_index(out)
    (hits,) = Searcher.open(out, search_model).search([Query(like=0)], top=1)
    found = hits[0]
    assert Path(found.path).is_absolute()
    assert Path(found.path).read_bytes()[found.offset : found.offset + found.size] == content[1]


def test_texts_can_be_what_is_found(tmp_path, search_model, shapes_items):
    texts = ["a red circle", "a blue square", "a green triangle"]
    out = tmp_path / "out"
    sha = search_model.weights_sha256
    write_gallery(out, search_model.encode_text(texts), items_table(texts), search_model.folder, sha, modality="text")
    build_index(out)
    searcher = Searcher.open(out, search_model)
    assert searcher.search([Query(text="a blue square")], top=1)[0][0].item == "a blue square"
    path = shapes_items["path"][0].as_py()
    assert len(searcher.search([Query(image=path)])[0]) == 3


@pytest.mark.parametrize("row", [-1, 48])
def test_a_row_that_is_not_there_is_a_sentence(searcher, row):
    with pytest.raises(ConfigurationError, match=f"no row {row}; the index has the rows 0 to 47"):
        searcher.search([Query(like=row)])


def test_an_item_is_found_by_its_name(searcher, shapes_items):
    assert searcher.row_of(shapes_items["item"][11].as_py()) == 11
    with pytest.raises(ConfigurationError, match="no item 'x.jpg'"):
        searcher.row_of("x.jpg")


def test_what_the_model_cannot_read_is_a_sentence(searcher, tmp_path):
    with pytest.raises(DataError, match=r"1 of 1 texts have no word after clean-up"):
        searcher.search([Query(text="...")])
    with pytest.raises(DataError, match=r"missing\.jpg: the file does not exist"):
        searcher.search([Query(image=tmp_path / "missing.jpg")])


def test_a_folder_without_an_index_is_a_sentence(shapes_index, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        Searcher.open(tmp_path / "nothing")
    shutil.copytree(shapes_index, tmp_path / "out", symlinks=True)
    meta = json.loads((tmp_path / "out/meta.json").read_text())
    del meta["index"]
    (tmp_path / "out/meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match=r"no index yet; run `cusa index"):
        Searcher.open(tmp_path / "out")


def test_threads_that_search_at_once_load_the_model_once(shapes_index, search_model):
    loads = []

    def load():
        loads.append(1)
        return search_model

    searcher = Searcher(Searcher.open(shapes_index).index, load)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: searcher.search([Query(text="a red circle")], top=3)[0], range(16)))
    assert loads == [1]
    assert all([hit.row for hit in answer] == [hit.row for hit in answers[0]] for answer in answers)


def test_a_hit_is_json(tmp_path):
    (hits,) = Searcher.open(small_index(tmp_path / "out"), Unloadable()).search([Query(like=0)], top=1)
    assert json.loads(json.dumps(hits[0].as_json(), allow_nan=False)) == {
        "row": 1,
        "item": "1.jpg",
        "score": pytest.approx(np.cos(0.2)),
        "captions": [],
        "path": None,
        "offset": None,
        "size": None,
        "duplicate_of": None,
        "columns": {"day": "2026-01-02", "price": None},
    }
