"""Extended positives of one's own: a table of image, caption and right."""

from __future__ import annotations

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
from cusa.metrics.precision import extended_recall


@pytest.fixture
def folder(tmp_path) -> DatasetFolder:
    """Three test images with a caption each, after one train image."""
    found = DatasetFolder(tmp_path / "d")
    found.annotations.mkdir(parents=True)
    ids = ["0", "1", "2", "3"]
    images = {"image_id": ids, "image_path": [f"/pics/{n}.jpg" for n in ids], "split": ["train", *["test"] * 3]}
    pq.write_table(pa.table(images), found.annotations / "images.parquet")
    captions = ["a dog", "A cat.", "a red car", "a car"]
    cleaned = ["a dog", "a cat", "a red car", "a car"]
    columns = {"caption": captions, "cleaned": cleaned, "image": [0, 1, 2, 3], "split": images["split"]}
    pq.write_table(pa.table(columns), found.annotations / "captions.parquet")
    return found


TABLE = "image,caption,right\n3.jpg,A red car!,1\n2,vehicle,yes\n/pics/3.jpg,vehicle,true\n3,a car,no\n0,a dog,1\n"


def written(folder, tmp_path, text=TABLE):
    (tmp_path / "mine.csv").write_text(text)
    settings = validate(settings_of("eccv_caption"), {"positives": str(tmp_path / "mine.csv")})
    write_texts("eccv_caption", folder, settings)
    return settings


def test_images_are_named_by_id_path_or_file_and_captions_are_cleaned(folder, tmp_path):
    settings = written(folder, tmp_path)
    rows = pq.read_table(folder.annotations / "judged_pairs.parquet").to_pylist()
    assert [(row["image"], row["cleaned"], row["right"]) for row in rows] == [
        (3, "a red car", True), (2, "vehicle", True), (3, "vehicle", True), (3, "a car", False),
    ]  # fmt: skip
    assert data_of("eccv_caption", frozenset(), settings) == ("test", "judged_pairs")
    assert check("eccv_caption", folder, settings) is None


def test_scores_are_those_of_the_right_pairs_by_hand(folder, tmp_path):
    settings = written(folder, tmp_path)
    generator = np.random.default_rng(0)
    image, text = generator.standard_normal((3, 4)), generator.standard_normal((4, 4))
    run = tmp_path / "run"
    # Test captions are a cat, a red car, a car; the table's texts are a car, a red car, vehicle.
    arrays = {"test/image_cross": image, "test/text_cross": text[:3], "judged_pairs/text_cross": text[[2, 1, 3]]}
    for name, array in arrays.items():
        path = run / "embeddings" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array.astype(np.float32))
    write_record(run, {"contrastive": {}})
    output, queries = tmp_path / "scores.json", tmp_path / "scores.npz"
    evaluate("eccv_caption", folder, run, output, queries, settings)
    result = read_json(output)
    # Images 2 and 3 are positions 1 and 2. Not judged: the cat, and the train image's dog. Wrong: the third's own car.
    of_image = np.array([[1, 1], [2, 1], [1, 3], [2, 3]])
    of_text = np.array([[1, 1], [2, 1], [1, 3], [2, 3]])
    image, text = image.astype(np.float32), text.astype(np.float32)
    expected = extended_recall(image, text, of_image)
    assert {k: v for k, v in result["metrics"].items() if k.startswith("i2t")} == pytest.approx(
        {k: v for k, v in expected.items() if k.startswith("i2t")}
    )
    expected = extended_recall(image, text, of_text)
    assert result["metrics"]["t2i_map_at_r"] == pytest.approx(expected["t2i_map_at_r"])
    assert (result["n_queries"], result["n_gallery"]) == (3, 3)
    statistics = outcomes_file.load(queries)
    assert set(result["metrics"]) == set(statistics)
    for name, value in result["metrics"].items():
        assert 100 * np.nanmean(statistics[name].values) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,caption,right\n9,x,1\n", "line 2 names the image 9, which the data set does not have"),
        ("image,caption,right\n1,x,maybe\n", "line 2 has 'maybe' for `right`; expected 1 or 0"),
        ("image,caption,right\n1,x,1\n1,X,0\n", "line 3 says that the pair is wrong, but .*line 2 that it is right"),
        ("image,caption,right\n1,x,0\n0,y,1\n", "has no right answer among the test images"),
        ("image,caption,right\n1,...,1\n", "no word is left of the caption '...'"),
        ("image,caption\n1,x\n", "has no `right`.*has the columns image, caption and right"),
        ("image,caption,right\n1,x\n", "line 2 has more or fewer cells than the heading"),
    ],
    ids=["image", "right", "contradiction", "nothing right", "no word", "column", "cells"],
)
def test_tables_that_cannot_be_scored(folder, tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        written(folder, tmp_path, text)


def test_a_name_of_several_files_is_asked_about(folder, tmp_path):
    images = pq.read_table(folder.annotations / "images.parquet")
    paths = pa.array([f"/{n}/same.jpg" for n in range(4)])
    pq.write_table(images.set_column(1, "image_path", paths), folder.annotations / "images.parquet")
    with pytest.raises(DataError, match="names the image same.jpg, as several of .* are called; give its id"):
        written(folder, tmp_path, "image,caption,right\nsame.jpg,x,1\n")


def test_there_is_one_ground_truth():
    with pytest.raises(ConfigurationError, match="positives takes the place of ground_truth: coco"):
        validate(settings_of("eccv_caption"), {"positives": "mine.csv", "ground_truth": "coco"})
