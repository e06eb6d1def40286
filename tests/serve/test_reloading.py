"""An index that is rebuilt, changed or broken while it is served."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from serving import client_of

from cusa.errors import ConfigurationError
from cusa.gallery.store import Gallery, write_gallery
from cusa.index.build import build_index
from cusa.serve.served_index import named_folders
from cusa.serve.settings import Limits, Settings, check


@pytest.fixture
def index(shapes_index, tmp_path) -> Path:
    return Path(shutil.copytree(shapes_index, tmp_path / "out", symlinks=True))


def look(client) -> None:
    """What the server does every second."""
    asyncio.run(client.indexes[0].reload_if_changed())


def embed_again(out: Path, rows: int) -> None:
    """The gallery with its first rows alone, and its index."""
    gallery = Gallery.open(out)
    vectors, items = np.array(gallery.embeddings(0, rows)), gallery.items.slice(0, rows)
    write_gallery(out, vectors, items, gallery.meta.model, gallery.meta.model_sha256)
    build_index(out)


def test_a_rebuilt_index_takes_the_place_of_the_old_one_and_the_model_stays(index, caplog):
    caplog.set_level("INFO")
    with client_of(index) as client:
        before = client.indexes[0].engine
        picture = client.get("/api/indexes/shapes/items/40").json()["image"]
        look(client)
        assert client.indexes[0].engine is before
        embed_again(index, 10)
        look(client)
        after = client.indexes[0].engine
        assert client.get("/health").json()["indexes"][0]["rows"] == after.rows == 10
        assert after.model is before.model
        answer = client.get("/api/search", params={"q": "red", "top": 40}).json()
        assert len(answer["results"]) == 10
        assert answer["fingerprint"] == after.fingerprint != before.fingerprint
        assert client.get(picture).status_code == 200  # of results that a page still shows
        assert client.get("/api/indexes/shapes/items/40").status_code == 404
        assert 'cusa_reloads_total{index="shapes",result="opened"} 1.0' in client.get("/metrics").text
    assert "shapes: the index was rebuilt and is now that of 10 rows" in caplog.text


def test_a_question_that_has_begun_is_answered_by_the_index_that_it_began_with(index, monkeypatch):
    with client_of(index) as client:
        engine = client.indexes[0].engine
        encode, began, may = engine.searcher.query_vectors, threading.Event(), threading.Event()

        def slow(queries):
            began.set()
            assert may.wait(20)
            return encode(queries)

        monkeypatch.setattr(engine.searcher, "query_vectors", slow)
        answers = []
        asking = threading.Thread(target=lambda: answers.append(client.get("/api/search", params={"q": "red"})))
        asking.start()
        assert began.wait(20)
        embed_again(index, 10)
        look(client)
        assert client.indexes[0].engine is not engine
        may.set()
        asking.join()
        assert answers[0].json()["fingerprint"] == engine.fingerprint
        assert answers[0].json()["total"] == 48


@pytest.mark.parametrize("how", ["no meta.json", "half a meta.json", "no embeddings"])
def test_a_broken_index_leaves_the_old_one_and_is_told(index, caplog, how):
    with client_of(index) as client:
        meta = index / "meta.json"
        good = meta.read_text()
        if how == "no meta.json":
            meta.unlink()
        elif how == "half a meta.json":
            meta.write_text(good[:100])
        else:
            meta.write_text(good + " ")
            (index / "embeddings.npy").rename(index / "elsewhere.npy")
        look(client)
        look(client)
        assert client.get("/api/search", params={"q": "red"}).status_code == 200
        health = client.get("/health").json()
        assert health["ready"] is True
        assert health["indexes"][0]["problem"]
        assert caplog.text.count("the index on the disk cannot be opened, the earlier one stays") == 1
        if how == "no embeddings":
            (index / "elsewhere.npy").rename(index / "embeddings.npy")
        meta.write_text(good + "\n\n")
        look(client)
        assert client.get("/health").json()["indexes"][0]["problem"] is None


def test_an_old_index_is_forgotten_after_a_while(index, monkeypatch):
    with client_of(index) as client:
        picture = client.get("/api/indexes/shapes/items/3").json()["image"]
        embed_again(index, 10)
        look(client)
        monkeypatch.setattr("cusa.serve.served_index.SECONDS_KEPT", 0.0)
        look(client)
        answer = client.get(picture)
        assert answer.status_code == 404
        assert answer.json()["error"] == "The index shapes was rebuilt since; search again."


def test_removed_rows_are_not_found(index):
    from cusa.index import changes

    with client_of(index) as client:
        name = client.get("/api/indexes/shapes/items/0").json()["item"]
        changes.remove_items(index, [name])
        look(client)
        assert client.get("/api/indexes").json()[0]["rows"] == 47
        assert client.get("/api/search", params={"like_item": name}).status_code == 404


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["results/openmoji/runs/cusa/seed23/search/test"], ["cusa"]),
        (
            ["results/o/runs/contrastive/seed23/search/test", "results/o/runs/cusa/seed23/search/test"],
            ["contrastive", "cusa"],
        ),
        (["r/o/runs/cusa/seed23/search/test", "r/o/runs/cusa/seed24/search/test"], ["cusa-seed23", "cusa-seed24"]),
        (
            ["r/o/runs/cusa/seed23/search/test", "r/o/runs/cusa/seed23/search/all"],
            ["cusa-seed23-test", "cusa-seed23-all"],
        ),
        (["mine/holiday"], ["holiday"]),
        (["a/out", "b/out"], ["b", "a"]),
        (["one=a/out", "two=a/out"], ["one", "two"]),
        (["a/my photos (2026)"], ["my-photos--2026-"]),
    ],
    ids=["a run", "experiments", "seeds", "galleries", "a folder", "folders of one name", "names", "blanks"],
)
def test_names_of_indexes(folders, names):
    assert sorted(named_folders(folders)) == sorted(names)


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        (["a=x", "a=y"], "y and x have the same name; give one as NAME=y"),
        (["a/out", "a/out"], "have the same name"),
        (["a b=x"], "'a b' is not a valid name of an index"),
    ],
    ids=["one name", "one folder", "no name"],
)
def test_names_that_cannot_be(folders, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        named_folders(folders)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (Settings(host="0.0.0.0"), "--host 0.0.0.0 lets other machines search .* or say --no-token"),
        (Settings(host="example.org"), "--host example.org lets other machines"),
        (Settings(token="short"), "The token has to be 8 or more printable ASCII"),
        (Settings(token="ünsäglich lang"), "The token has to be 8 or more printable ASCII"),
        (Settings(port=70_000), "--port is 70000; expected a number from 0 to 65535"),
        (Settings(origins=("example.org",)), "--origin is 'example.org'; expected for instance https://example.org"),
        (Settings(origins=("https://example.org/a",)), "without a path"),
        (Settings(limits=Limits(batch=0)), "--batch is not above 0"),
        (Settings(limits=Limits(upload_bytes=-1)), "--max-upload-mb is not above 0"),
    ],
    ids=["all hosts", "a name", "short", "umlauts", "port", "no scheme", "a path", "batch", "upload"],
)
def test_options_that_cannot_be(settings, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        check(settings, no_token=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_this_machine_needs_no_token(host):
    check(Settings(host=host), no_token=False)
    check(Settings(host="0.0.0.0"), no_token=True)
