"""Each benchmark from cached embeddings that were made so that the answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_record
from metric_values import value_on_the_data

from cusa.benchmarks import outcomes, outcomes_file
from cusa.benchmarks.evaluation import evaluate
from cusa.benchmarks.registry import data_of, names, settings_of
from cusa.common.files import read_json
from cusa.config.section import validate
from cusa.errors import DataError
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
    write_record(run, {"contrastive": {}, "uni_softlabel": {} if uni else None})
    return run


E4 = np.eye(4)


def score(name, data, run, tmp_path, **settings):
    output, queries = tmp_path / f"{name}.json", tmp_path / f"{name}.queries.npz"
    evaluate(name, data, run, output, queries, validate(settings_of(name), settings))
    result = read_json(output)
    statistics = outcomes_file.load(queries)
    assert set(result["metrics"]) <= set(statistics)
    for metric, value in result["metrics"].items():
        assert value_on_the_data(statistics, metric) == pytest.approx(value, abs=1e-9), metric
    with np.load(queries, allow_pickle=False) as arrays:
        for metric, statistic in statistics.items():
            if isinstance(statistic, outcomes.Mean) and metric in result["metrics"]:
                assert result["metrics"][metric] == pytest.approx(100 * np.nanmean(arrays[metric]), abs=1e-9)
    return result


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


def test_folds_are_consecutive_images_in_order(data, tmp_path):
    text = np.repeat(E4, 2, axis=0)
    text[7] = E4[0]  # image 1's rival is in the other fold
    run = run_folder(tmp_path, {"test/image_cross": E4, "test/text_cross": text})
    result = score("itr", data, run, tmp_path, folds=2)
    assert result["metrics"]["folds/i2t_r1"] == 100
    assert result["metrics"]["folds/t2i_r1"] == pytest.approx(100 * (1 + 3 / 4) / 2)
    assert result["sizes"] == {"folds": [4, 2]}
    with pytest.raises(DataError, match=r"folds is 3, but 4 test images cannot be divided into 3"):
        score("itr", data, run, tmp_path, folds=3)


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


@pytest.mark.parametrize("name", names())
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


def labelled(data: DatasetFolder, name: str, labels: str, roles: list[str | None]) -> str:
    """Tables of labelled images as convert_labelled_images writes them; returns a place that exists."""
    folder = data.benchmark_data(name).annotations
    folder.mkdir(parents=True)
    count = len(labels)
    table = {"image_id": list(map(str, range(count))), "image_path": ["x"] * count, "split": ["test"] * count}
    table = pa.table(table | {"label": list(labels)}).append_column("role", pa.array(roles, pa.string()))
    pq.write_table(table, folder / "images.parquet")
    return str(folder)


def test_image_retrieval_over_named_data(data, tmp_path):
    """The data set's own variants, one data set that searches itself, and one with queries and a gallery."""
    places = {
        "cub": labelled(data, "cub", "aabb", [None] * 4),
        "inshop": labelled(data, "inshop", "abab", ["query", "query", "gallery", "gallery"]),
    }
    image = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]])
    embeddings = {"variants/image_uni": np.random.default_rng(0).random((6, 3))}
    embeddings |= {"cub/image_uni": image, "inshop/image_uni": image[[0, 2, 1, 1]]}
    result = score("image_retrieval", data, run_folder(tmp_path, embeddings), tmp_path, **places)
    assert result["metrics"]["cub/r1"] == 100
    assert result["metrics"]["inshop/r1"] == 0  # both gallery images tie for both queries, which counts against
    assert result["sizes"] == {"cub": [4, 3], "inshop": [2, 2]}
    assert "average/r1" not in result["metrics"]  # the paper's average is over four data sets


def test_data_that_is_not_there_is_left_out(data):
    section = validate(settings_of("image_retrieval"), {"cub": "nowhere/CUB_200_2011"})
    assert data_of("image_retrieval", frozenset(), section) == ()
    assert section.left_out()["cub"].startswith("nowhere/CUB_200_2011 does not exist (relative paths start at ")


def sentences(data: DatasetFolder, name: str, rows: list[tuple[str, str, float, str, str]]) -> str:
    folder = data.benchmark_data(name).annotations
    folder.mkdir(parents=True)
    columns = dict(zip(("first", "second", "score", "task", "subset"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), folder / "sentence_pairs.parquet")
    return str(folder)


def test_sts_all_mean_and_weighted_mean(data, tmp_path):
    """As SentEval defines them: all pairs of a year together, the mean over its subsets, the mean by their pairs."""
    from scipy.stats import pearsonr, spearmanr

    generator = np.random.default_rng(0)
    words = [f"s{n}" for n in range(20)]
    sizes = {"MSRpar": 9, "MSRvid": 5, "FNWN": 4}
    rows = []
    for subset, size in sizes.items():
        for _ in range(size):
            first, second = generator.choice(words, 2)
            rows.append((first, second, float(generator.random()), "sts13" if subset == "FNWN" else "sts12", subset))
    text = generator.standard_normal((len({word for row in rows for word in row[:2]}), 5))
    place = sentences(data, "senteval", rows)
    (data.annotations / "sentence_pairs.parquet").unlink()
    metrics = score("sts", data, run_folder(tmp_path, {"senteval/text_uni": text}), tmp_path, senteval=place)["metrics"]

    index = {word: n for n, word in enumerate(sorted({word for row in rows for word in row[:2]}))}
    unit = text.astype(np.float32).astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosine = np.array([unit[index[first]] @ unit[index[second]] for first, second, *_ in rows])
    gold = np.array([row[2] for row in rows])
    assert metrics["sts12/spearman"] == pytest.approx(100 * spearmanr(cosine[:14], gold[:14]).statistic, abs=1e-9)
    assert metrics["sts13/pearson"] == pytest.approx(100 * pearsonr(cosine[14:], gold[14:]).statistic, abs=1e-9)
    by_subset = [100 * spearmanr(cosine[part], gold[part]).statistic for part in (slice(0, 9), slice(9, 14))]
    assert metrics["sts12/spearman_mean"] == pytest.approx(np.mean(by_subset), abs=1e-9)
    weighted = (9 * by_subset[0] + 5 * by_subset[1]) / 14
    assert metrics["sts12/spearman_weighted_mean"] == pytest.approx(weighted, abs=1e-9)
    assert "sts13/spearman_mean" not in metrics
