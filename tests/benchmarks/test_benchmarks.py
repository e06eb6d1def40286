"""Each benchmark from cached embeddings that were made so that the answer is known."""

from __future__ import annotations

import json
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
from cusa.errors import ConfigurationError, DataError
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
CLASSIFICATION = ("zero_shot_classification", "linear_probe")  # see test_classification.py


def score(name, data, run, tmp_path, **settings):
    output, queries = tmp_path / f"{name}.json", tmp_path / f"{name}.queries.npz"
    evaluate(name, data, run, output, queries, validate(settings_of(name), settings))
    result = read_json(output)
    statistics = outcomes_file.load(queries)
    assert set(result["metrics"]) <= set(statistics)
    for metric, value in result["metrics"].items():
        if value is None:
            assert metric in result["undefined"]
            continue
        assert value_on_the_data(statistics, metric) == pytest.approx(value, abs=1e-9), metric
    with np.load(queries, allow_pickle=False) as arrays:
        for metric, statistic in statistics.items():
            if isinstance(statistic, outcomes.Mean) and result["metrics"].get(metric) is not None:
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
    assert "t2i_r2" not in metrics
    result = score("eccv_caption", data, run, tmp_path, recall_at=[1, 2])
    assert result["metrics"]["t2i_r2"] == 100
    assert result["metrics"]["i2t_r2"] >= result["metrics"]["i2t_r1"]
    assert "R@1/2, R-Precision" in result["protocol"]


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


def test_a_collapsed_text_head_has_no_correlation_and_everything_else(data, tmp_path):
    """All pairs have one cosine: null with its reason, in JSON that others can read."""
    run = run_folder(tmp_path, {"sentence_pairs/text_uni": np.ones((4, 3))})
    output, queries = tmp_path / "sts.json", tmp_path / "sts.queries.npz"
    evaluate("sts", data, run, output, queries, validate(settings_of("sts"), {}))
    result = json.loads(output.read_text(), parse_constant=pytest.fail)
    assert result["metrics"] == {"spearman": None, "pearson": None}
    assert result["undefined"] == dict.fromkeys(("spearman", "pearson"), "the model gives all 3 pairs the cosine 1")
    assert result["n_queries"] == 3
    assert set(outcomes_file.load(queries)) == {"spearman", "pearson"}


def test_gold_scores_that_are_all_equal_leave_the_other_data(data, tmp_path):
    """A set of pairs of one's own with one score for all; the other set and the mean over subsets say what they can."""
    own = tmp_path / "benchmark-data/same/annotations"
    own.mkdir(parents=True)
    columns = {"first": list("pqr"), "second": list("qrs"), "score": [3.0] * 3}
    pq.write_table(pa.table(columns | {"task": ["same"] * 3, "subset": [""] * 3}), own / "sentence_pairs.parquet")
    (tmp_path / "same.tsv").write_text("")
    texts = np.random.default_rng(0).standard_normal((4, 3))
    run = run_folder(tmp_path, {"sentence_pairs/text_uni": texts, "same/text_uni": texts})
    result = score("sts", data, run, tmp_path, sentence_pairs={"same": str(tmp_path / "same.tsv")})
    assert result["metrics"]["same/spearman"] is None
    assert result["undefined"]["same/spearman"] == "all 3 gold scores are 3"
    assert isinstance(result["metrics"]["spearman"], float)


def test_means_over_subsets_name_the_subset_that_has_no_correlation(data, tmp_path):
    columns = {
        "first": list("pqrpq"), "second": list("qrsrs"), "score": [1.0, 2.0, 3.0, 4.0, 4.0],
        "task": ["t"] * 5, "subset": list("aaabb"),
    }  # fmt: skip
    pq.write_table(pa.table(columns), data.annotations / "sentence_pairs.parquet")
    run = run_folder(tmp_path, {"sentence_pairs/text_uni": np.random.default_rng(0).standard_normal((4, 3))})
    result = score("sts", data, run, tmp_path)
    assert isinstance(result["metrics"]["spearman"], float)
    assert result["metrics"]["spearman_mean"] is None
    assert result["undefined"]["pearson_weighted_mean"] == "it needs subset 2/pearson, and all 2 gold scores are 4"


def test_labels_that_are_all_different_leave_recall(data, tmp_path):
    images = pq.read_table(data.annotations / "images.parquet")
    labels = pa.array([None] * 5 + list("abcdef"))
    pq.write_table(images.set_column(3, "label", labels), data.annotations / "images.parquet")
    run = run_folder(tmp_path, {"variants/image_uni": np.random.default_rng(0).standard_normal((6, 3))})
    result = score("image_retrieval", data, run, tmp_path)
    assert result["metrics"]["r1"] == 0
    assert result["metrics"]["map_at_r"] is None
    assert result["undefined"] == dict.fromkeys(("rprecision", "map_at_r"), "no query has a right answer")


def test_an_ordinary_result_has_no_such_key(data, tmp_path):
    """So that files of earlier releases and of this one are the same."""
    run = run_folder(tmp_path, {"variants/image_uni": np.random.default_rng(0).standard_normal((6, 3))})
    assert "undefined" not in score("image_retrieval", data, run, tmp_path)


def test_a_benchmark_of_ones_own_may_compute_nothing(data, tmp_path):
    """NaN without a reason becomes null too; a reason of the benchmark's own is kept."""
    file = tmp_path / "nothing.py"
    file.write_text(
        "from cusa.benchmarks.benchmark import Result\n"
        "from cusa.config.benchmarks import BenchmarkSection as SETTINGS\n"
        "ACROSS_MODALITIES = False\n"
        "def data(provides, settings): return ()\n"
        "def evaluate(folder, run, settings):\n"
        "    metrics = {'a': float('nan'), 'b': float('inf'), 'c': 1.0}\n"
        "    return Result(metrics=metrics, protocol='p', n_queries=0, n_gallery=0, undefined={'b': 'no data'})\n"
    )
    run, output = run_folder(tmp_path, {}), tmp_path / "nothing.json"
    settings = validate(settings_of(str(file)), {})
    evaluate("nothing", data, run, output, tmp_path / "nothing.queries.npz", settings, str(file))
    result = read_json(output)
    assert result["metrics"] == {"a": None, "b": None, "c": 1.0}
    assert result["undefined"] == {"a": "the benchmark computed nan", "b": "no data"}


def test_embeddings_that_are_not_finite_are_named_by_row(data, tmp_path):
    rows = np.ones((6, 3))
    rows[[2, 5], 0] = np.nan, np.inf
    run = run_folder(tmp_path, {"variants/image_uni": rows})
    with pytest.raises(
        DataError, match="image_uni.npy has values that are not finite in 2 of 6 rows, the first in row 2"
    ):
        score("image_retrieval", data, run, tmp_path)


def test_stored_gold_scores_that_are_not_numbers_are_named(data, tmp_path):
    """A table that an earlier release converted."""
    pairs = {"first": ["p", "q"], "second": ["q", "r"], "score": [0.9, float("nan")]}
    pq.write_table(pa.table(pairs), data.annotations / "sentence_pairs.parquet")
    run = run_folder(tmp_path, {"sentence_pairs/text_uni": np.eye(3)})
    with pytest.raises(DataError, match="the score of 1 of 2 pairs is not a finite number, for instance in row 1"):
        score("sts", data, run, tmp_path)


def test_a_missing_head_is_said(data, tmp_path):
    run = run_folder(tmp_path, {"variants/image_uni": np.random.default_rng(0).random((6, 3))}, uni=False)
    protocol = score("image_retrieval", data, run, tmp_path)["protocol"]
    assert protocol.startswith("features before the heads (no uni head was trained)")


@pytest.mark.parametrize("name", [name for name in names() if name not in CLASSIFICATION])
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


def test_recall_at_adds_metrics_and_changes_none(data, tmp_path):
    text, image = np.repeat(E4, 2, axis=0), np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [-1, 0], [1, 0.05]])
    text[7] = E4[0]
    run = run_folder(tmp_path, {"test/image_cross": E4, "test/text_cross": text, "variants/image_uni": image})
    ordinary = score("itr", data, run, tmp_path)["metrics"]
    found = score("itr", data, run, tmp_path, recall_at=[1, 2, 5, 10])["metrics"]
    assert found.keys() - ordinary.keys() == {"i2t_r2", "t2i_r2"}
    assert {name: found[name] for name in ordinary} == ordinary
    assert (found["i2t_r1"], found["i2t_r2"]) == (75, 100)
    found = score("image_retrieval", data, run, tmp_path, recall_at=[1, 3])["metrics"]
    assert [name for name in found if name.startswith("r") and name[1:].isdigit()] == ["r1", "r3"]
    with pytest.raises(ConfigurationError, match="recall_at lacks 5, 10, which rsum is the sum of; add them"):
        validate(settings_of("itr"), {"recall_at": [1]})
    with pytest.raises(ConfigurationError, match="recall_at lacks 1, which the averages"):
        validate(settings_of("image_retrieval"), {"recall_at": [5]})
