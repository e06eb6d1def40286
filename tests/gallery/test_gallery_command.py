"""`cusa embed` with a trained model, run as users run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cusa
from cusa.config.configuration import load
from cusa.embeddings import embed
from cusa.gallery.store import Gallery
from cusa.layout import DatasetFolder
from cusa.training.loop import train


@pytest.fixture(scope="module")
def run(tiny_configuration, shapes_data) -> Path:
    folder = DatasetFolder(shapes_data).run("for_embedding", 23)
    train(load(tiny_configuration).run("cusa", 23), DatasetFolder(shapes_data), folder)
    return folder


def command(*arguments, cwd):
    words = [sys.executable, "-m", "cusa.cli", "embed", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, check=False)


def test_a_folder_gives_what_encode_image_gives(run, shapes, tmp_path):
    (tmp_path / "pics").mkdir()
    for path in sorted((shapes / "pics").glob("*.jpg"))[:9]:
        (tmp_path / "pics" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pics/broken.jpg").write_text("no picture")
    done = command(run, "pics", "--output", "out", "--part-rows", 4, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    gallery = Gallery.open(tmp_path / "out")
    model = cusa.load(run, device="cpu")
    assert done.stdout == (
        f"out: 9 images, float32 [9, {model.dimension}]\nunreadable: 1, listed in out/unreadable.parquet\n"
        "next: cusa index out\n"
    )
    paths = [tmp_path / "pics" / item for item in gallery.items["item"].to_pylist()]
    assert paths == sorted(path for path in (tmp_path / "pics").glob("*") if path.name != "broken.jpg")
    assert np.allclose(gallery.vectors[:], model.encode_image(paths), atol=1e-6)
    assert gallery.meta.model_sha256 == model.weights_sha256
    assert gallery.meta.model == str(run)


@pytest.mark.parametrize("head", ["cross", "uni"])
def test_a_split_gives_the_embeddings_of_the_workflow(run, shapes_data, tmp_path, head):
    embed(run, DatasetFolder(shapes_data), "test", tmp_path / "stored")
    done = command(run, shapes_data, "--split", "test", "--head", head, "--output", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    stored = np.load(tmp_path / f"stored/image_{head}.npy")
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    assert np.allclose(Gallery.open(tmp_path / "out").vectors[:], stored, atol=1e-6)


def test_texts_give_what_encode_text_gives(run, tmp_path):
    texts = ["a small red circle", "a large blue square", "two words", "one more text that is longer"]
    (tmp_path / "t.txt").write_text("\n".join(texts))
    done = command(run, "--texts", "t.txt", "--output", "out", "--dtype", "float16", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = cusa.load(run, device="cpu").encode_text(texts)
    assert np.abs(Gallery.open(tmp_path / "out").vectors[:] - expected).max() < 1e-3


def test_shares_and_joining(run, shapes, tmp_path):
    words = (run, shapes / "pics", "--output", "out", "--part-rows", 7)
    for part in (0, 1):
        done = command(*words, "--part", part, "--of", 2, cwd=tmp_path)
        assert done.stdout == f"out: share {part} of 2 is embedded; when all are, run the command with --join\n"
    assert command(*words, "--join", cwd=tmp_path).stdout.startswith("out: 48 images, float32 [48, ")
    assert json.loads((tmp_path / "out/meta.json").read_text())["rows"] == 48


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone"], "gone does not exist; expected a folder, a table, or tars"),
        ([], "name what to embed"),
        ([".", "--part", "1"], "--part I and --of N belong together"),
        ([".", "--part", "0", "--of", "2", "--join"], "--join is for when all shares are done"),
        (["."], "has no picture"),
    ],
    ids=["missing", "nothing", "half a share", "share and join", "empty"],
)
def test_what_cannot_be_embedded_is_one_sentence(run, tmp_path, words, message):
    done = command(run, *words, "--output", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert not (tmp_path / "out").exists()
