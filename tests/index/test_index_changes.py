"""Adding items to an index and removing some: what is found afterwards, and what a crash leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from gallery_files import clustered, save_gallery, save_picture

from cusa.errors import DataError
from cusa.index import changes
from cusa.index.build import build_index
from cusa.index.changes import add_gallery, remove_items
from cusa.index.contents import locked
from cusa.index.folder import SearchIndex
from cusa.index.meta import ADDED, VERSIONS
from cusa.index.options import IndexOptions

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ["flat", "ivf_sq", "ivf_pq", "hnsw"]
MESSAGE = r"2 of the 302 items .* already, for instance '0005.png', '0006.png'; .*--replace"


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    return clustered(2000, 32)


@pytest.fixture
def out(tmp_path, embeddings):
    return save_gallery(tmp_path / "out", embeddings, columns={"label": [row % 7 for row in range(2000)]})


@pytest.fixture
def more(tmp_path):
    """300 new items, and the items 0005.png and 0006.png once more with other embeddings."""
    items = [f"new{row}.png" for row in range(300)] + ["0005.png", "0006.png"]
    return save_gallery(tmp_path / "more", clustered(302, 32, seed=9), items)


def names(index: SearchIndex, query: np.ndarray, top: int) -> list[str]:
    return [index.items["item"][row].as_py() for row in index.nearest(query[None], top)[1][0].tolist() if row >= 0]


@pytest.mark.parametrize("kind", KINDS)
def test_removed_items_are_never_found(out, embeddings, kind):
    before = build_index(out, options=IndexOptions(kind=kind, target_recall=0.9))
    gone = [f"{row:04}.png" for row in range(300)]
    after = remove_items(out, gone)
    assert (after.rows, after.removed) == (1700, 300)
    assert after.fingerprint != before.fingerprint
    index = SearchIndex.open(out)
    assert index.rows == index.items.num_rows == len(index.captions) == 1700
    assert index.items["label"][0].as_py() == 300 % 7
    assert np.array_equal(index.vector(0), embeddings[300])
    for row in range(0, 300, 30):
        found = names(index, embeddings[row], 20)
        assert len(found) == 20
        assert not set(found) & set(gone)
    scores, rows = index.nearest(embeddings[[1500]], 1)
    assert rows[0, 0] == 1200 and scores[0, 0] == pytest.approx(1, abs=1e-5)
    allowed = np.arange(1700) < 1690
    assert set(index.nearest(embeddings[[299]], 1690, allowed)[1][0].tolist()) <= set(range(-1, 1690))


@pytest.mark.parametrize("kind", KINDS)
def test_added_items_are_found(out, more, embeddings, kind):
    build_index(out, options=IndexOptions(kind=kind, target_recall=0.9))
    before = SearchIndex.open(out)
    with pytest.raises(DataError, match=MESSAGE):
        add_gallery(out, more)
    assert SearchIndex.open(out).fingerprint == before.fingerprint
    assert not list((out / ADDED).glob("*"))
    meta = add_gallery(out, more, replace_items=True)
    shutil.rmtree(more)  # what was added belongs to the index now
    assert (meta.rows, meta.removed) == (2300, 2)
    index = SearchIndex.open(out)
    new = clustered(302, 32, seed=9)
    assert names(index, new[17], 1) == ["new17.png"]
    assert names(index, new[300], 1) == ["0005.png"]
    assert "0005.png" not in names(index, embeddings[5], 3)
    assert index.items["label"].to_pylist()[-1] is None
    assert index.items["item"].to_pylist().count("0006.png") == 1
    assert before.nearest(embeddings[[5]], 1)[1][0, 0] == 5  # whoever has the old index open, goes on


def test_a_rebuild_keeps_what_was_added_and_removed(out, more, embeddings):
    build_index(out)
    add_gallery(out, more, replace_items=True)
    remove_items(out, ["new3.png", "0005.png", "0100.png"])
    meta = build_index(out)
    assert (meta.rows, meta.removed) == (2297, 5)
    index = SearchIndex.open(out)
    assert not {"new3.png", "0005.png", "0100.png"} & set(index.items["item"].to_pylist())
    assert names(index, embeddings[100], 1) != ["0100.png"]
    assert index.faiss_index.ntotal == 2297
    # The gallery was embedded again and has one item more: the removed ones are known by their names.
    shutil.rmtree(out / "parts", ignore_errors=True)
    content = json.loads((out / "meta.json").read_text())
    items = ["first.png"] + [f"{row:04}.png" for row in range(2000)]
    save_gallery(out, np.concatenate([clustered(1, 32, seed=5), embeddings]), items)
    again = json.loads((out / "meta.json").read_text())
    (out / "meta.json").write_text(json.dumps({**again, "index": content["index"]}))
    with pytest.raises(DataError, match=r"made of other embeddings than .*2,000 rows.*found 2,001 rows"):
        SearchIndex.open(out)
    assert build_index(out).rows == 2298
    assert not {"new3.png", "0005.png", "0100.png"} & set(SearchIndex.open(out).items["item"].to_pylist())
    assert build_index(out, from_scratch=True).rows == 2001
    assert not list((out / ADDED).iterdir())


def test_many_removed_rows_are_left_out_of_a_new_index(out, embeddings):
    build_index(out, options=IndexOptions(kind="ivf_sq", target_recall=0.9))
    remove_items(out, [f"{row:04}.png" for row in range(600)])
    index = SearchIndex.open(out)
    assert index.faiss_index.ntotal == index.rows == 1400
    assert names(index, embeddings[700], 1) == ["0700.png"]


def test_items_that_are_not_there_are_told(out):
    build_index(out)
    with pytest.raises(DataError, match=r"2 of the 3 items are not in .*'a.png', 'b.png'; nothing was removed"):
        remove_items(out, ["a.png", "0001.png", "b.png"])
    assert SearchIndex.open(out).rows == 2000
    assert remove_items(out, ["a.png", "0001.png", "0001.png"], missing_ok=True).rows == 1999
    fingerprint = SearchIndex.open(out).fingerprint
    assert remove_items(out, ["0001.png"], missing_ok=True).fingerprint == fingerprint
    with pytest.raises(DataError, match="would leave no row"):
        remove_items(out, [f"{row:04}.png" for row in range(2000)], missing_ok=True)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"model_sha256": "b" * 64}, "its model is bbbbbbbbbbbb, expected aaaaaaaaaaaa"),
        ({"head": "uni"}, "its head is uni, expected cross"),
        ({"modality": "text"}, "its modality is text, expected image"),
    ],
    ids=["model", "head", "modality"],
)
def test_embeddings_of_another_model_cannot_be_added(out, tmp_path, described, message):
    build_index(out)
    other = save_gallery(tmp_path / "other", clustered(10, 32), **described)
    with pytest.raises(DataError, match=message):
        add_gallery(out, other)


def test_the_old_index_serves_after_a_crash(out, more, monkeypatch):
    build_index(out)
    before = SearchIndex.open(out)

    def crash(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(changes, "publish_chosen", crash)
    with pytest.raises(KeyboardInterrupt):
        add_gallery(out, more, replace_items=True)
    assert SearchIndex.open(out).fingerprint == before.fingerprint
    assert [path.name for path in (out / VERSIONS).iterdir()] == [before.fingerprint]
    assert not list((out / ADDED).iterdir())


def test_two_changes_at_once_are_refused(out):
    build_index(out)
    with locked(out), pytest.raises(DataError, match="another `cusa index` is changing"):
        remove_items(out, ["0001.png"])


def test_pictures_that_a_gallery_holds_are_added_with_it(tmp_path, out):
    """Also pictures that it names relative to itself; the others stay where they are."""
    build_index(out)
    more = tmp_path / "deep/more"
    (more / "pictures").mkdir(parents=True)
    save_picture(more / "pictures/own.png", 1)
    save_picture(tmp_path / "deep/beside.png", 2)
    paths = [Path("pictures/own.png"), Path("../beside.png")]
    save_gallery(more, clustered(2, 32, seed=4), ["own", "beside"], pictures=paths)
    expected = [(more / "pictures/own.png").read_bytes(), (tmp_path / "deep/beside.png").read_bytes()]
    add_gallery(out, more)
    shutil.rmtree(more)
    index = SearchIndex.open(out)
    assert [index.picture_bytes(row) for row in (2000, 2001)] == expected
    assert [Path(index.items["path"][row].as_py()).read_bytes() for row in (2000, 2001)] == expected
