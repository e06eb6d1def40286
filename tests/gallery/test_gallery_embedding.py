"""Galleries are made in parts: they continue after a kill, are shared between jobs, and name what cannot be read."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import gallery_models
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from gallery_models import PreparingModel, SmallModel
from PIL import Image

from cusa.errors import ConfigurationError, DataError
from cusa.gallery.embedding import Embedding, embed_gallery
from cusa.gallery.parts import join
from cusa.gallery.sources.opening import Reading, open_source
from cusa.gallery.store import Gallery

MODELS = pytest.mark.parametrize("kind", [SmallModel, PreparingModel], ids=["files", "prepared"])
FILES = ("embeddings.npy", "items.parquet", "unreadable.parquet", "meta.json")


def picture_bytes(number):
    colours = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def pictures(tmp_path):
    """23 sound pictures, and three files that are none: text, a cut one, an empty one."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(23):
        (folder / f"{number:03d}.png").write_bytes(picture_bytes(number))
    (folder / "004b.png").write_text("this is text")
    (folder / "011b.png").write_bytes(picture_bytes(99)[:80])
    (folder / "022b.png").write_bytes(b"")
    return folder


def embed(items, output, model=None, reading=None, **how):
    how = {"part_rows": 5, **how}
    source = open_source(None if items is None else str(items), reading, Path(output))
    return embed_gallery(model or PreparingModel(), source, output, Embedding(**how))


def content(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@MODELS
@pytest.mark.parametrize("head", ["cross", "uni"])
def test_embeddings_are_those_of_encode_image_in_the_order_of_the_items(pictures, tmp_path, kind, head):
    meta = embed(pictures, tmp_path / "out", kind(), head=head)
    gallery = Gallery.open(tmp_path / "out")
    items = gallery.items["item"].to_pylist()
    assert items == [f"{number:03d}.png" for number in range(23)]
    expected = kind().encode_image([pictures / item for item in items], head)
    assert np.array_equal(gallery.vectors[:], expected)
    assert (meta.rows, meta.unreadable, meta.head, meta.dimension) == (23, 3, head, 12)
    assert meta.model_sha256 == "ab" * 32
    assert gallery.picture_bytes(3) == picture_bytes(3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)


@MODELS
def test_unreadable_items_are_listed_with_reasons(pictures, tmp_path, kind):
    Image.new("RGB", (40, 40)).save(pictures / "bomb.png")
    embed(pictures, tmp_path / "out", kind(), max_pixels=1000)
    found = {row["item"]: row["reason"] for row in Gallery.open(tmp_path / "out").unreadable.to_pylist()}
    assert list(found) == ["004b.png", "011b.png", "022b.png", "bomb.png"]
    assert "it is text" in found["004b.png"]
    assert "zero bytes" in found["022b.png"]
    assert "has 40 x 40 pixels, but --max-pixels is 1,000" in found["bomb.png"]


def test_all_unreadable_or_none_at_all_is_a_sentence(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(7):
        (tmp_path / f"in/{number}.png").write_text("no picture")
    with pytest.raises(DataError, match=r"none of the 7 items can be embedded(.|\n)*0.png: .*it is text"):
        embed(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["unreadable.parquet"]
    (tmp_path / "in/0.png").write_bytes(picture_bytes(0))
    assert embed(tmp_path / "in", tmp_path / "out").rows == 1
    (tmp_path / "t.csv").write_text("image\n")
    with pytest.raises(DataError, match="no row that can be read"):
        embed(tmp_path / "t.csv", tmp_path / "out2")
    (tmp_path / "t.csv").write_text("image,caption\n1,a.png,a dog\n")
    with pytest.raises(DataError, match=r"The first one: .*t.csv, line 2 has more or fewer cells .*needs quotation"):
        embed(tmp_path / "t.csv", tmp_path / "out2")
    (tmp_path / "t.txt").write_text("\n\n")
    with pytest.raises(DataError, match="has no text, so there is nothing to embed"):
        embed(None, tmp_path / "out3", reading=Reading(texts=str(tmp_path / "t.txt")))
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(DataError, match="has no item"):
        embed(tmp_path / "empty.tar", tmp_path / "out4")


def test_a_killed_run_continues_bit_for_bit(pictures, tmp_path):
    embed(pictures, tmp_path / "whole")
    output = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, gallery_models.__file__, str(pictures), str(output)]
    process = subprocess.Popen([*command, "0.3"], env=environment)
    deadline = time.monotonic() + 120
    while len(list(output.glob("parts/[0-9]*/part.json"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "meta.json").exists()
    first = output / "parts/000000/embeddings.npy"
    written = first.stat().st_mtime_ns
    with pytest.raises(DataError, match="is not finished"):
        Gallery.open(output)
    assert embed(pictures, output, part=1, of=2) is None  # which leaves the parts, so that they can be looked at
    assert first.stat().st_mtime_ns == written  # it was not embedded again
    subprocess.run([*command, "0"], env=environment, check=True)
    for name in ("embeddings.npy", "items.parquet", "unreadable.parquet"):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (output / "parts").exists()


def test_another_model_source_or_setting_is_no_mixture(pictures, tmp_path):
    output = tmp_path / "out"

    def stopped(*_, **__):
        raise KeyboardInterrupt

    model = PreparingModel()
    real, calls = model.encode_prepared, []

    def stops_later(prepared, head):
        calls.append(len(prepared))
        return real(prepared, head) if len(calls) < 5 else stopped()

    model.encode_prepared = stops_later
    with pytest.raises(KeyboardInterrupt):
        embed(pictures, output, model)
    assert list(output.glob("parts/*/part.json"))
    with pytest.raises(DataError, match=r"begun with another model's sha256: it was abab.*, now it is cdcd"):
        embed(pictures, output, PreparingModel(weights_sha256="cd" * 32))
    with pytest.raises(DataError, match="another head: it was cross, now it is uni"):
        embed(pictures, output, head="uni")
    with pytest.raises(DataError, match="another rows of a part: it was 5, now it is 6"):
        embed(pictures, output, part_rows=6)
    (pictures / "000.png").write_bytes(picture_bytes(0) + b"more")
    with pytest.raises(DataError, match=r"pictures have changed since .*out was begun"):
        embed(pictures, output)


def test_a_disk_that_is_too_small_is_found_before_anything_is_embedded(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("cusa.common.files.shutil.disk_usage", lambda _: SimpleNamespace(free=2000))
    with pytest.raises(DataError, match="the gallery of 26 items needs"):
        embed(pictures, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert embed(pictures, tmp_path / "parts", keep_parts=True).rows == 23


def test_progress_counts_all_items(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("cusa.common.progress.SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("cusa.common.progress.SHORTEST_REPORTED_SECONDS", 0.0)
    embed(pictures, tmp_path / "out")
    assert "embedding: 26/26 images in " in capsys.readouterr().err


def test_a_gallery_that_is_complete_is_left_as_it_is(pictures, tmp_path):
    embed(pictures, tmp_path / "out")
    meta = json.loads((tmp_path / "out/meta.json").read_text())
    (tmp_path / "out/meta.json").write_text(json.dumps(meta | {"index": {"kind": "flat"}}))
    before = content(tmp_path / "out")
    model = PreparingModel()
    model.encode_prepared = None
    assert embed(pictures, tmp_path / "out", model).rows == 23
    assert content(tmp_path / "out") == before
    with pytest.raises(DataError, match="another model's sha256"):
        embed(pictures, tmp_path / "out", PreparingModel(weights_sha256="cd" * 32))


def test_two_processes_do_not_embed_the_same_share(pictures, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    with FileLock(output / ".embed-0-of-1.lock"), pytest.raises(DataError, match="another `cusa embed` is writing"):
        embed(pictures, output)
    assert embed(pictures, output).rows
    assert not list(output.glob(".*"))


def test_nothing_of_the_users_is_overwritten(pictures, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"is not empty and holds no gallery \(it has notes.txt\)"):
        embed(pictures, tmp_path / "mine")
    with pytest.raises(DataError, match="is a file"):
        embed(pictures, tmp_path / "mine/notes.txt")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("of", [2, 3])
def test_shares_are_joined_to_the_same_gallery(pictures, tmp_path, of):
    embed(pictures, tmp_path / "whole")
    output = tmp_path / "shares"
    for part in reversed(range(of)):
        assert embed(pictures, output, part=part, of=of) is None
        assert json.loads((output / f"shares/{part}-of-{of}.json").read_text()) == {"items": 26, "parts": 6}
        if part:
            with pytest.raises(DataError, match=r"lacks \d of its 6 parts \(0, "):
                join(output)
    join(output)
    assert content(output) == content(tmp_path / "whole")
    with pytest.raises(ConfigurationError, match="part 2 is not one of 2"):
        Embedding(part=2, of=2)


def test_joining_before_anything_is_embedded_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match="nothing to join"):
        join(tmp_path / "out")


def test_parts_may_stay(pictures, tmp_path):
    meta = embed(pictures, tmp_path / "parts", keep_parts=True)
    embed(pictures, tmp_path / "whole")
    kept, whole = (Gallery.open(tmp_path / name) for name in ("parts", "whole"))
    assert [part.embeddings for part in meta.parts][:2] == [
        "parts/000000/embeddings.npy",
        "parts/000001/embeddings.npy",
    ]
    assert np.array_equal(kept.vectors[:], whole.vectors[:])
    assert kept.items.equals(whole.items)
    assert kept.unreadable.equals(whole.unreadable)
    assert not (tmp_path / "parts/embeddings.npy").exists()
    assert kept.picture_bytes(22) == picture_bytes(22)


def test_half_precision_halves_the_file(pictures, tmp_path):
    embed(pictures, tmp_path / "out", dtype="float16")
    embed(pictures, tmp_path / "whole")
    half, whole = (Gallery.open(tmp_path / name).vectors[:] for name in ("out", "whole"))
    assert half.dtype == np.float32
    assert np.load(tmp_path / "out/embeddings.npy").dtype == np.float16
    assert np.abs(half - whole).max() < 1e-3


def test_an_embedding_that_is_not_finite_is_an_unreadable_item(pictures, tmp_path):
    model = PreparingModel()
    real = model.encode_prepared

    def broken(prepared, head):
        found = real(prepared, head)
        found[0] = np.nan
        return found

    model.encode_prepared = broken
    meta = embed(pictures, tmp_path / "out", model)
    assert meta.rows + meta.unreadable == 26
    reasons = Gallery.open(tmp_path / "out").unreadable["reason"].to_pylist()
    assert "its embedding is not finite in float32" in reasons


def test_pictures_of_parquet_and_compressed_tars_are_kept_beside(tmp_path):
    rows = [picture_bytes(number) for number in range(12)]
    rows[4] = b"no picture"
    pq.write_table(pa.table({"image": rows, "label": list("abcdefghijkl")}), tmp_path / "p.parquet")
    embed(tmp_path / "p.parquet", tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    gallery = Gallery.open(tmp_path / "moved")
    assert gallery.items["label"].to_pylist() == list("abcdfghijkl")
    for row, item in enumerate(gallery.items["item"].to_pylist()):
        assert gallery.picture_bytes(row) == rows[int(item.removeprefix("p.parquet/"))]
    embed(tmp_path / "p.parquet", tmp_path / "without", keep_pictures=False)
    without = Gallery.open(tmp_path / "without")
    assert not (tmp_path / "without/pictures").exists()
    assert np.array_equal(without.vectors[:], gallery.vectors[:])
    with pytest.raises(DataError, match="has no picture"):
        without.picture_bytes(0)


def test_columns_of_parts_with_different_types_become_one(tmp_path, pictures):
    rows = [{"image": f"{number:03d}.png", "size": number if number < 7 else f"{number} px"} for number in range(12)]
    (pictures / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    embed(pictures / "t.jsonl", tmp_path / "out")
    table = Gallery.open(tmp_path / "out").items
    assert table["size_of_table"].to_pylist() == [*map(str, range(7)), *(f"{number} px" for number in range(7, 12))]


def test_texts_are_embedded_and_those_without_words_are_listed(tmp_path):
    texts = ["a big dog", "!!!", "a cat", "a bag", "a cat", "..."]
    (tmp_path / "t.txt").write_text("\n".join(texts))
    meta = embed(None, tmp_path / "out", reading=Reading(texts=str(tmp_path / "t.txt")))
    gallery = Gallery.open(tmp_path / "out")
    assert meta.modality == "text"
    assert gallery.items["item"].to_pylist() == ["a big dog", "a cat", "a bag"]
    assert gallery.items["path"].to_pylist() == [None] * 3
    assert np.array_equal(gallery.vectors[:], SmallModel().encode_text(["a big dog", "a cat", "a bag"]))
    assert gallery.unreadable.to_pylist() == [
        {"item": text, "reason": "has no word after clean-up"} for text in ("!!!", "...")
    ]


def test_a_source_that_changes_while_it_is_embedded_is_a_sentence(pictures, tmp_path):
    source = open_source(str(pictures))
    assert source.total == 26
    (pictures / "new.png").write_bytes(picture_bytes(50))
    with pytest.raises(DataError, match="the source changed while it was embedded: it had 26 items, then 27"):
        embed_gallery(PreparingModel(), source, tmp_path / "out", Embedding(part_rows=5))


@pytest.mark.parametrize("name", ["part_rows", "threads", "max_pixels"])
def test_numbers_below_one_are_sentences(name):
    with pytest.raises(ConfigurationError, match="expected 1 at least"):
        Embedding(**{name: -1})
