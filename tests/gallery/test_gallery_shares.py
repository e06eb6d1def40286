"""Shares of a gallery that several jobs embed, and the gallery that they become."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cusa import load
from cusa.errors import DataError
from cusa.gallery.shares import embed_share, finish_gallery
from cusa.gallery.store import Gallery


@pytest.fixture(scope="module")
def run(scored_runs) -> Path:
    _, runs = scored_runs
    return runs["cusa"][0]


@pytest.mark.parametrize("count", [1, 3])
def test_shares_become_one_gallery_with_the_models_embeddings(run, shapes, tmp_path, count):
    unfinished, output = tmp_path / "pictures.unfinished", tmp_path / "gallery/pictures"
    for number in reversed(range(count)):
        embed_share(run, str(shapes / "pics"), unfinished, "cross", (number, count), "cpu", 2)
    finish_gallery(unfinished, output)
    gallery = Gallery.open(output)
    assert gallery.rows == 48
    paths = [shapes / "pics" / item for item in gallery.items["item"].to_pylist()]
    np.testing.assert_allclose(gallery.embeddings(), load(run, "cpu").encode_image(paths), atol=1e-5)
    assert not unfinished.exists()


def test_every_share_has_work(run, shapes, tmp_path):
    """A part has 10,000 rows by default; a smaller gallery would be one part, and one share would do it all."""
    embed_share(run, str(shapes / "pics"), tmp_path / "unfinished", share=(0, 3), device="cpu")
    assert [path.name for path in (tmp_path / "unfinished/parts").iterdir()] == ["000000"]


def test_the_new_gallery_takes_the_place_of_the_old_one(run, shapes, tmp_path):
    output = tmp_path / "gallery"
    for folder in ("pics", "."):
        embed_share(run, str(shapes / folder), tmp_path / "unfinished", device="cpu")
        finish_gallery(tmp_path / "unfinished", output)
    assert all(item.startswith("pics/") for item in Gallery.open(output).items["item"].to_pylist())


def test_missing_shares_are_a_sentence_and_the_old_gallery_stays(run, shapes, tmp_path):
    unfinished, output = tmp_path / "unfinished", tmp_path / "gallery"
    embed_share(run, str(shapes / "pics"), unfinished, device="cpu")
    finish_gallery(unfinished, output)
    embed_share(run, str(shapes / "pics"), unfinished, share=(1, 2), device="cpu")
    with pytest.raises(DataError, match="lacks 1 of its 2 parts"):
        finish_gallery(unfinished, output)
    assert Gallery.open(output).rows == 48


def test_shares_of_a_model_that_was_trained_again_begin_anew(scored_runs, shapes, tmp_path):
    _, runs = scored_runs
    unfinished, output = tmp_path / "unfinished", tmp_path / "gallery"
    embed_share(runs["contrastive"][0], str(shapes / "pics"), unfinished, share=(0, 2), device="cpu")
    for number in range(2):
        embed_share(runs["cusa"][0], str(shapes / "pics"), unfinished, share=(number, 2), device="cpu")
    finish_gallery(unfinished, output)
    assert Gallery.open(output).meta.model_sha256 == load(runs["cusa"][0], "cpu").weights_sha256
    assert [path.name for path in tmp_path.iterdir()] == ["gallery"]


def test_items_that_changed_meanwhile_are_a_sentence(run, shapes, tmp_path):
    photos = Path(shutil.copytree(shapes / "pics", tmp_path / "photos"))
    embed_share(run, str(photos), tmp_path / "unfinished", share=(0, 2), device="cpu")
    next(photos.iterdir()).unlink()
    with pytest.raises(DataError, match="have changed since .* was begun .*or delete"):
        embed_share(run, str(photos), tmp_path / "unfinished", share=(1, 2), device="cpu")
