"""Zero-shot classification and the linear probe, on arrays whose scores can be counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_record

from cusa.benchmarks import outcomes_file
from cusa.benchmarks.evaluation import evaluate
from cusa.benchmarks.registry import check, data_of, settings_of, write_texts
from cusa.common.files import read_json
from cusa.config import validate
from cusa.errors import ConfigurationError, DataError
from cusa.layout import DatasetFolder
from cusa.report.statistics import metric_intervals

LABELS = ["cat", "cat", "dog", "dog", "owl", None]


@pytest.fixture
def folder(tmp_path) -> DatasetFolder:
    """Six test images, one without a label, four train images, and three birds in benchmark-data."""
    found = DatasetFolder(tmp_path / "d")
    splits = ["train"] * 4 + ["test"] * 6
    write_images(found, splits, ["cat", "dog", "cat", "dog", *LABELS])
    captions = {"caption": ["a"], "cleaned": ["a"], "image": [4], "split": ["test"]}
    pq.write_table(pa.table(captions), found.annotations / "captions.parquet")
    write_images(found.benchmark_data("birds"), ["test"] * 3, ["001.Great_Tit", "002.Robin", "002.Robin"])
    return found


def write_images(folder: DatasetFolder, splits: list[str], labels: list[str | None]) -> None:
    folder.annotations.mkdir(parents=True)
    names = [str(number) for number in range(len(splits))]
    table = {"image_id": names, "image_path": names, "split": splits, "label": pa.array(labels, pa.string())}
    pq.write_table(pa.table(table), folder.annotations / "images.parquet")


def run_with(tmp_path, **embeddings: np.ndarray):
    run = tmp_path / "run"
    for name, array in embeddings.items():
        data, _, kind = name.partition("__")
        path = run / "embeddings" / data / f"{kind}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.asarray(array, dtype=np.float32))
    write_record(run, {"contrastive": {}, "uni_softlabel": {}})
    return run


def score(name, folder, run, tmp_path, **settings):
    output, queries = tmp_path / f"{name}.json", tmp_path / f"{name}.queries.npz"
    evaluate(name, folder, run, output, queries, validate(settings_of(name), settings))
    result = read_json(output)
    assert set(result["metrics"]) <= set(outcomes_file.load(queries))
    return result


def write_prompts(folder, **settings):
    write_texts("zero_shot_classification", folder, validate(settings_of("zero_shot_classification"), settings))
    return pq.read_table(folder.annotations / "class_prompts.parquet").to_pylist()


def test_the_class_of_the_nearest_prompt(folder, tmp_path):
    settings = {"dataset_images": True, "templates": ["{}", "a {}!"], "class_names": {"dataset": {"owl": "night owl"}}}
    rows = write_prompts(folder, **settings)
    assert [row["prompt"] for row in rows] == ["cat", "a cat!", "dog", "a dog!", "night owl", "a night owl!"]
    assert [row["cleaned"] for row in rows][-1] == "a night owl"  # as the captions of the data set
    # In the order of the distinct texts: a cat, a dog, a night owl, cat, dog, night owl.
    prompts = np.array([[4, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    images = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0.1, 1], [1, 1, 1]])
    run = run_with(tmp_path, class_prompts__text_cross=prompts, test__image_cross=images)
    result = score("zero_shot_classification", folder, run, tmp_path, **settings)
    assert result["metrics"]["acc1"] == pytest.approx(80)  # the second cat is taken for a dog
    assert result["metrics"]["mean_per_class_recall"] == pytest.approx(100 * (0.5 + 1 + 1) / 3)
    assert (result["n_queries"], result["n_gallery"]) == (5, 3)
    assert "acc5" not in result["metrics"]  # of three classes, five are no question
    assert "{}; a {}!" in result["protocol"]


def test_prompts_are_averaged_after_they_are_normalised(folder, tmp_path):
    """A long embedding of one prompt would outvote the other otherwise."""
    settings = {"dataset_images": True, "templates": ["{}", "a {}"]}
    write_prompts(folder, **settings)
    prompts = np.array([[100, 0], [0, 1], [-1, 0], [0, 1], [0, 1], [-1, 0]])
    images = np.array([[1, 1.2], [1, 1.2], [0, 1], [0, 1], [-1, 0], [0, 0]])
    run = run_with(tmp_path, class_prompts__text_cross=prompts, test__image_cross=images)
    assert score("zero_shot_classification", folder, run, tmp_path, **settings)["metrics"]["acc1"] == 100


def test_a_model_that_gives_every_class_one_score_is_never_right(folder, tmp_path):
    write_prompts(folder, dataset_images=True)
    run = run_with(tmp_path, class_prompts__text_cross=np.ones((3, 2)), test__image_cross=np.ones((6, 2)))
    assert score("zero_shot_classification", folder, run, tmp_path, dataset_images=True)["metrics"]["acc1"] == 0


def test_named_images_and_the_mean_over_data(folder, tmp_path):
    settings = {"dataset_images": True, "labelled_images": {"birds": str(tmp_path)}}
    rows = write_prompts(folder, **settings)
    assert [row["prompt"] for row in rows if row["data"] == "birds"] == [
        "a photo of a Great Tit.",
        "a photo of a Robin.",
    ]
    texts = sorted({row["cleaned"] for row in rows})
    run = run_with(
        tmp_path,
        class_prompts__text_cross=np.eye(5),  # cat, dog, great tit, owl, robin
        test__image_cross=np.eye(5)[[0, 0, 1, 1, 3, 3]],
        birds__image_cross=np.eye(5)[[texts.index("a photo of a great tit"), 4, 2]],
    )
    result = score("zero_shot_classification", folder, run, tmp_path, **settings)
    assert result["metrics"]["acc1"] == 100
    assert result["metrics"]["birds/acc1"] == pytest.approx(100 * 2 / 3)
    assert result["metrics"]["birds/mean_per_class_recall"] == pytest.approx(75)
    assert result["metrics"]["average/acc1"] == pytest.approx(100 * 5 / 6)
    assert result["sizes"] == {"": [5, 3], "birds": [3, 2]}
    section = validate(settings_of("zero_shot_classification"), settings)
    assert data_of("zero_shot_classification", frozenset(), section) == ("class_prompts", "test", "birds")


def test_intervals_of_the_recall_of_classes_count_every_class_the_same(folder, tmp_path):
    write_prompts(folder, dataset_images=True)
    run = run_with(tmp_path, class_prompts__text_cross=np.eye(3), test__image_cross=np.eye(3)[[0, 1, 1, 1, 2, 2]])
    score("zero_shot_classification", folder, run, tmp_path, dataset_images=True)
    statistics = outcomes_file.load(tmp_path / "zero_shot_classification.queries.npz")
    assert np.mean(statistics["mean_per_class_recall"].values) == pytest.approx((0.5 + 1 + 1) / 3)
    low, high = metric_intervals(statistics)["mean_per_class_recall"]
    assert low < 100 * 2.5 / 3 < high


def test_class_names_from_a_table(folder, tmp_path):
    (tmp_path / "names.csv").write_text("label,name\ncat,tomcat\ncat,kitten\ndog,hound\n")
    settings = {"dataset_images": True, "templates": ["{}"], "class_names": {"dataset": str(tmp_path / "names.csv")}}
    rows = write_prompts(folder, **settings)
    found = [(row["label"], row["prompt"]) for row in rows]
    assert found == [("cat", "tomcat"), ("cat", "kitten"), ("dog", "hound"), ("owl", "owl")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"cow": "cow"}, "name for the label cow, which no image of dataset has .the labels are cat, dog, owl."),
        ({"cat": "dog!"}, "the classes cat and dog of dataset have the same prompt, 'a photo of a dog'"),
    ],
    ids=["unknown label", "same name"],
)
def test_class_names_that_cannot_be(folder, names, message):
    with pytest.raises(DataError, match=message):
        write_prompts(folder, dataset_images=True, class_names={"dataset": names})


def test_a_name_without_a_word(folder):
    with pytest.raises(DataError, match="the prompt '!' of the class cat of dataset has no word"):
        write_prompts(folder, dataset_images=True, templates=["{}"], class_names={"dataset": {"cat": "!"}})


def test_a_data_set_without_labels(folder):
    write_images_again = pq.read_table(folder.annotations / "images.parquet")
    unlabelled = write_images_again.set_column(3, "label", pa.nulls(10, pa.string()))
    pq.write_table(unlabelled, folder.annotations / "images.parquet")
    with pytest.raises(DataError, match=r"no labelled image in the split `test`; name the column of labels in"):
        write_prompts(folder, dataset_images=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "there are no images; name labelled_images, or set dataset_images: true"),
        ({"dataset_images": True, "templates": ["a photo"]}, "`a photo` needs {} once"),
        ({"dataset_images": True, "templates": ["{0}"]}, "`{0}` needs {} once"),
        ({"dataset_images": True, "class_names": {"birds": {}}}, "class_names has birds, which is none of dataset"),
    ],
    ids=["no images", "no place", "another place", "unknown data"],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        validate(settings_of("zero_shot_classification"), settings)


def test_a_probe_learns_from_the_train_split(folder, tmp_path):
    """Cats are up and dogs are down; no owl was seen, so it is a miss."""
    train = np.array([[0.1, 1], [0.1, -1], [0, 1], [0, -1]])
    test = np.array([[1, 3], [0.5, 1], [1, -2], [1, 2], [1, 0], [0, 0]])
    run = run_with(tmp_path, train__image_uni=train, test__image_uni=test)
    result = score("linear_probe", folder, run, tmp_path, dataset_images=True)
    assert result["metrics"]["acc1"] == pytest.approx(60)  # two cats, one dog
    assert result["metrics"]["mean_per_class_recall"] == pytest.approx(100 * (1 + 0.5 + 0) / 3)
    assert result["protocol"].startswith("uni head of the image side")
    settings = validate(settings_of("linear_probe"), {"dataset_images": True})
    assert check("linear_probe", folder, settings) == "2 classes; 4 of 5 test images are of one of them"


def test_a_probe_without_train_images_learns_from_a_share_of_each_class(folder, tmp_path):
    generator = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], 20)
    write_images(folder.benchmark_data("letters"), ["test"] * 60, labels.tolist())
    images = np.repeat(np.eye(3), 20, axis=0) + 0.05 * generator.standard_normal((60, 3))
    run = run_with(tmp_path, letters__image_cross=images)
    settings = {"labelled_images": {"letters": str(tmp_path)}, "train_share": 0.25, "head": "cross"}
    result = score("linear_probe", folder, run, tmp_path, **settings)
    assert result["metrics"]["letters/acc1"] == 100
    assert result["sizes"] == {"letters": [45, 3]}
    assert score("linear_probe", folder, run, tmp_path, **settings) == result


def test_a_probe_learns_from_images_of_ones_own(folder, tmp_path):
    write_images(folder.benchmark_data("birds-train"), ["test"] * 2, ["001.Great_Tit", "002.Robin"])
    run = run_with(tmp_path, **{"birds-train__image_uni": np.eye(2), "birds__image_uni": np.eye(2)[[0, 1, 1]]})
    place = {"birds": str(tmp_path)}
    result = score("linear_probe", folder, run, tmp_path, labelled_images=place, train_images=place)
    assert result["metrics"]["birds/acc1"] == 100
    missing = {"labelled_images": place, "train_images": {"birds": "no/such/folder"}}
    with pytest.raises(DataError, match="none of the images that benchmarks.linear_probe names exists"):
        score("linear_probe", folder, run, tmp_path, **missing)


def test_embeddings_that_are_missing(folder, tmp_path):
    write_prompts(folder, dataset_images=True)
    for name in ("zero_shot_classification", "linear_probe"):
        with pytest.raises(DataError, match="does not exist; run `snakemake scores`"):
            score(name, folder, run_with(tmp_path), tmp_path, dataset_images=True)


def test_prompts_of_other_images_are_found_out(folder, tmp_path):
    write_prompts(folder, dataset_images=True)
    (folder.annotations / "images.parquet").unlink()
    pq.write_table(
        pa.table({"image_id": ["0"], "image_path": ["0"], "split": ["test"], "label": ["cow"]}),
        folder.annotations / "images.parquet",
    )
    run = run_with(tmp_path, class_prompts__text_cross=np.eye(3), test__image_cross=np.ones((1, 3)))
    with pytest.raises(DataError, match="has other classes for dataset than its images"):
        score("zero_shot_classification", folder, run, tmp_path, dataset_images=True)


def test_the_json_has_no_number_that_is_none(folder, tmp_path):
    write_prompts(folder, dataset_images=True)
    run = run_with(tmp_path, class_prompts__text_cross=np.eye(3), test__image_cross=np.zeros((6, 3)))
    score("zero_shot_classification", folder, run, tmp_path, dataset_images=True)
    json.loads((tmp_path / "zero_shot_classification.json").read_text(), parse_constant=pytest.fail)
