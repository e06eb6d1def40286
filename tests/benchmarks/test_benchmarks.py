"""Each benchmark from cached embeddings that were made so that the answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cusa.benchmarks import MODULES, evaluate
from cusa.errors import DataError
from cusa.files import read_json, write_json
from cusa.layout import DatasetFolder


@pytest.fixture
def data(tmp_path: Path) -> DatasetFolder:
    """Four test images with two captions each after one of train, and six labelled images."""
    folder = DatasetFolder(tmp_path / "data")
    folder.annotations.mkdir(parents=True)
    splits = ["train", *["test"] * 4, *["variants"] * 6]
    images = {
        "image_id": [f"i{n}" for n in range(11)],
        "image_path": ["x"] * 11,
        "split": splits,
        "label": [None] * 5 + list("aabbcc"),
    }
    pq.write_table(pa.table(images), folder.annotations / "images.parquet")
    rows = [(0, "train")] + [(image, "test") for image in (1, 1, 2, 2, 3, 3, 4, 4)]
    captions = {
        "caption": [f"c{n}" for n in range(9)],
        "cleaned": [f"c{n}" for n in range(9)],
        "image": [image for image, _ in rows],
        "split": [split for _, split in rows],
    }
    pq.write_table(pa.table(captions), folder.annotations / "captions.parquet")
    positives = {"caption": list("xyy"), "cleaned": list("xyy"), "image": [1, 2, 3]}
    pq.write_table(pa.table(positives), folder.annotations / "extended_positives.parquet")
    pairs = {"first": ["p", "q", "r"], "second": ["q", "r", "s"], "score": [0.9, 0.5, 0.1]}
    pq.write_table(pa.table(pairs), folder.annotations / "sentence_pairs.parquet")
    return folder


def run_folder(tmp_path: Path, embeddings: dict[str, np.ndarray], uni: bool = True) -> Path:
    run = tmp_path / "runs/cusa/seed1"
    for name, array in embeddings.items():
        path = run / "embeddings" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array.astype(np.float32))
    losses = {"contrastive": {}, "cross_softlabel": None, "uni_softlabel": {} if uni else None}
    configuration = {"dataset": "d", "experiment": "cusa", "seed": 1, "losses": losses, "train": {"select_on": "val"}}
    write_json(run / "run.json", {"configuration": configuration, "weights_sha256": "abc"})
    return run


E4 = np.eye(4)


def score(name, data, run, tmp_path):
    evaluate(name, data, run, tmp_path / f"{name}.json")
    return read_json(tmp_path / f"{name}.json")


def test_itr(data, tmp_path):
    text = np.repeat(E4, 2, axis=0)
    text[7] = E4[0]  # one caption of the last image points elsewhere
    run = run_folder(tmp_path, {"test/image_cross": E4, "test/text_cross": text})
    result = score("itr", data, run, tmp_path)
    # Image 1 ties with the stray caption, which counts against it.
    assert result["metrics"]["i2t_r1"] == 75
    assert result["metrics"]["t2i_r1"] == pytest.approx(100 * 7 / 8)
    assert (result["n_queries"], result["n_gallery"]) == (8, 4)
    assert (result["benchmark"], result["dataset"], result["experiment"], result["seed"]) == ("itr", "d", "cusa", 1)
    assert result["protocol"].startswith("cross head")


def test_eccv_caption(data, tmp_path):
    # x -> image 1 (position 0); y -> images 2 and 3 (positions 1, 2), of which only one is near.
    text = np.array([[1, 0, 0, 0], [0, 1, 0, 0.5]])
    run = run_folder(tmp_path, {"test/image_cross": E4, "extended_positives/text_cross": text})
    metrics = score("eccv_caption", data, run, tmp_path)["metrics"]
    assert metrics["t2i_r1"] == 100
    assert metrics["t2i_rprecision"] == 75
    assert metrics["t2i_map_at_r"] == 75


def test_image_retrieval(data, tmp_path):
    image = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [-1, 0], [1, 0.05]])
    run = run_folder(tmp_path, {"variants/image_uni": image})
    result = score("image_retrieval", data, run, tmp_path)
    assert result["metrics"]["r1"] == pytest.approx(100 * 2 / 6)
    assert (result["n_queries"], result["n_gallery"]) == (6, 5)


def test_sts(data, tmp_path):
    angles = np.deg2rad([0, 10, 40, 120])
    text = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    run = run_folder(tmp_path, {"sentence_pairs/text_uni": text})
    metrics = score("sts", data, run, tmp_path)["metrics"]
    assert metrics["spearman"] == pytest.approx(100)


def test_a_missing_head_is_said(data, tmp_path):
    run = run_folder(tmp_path, {"variants/image_uni": np.random.default_rng(0).random((6, 3))}, uni=False)
    protocol = score("image_retrieval", data, run, tmp_path)["protocol"]
    assert protocol.startswith("features before the heads (no uni head was trained)")


@pytest.mark.parametrize("name", list(MODULES))
def test_embeddings_that_are_missing_or_of_other_data(data, tmp_path, name):
    run = run_folder(tmp_path, {})
    with pytest.raises(DataError, match="does not exist; run `snakemake scores`"):
        score(name, data, run, tmp_path)
    wrong = {
        f"{part}/{array}": np.ones((3, 2)) for part in ("test", "variants") for array in ("image_cross", "image_uni")
    }
    wrong |= {"test/text_cross": np.ones((3, 2)), "sentence_pairs/text_uni": np.ones((3, 2))}
    run = run_folder(tmp_path, wrong)
    with pytest.raises(DataError, match="has 3 rows, but the data has"):
        score(name, data, run, tmp_path)
