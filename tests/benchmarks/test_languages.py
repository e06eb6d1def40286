"""Captions in several languages: from a table with a language column to a score each."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import draw_shape, write_record
from metric_values import value_on_the_data

from cusa.annotations.convert import convert
from cusa.annotations.sources.rows import language_of
from cusa.annotations.tables import CAPTIONS, read_table
from cusa.benchmarks import outcomes_file
from cusa.benchmarks.evaluation import evaluate
from cusa.benchmarks.itr import queries as queries_of
from cusa.common.files import read_json
from cusa.config.benchmarks import ImageTextRetrieval
from cusa.config.dataset import load_dataset
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.metrics.recall import image_text_recall
from cusa.report.summary import summary_rows
from cusa.report.tables import benchmark_tables

ROWS = [
    ("0.png", "ein Kreis", "de"), ("0.png", "a circle", "en"), ("0.png", "un cercle", ""),
    ("1.png", "ein Quadrat", "de"), ("1.png", "a square", "en"), ("2.png", "a cross", "en"),
]  # fmt: skip


def data_set(tmp_path, rows=ROWS, **columns):
    for number, shape in enumerate(("circle", "square", "cross")):
        draw_shape(("red", "green", "blue")[number], shape, "large").save(tmp_path / f"{number}.png")
    for split in ("train", "val", "test"):
        lines = [{"image": f"{split}-{name}", "caption": caption, "lang": lang} for name, caption, lang in rows]
        for line in lines:
            place = tmp_path / line["image"]
            place.write_bytes((tmp_path / line["image"].partition("-")[2]).read_bytes())
        (tmp_path / f"{split}.json").write_text(json.dumps(lines))
    places = {split: str(tmp_path / f"{split}.json") for split in ("train", "val", "test")}
    dataset = load_dataset({"name": "d", "format": "table", "annotations": places, "columns": columns})
    folder = DatasetFolder(tmp_path / "results/d")
    convert(dataset, folder.annotations, folder.images)
    return folder


def scored(folder, tmp_path, image, text):
    run = tmp_path / "run"
    (run / "embeddings/test").mkdir(parents=True)
    for name, array in (("image", image), ("text", text)):
        np.save(run / f"embeddings/test/{name}_cross.npy", array.astype(np.float32))
    write_record(run, {"contrastive": {}})
    evaluate("itr", folder, run, tmp_path / "itr.json", tmp_path / "itr.npz", ImageTextRetrieval())
    return read_json(tmp_path / "itr.json"), outcomes_file.load(tmp_path / "itr.npz")


def test_each_language_is_scored_as_if_there_were_no_other(tmp_path):
    folder = data_set(tmp_path, language="lang")
    captions = read_table(folder.annotations, CAPTIONS).to_pylist()
    assert [row["language"] for row in captions if row["split"] == "test"] == ["de", "en", None, "de", "en", "en"]
    generator = np.random.default_rng(0)
    image, text = generator.standard_normal((3, 4)), generator.standard_normal((6, 4))
    result, statistics = scored(folder, tmp_path, image, text)
    image, text = image.astype(np.float32), text.astype(np.float32)
    german = image_text_recall(image[[0, 1]], text[[0, 3]], np.array([0, 1]))
    english = image_text_recall(image, text[[1, 4, 5]], np.arange(3))
    every = image_text_recall(image, text, np.array([0, 0, 0, 1, 1, 2]))
    metrics = result["metrics"]
    for name in every:
        assert metrics[f"de/{name}"] == pytest.approx(german[name])
        assert metrics[f"en/{name}"] == pytest.approx(english[name])
        assert metrics[f"languages/{name}"] == pytest.approx((german[name] + english[name]) / 2)
        assert metrics[name] == pytest.approx(every[name])
    assert result["sizes"] == {"de": [2, 2], "en": [3, 3]}
    for name, value in metrics.items():
        assert value_on_the_data(statistics, name) == pytest.approx(value)
    assert queries_of(folder, "de/t2i_r1") is None
    (tables,) = [table for table in benchmark_tables(summary_rows([result])) if "language" in table.title]
    assert tables.title == "Image-text retrieval, rsum of each language"
    assert tables.columns == ["de", "en", "mean"]
    assert tables.size == "Queries: de 2, en 3"


def test_one_language_has_no_scores_of_its_own(tmp_path):
    folder = data_set(tmp_path, [(name, caption, "en") for name, caption, _ in ROWS], language="lang")
    result, _ = scored(folder, tmp_path, np.eye(3), np.eye(3)[[0, 0, 0, 1, 1, 2]])
    assert not [name for name in result["metrics"] if "/" in name]


def test_without_a_column_of_languages_the_table_is_as_before(tmp_path):
    folder = data_set(tmp_path)
    assert pq.read_schema(folder.annotations / CAPTIONS).names == ["caption", "cleaned", "image", "split", "caption_id"]


def test_languages_that_cannot_be_names_are_told(tmp_path):
    rows = [("0.png", "a circle", "de/en"), *ROWS[1:]]
    with pytest.raises(DataError, match="'de/en' as its language; expected a name of letters, digits and hyphens"):
        data_set(tmp_path, rows, language="lang")


@pytest.mark.parametrize(
    "name", ["de", "zh-Hant", "Deutsch", "Old English", "日本語"], ids=["de", "zh", "one", "two", "ja"]
)
def test_names_of_languages(name):
    assert language_of(name) == (name, None)


def test_parquet_files_with_pictures_have_languages_too(tmp_path):
    draw_shape("red", "circle", "large").save(tmp_path / "x.png")
    picture = (tmp_path / "x.png").read_bytes()
    other = draw_shape("blue", "cross", "small")
    other.save(tmp_path / "y.png")
    for split, extra in (("train", b"1"), ("val", b"2"), ("test", b"3")):
        pictures = [picture + extra, picture + extra, (tmp_path / "y.png").read_bytes() + extra]
        table = {"image": pictures, "caption": ["ein Kreis", "a circle", "a cross"], "lang": ["de", "en", "en"]}
        pq.write_table(pa.table(table), tmp_path / f"{split}.parquet")
    places = {split: str(tmp_path / f"{split}.parquet") for split in ("train", "val", "test")}
    section = {"name": "d", "format": "parquet", "annotations": places, "columns": {"language": "lang"}}
    folder = DatasetFolder(tmp_path / "results/d")
    convert(load_dataset(section), folder.annotations, folder.images)
    assert read_table(folder.annotations, CAPTIONS)["language"].to_pylist() == ["de", "en", "en"] * 3
