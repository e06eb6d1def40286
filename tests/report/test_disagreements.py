"""Queries that one model answers and another does not: how many, which, and what was retrieved for them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pages import rendered

from cusa.annotations.tables import EXTENDED_POSITIVES, IMAGES, SENTENCE_PAIRS, SplitTables, read_table
from cusa.benchmarks import (
    eccv_caption,
    image_retrieval,
    itr,
    linear_probe,
    outcomes_file,
    sts,
    zero_shot_classification,
)
from cusa.benchmarks.outcomes import Combination, Mean, Spearman, Units, means
from cusa.config.report import Gallery
from cusa.layout import DatasetFolder
from cusa.metrics.recall import image_text_ranks
from cusa.report.disagreements import answered, compared_metrics, disagreements, title_of
from cusa.runs.record import RunFolder


@pytest.fixture(scope="module")
def models(scored_runs) -> dict[str, RunFolder]:
    return {name: RunFolder(paths[0]) for name, paths in scored_runs[1].items()}


def test_counts_are_those_of_the_ranks(scored_runs, models):
    folder, _ = scored_runs
    tables = SplitTables.open(folder, "test")
    ranks = {}
    for name, run in models.items():
        image = run.embeddings("test", "image_cross", len(tables.image_rows))
        text = run.embeddings("test", "text_cross", len(tables.caption_rows))
        ranks[name] = image_text_ranks(image, text, tables.image_of_caption)
    found = disagreements(folder, models, Gallery())
    assert [each.title for each in found] == ["itr: images search texts", "itr: texts search images"]
    for way, each in enumerate(found):
        one, two = (ranks[name][way] == 1 for name in models)
        assert each.models == ("contrastive", "cusa")
        assert each.only == ((one & ~two).sum(), (two & ~one).sum())
        assert (each.both, each.neither) == ((one & two).sum(), (~one & ~two).sum())


def test_examples_are_queries_that_only_one_answers_with_its_right_answer_first(scored_runs, models, tmp_path):
    """On embeddings that are made so: the first model answers even captions, the second odd ones."""
    folder, _ = scored_runs
    tables = SplitTables.open(folder, "test", captions=["caption"])
    captions, images = len(tables.caption_rows), len(tables.image_rows)
    rng = np.random.default_rng(0)
    runs = {}
    for parity, name in enumerate(("even", "odd")):
        run = Path(shutil.copytree(models["cusa"].folder, tmp_path / name / "seed23"))
        image = np.eye(images, 32, dtype=np.float32)
        right = np.arange(captions) % 2 == parity
        text = np.where(right[:, None], image[tables.image_of_caption], image[(tables.image_of_caption + 1) % images])
        text = (text + 0.01 * rng.standard_normal(text.shape)).astype(np.float32)
        np.save(run / "embeddings/test/image_cross.npy", image)
        np.save(run / "embeddings/test/text_cross.npy", text)
        outcomes = {"t2i_r1": right.astype(float)}
        units = Units("images", images, tables.image_of_caption)
        outcomes_file.save(run / "benchmarks/itr.queries.npz", means(outcomes, units))
        runs[name] = RunFolder(run)
    (each,) = disagreements(folder, runs, Gallery())
    assert each.only == ((captions + 1) // 2, captions // 2)
    assert [example.answered_by for example in each.examples] == ["even"] * 4 + ["odd"] * 4
    texts = tables.captions["caption"].to_pylist()
    for example in each.examples:
        own = {texts[place] for place in np.flatnonzero(tables.image_of_caption == _image_of(example, texts, tables))}
        assert example.text in own
        other = "odd" if example.answered_by == "even" else "even"
        assert example.retrieved[example.answered_by][0].text in own
        assert example.retrieved[other][0].text not in own
        assert all(item.thumbnail.startswith("data:image/webp") for item in example.retrieved[other])


def _image_of(example, texts, tables) -> int:
    return int(tables.image_of_caption[texts.index(example.text)])


def test_the_page_shows_them_and_no_markup_of_the_data(scored_runs, tmp_path):
    folder, runs = scored_runs
    copy = Path(shutil.copytree(folder.root, tmp_path / "data"))
    table = pq.read_table(copy / "annotations/captions.parquet")
    hostile = pa.array(["<b>bold</b>"] * table.num_rows)
    pq.write_table(table.set_column(0, "caption", hostile), copy / "annotations/captions.parquet")
    page = rendered((DatasetFolder(copy), runs), tmp_path)
    assert 'id="disagreements"' in page
    assert "<b>bold</b>" not in page
    assert len(re.findall("only the first", page)) == 1


def test_a_page_of_one_model_compares_nothing(scored_runs, tmp_path):
    assert 'id="disagreements"' not in rendered(scored_runs, tmp_path, experiments=["cusa"])


def test_without_a_gallery_queries_are_counted_but_not_shown(scored_runs, models):
    found = disagreements(scored_runs[0], models, Gallery(text_queries=0, image_queries=0))
    assert len(found) == 2
    assert not any(each.examples for each in found)


def test_runs_on_other_queries_are_not_compared(scored_runs, models, tmp_path):
    run = Path(shutil.copytree(models["cusa"].folder, tmp_path / "seed23"))
    outcomes_file.save(run / "benchmarks/itr.queries.npz", means({"t2i_r1": np.ones(3)}, Units.of_each_query("a", 3)))
    assert disagreements(scored_runs[0], {"one": models["cusa"], "two": RunFolder(run)}, Gallery()) == []


def test_the_first_decided_metric_of_each_way_is_compared():
    units = Units.of_each_query("images", 4)
    decided, shares = np.array([1.0, 0.0, np.nan, 1.0]), np.array([0.5, 0.0, 1.0, 1.0])
    statistics = {
        "i2t_map_at_r": Mean(units, shares),
        "i2t_r1": Mean(units, decided),
        "i2t_r5": Mean(units, decided),
        "t2i_r1": Mean(units, decided),
        "cub/r1": Mean(units, decided),
        "folds/fold 1/t2i_r1": Mean(units, decided),
        "rsum": Combination({"i2t_r1": 1.0}),
        "empty": Mean(units, np.full(4, np.nan)),
    }
    assert compared_metrics(statistics) == ["i2t_r1", "t2i_r1", "cub/r1"]
    assert answered(statistics["i2t_r1"]).tolist() == [True, False, False, True]
    assert title_of("image_retrieval", "cub/r1") == "image_retrieval cub"
    assert title_of("itr", "t2i_r1") == "itr: texts search images"


def test_a_pair_of_sentences_is_answered_if_its_rank_is_near_its_gold_rank():
    gold = np.arange(20.0)
    cosine = gold.copy()
    cosine[[0, 19]] = cosine[[19, 0]]
    near = answered(Spearman(Units.of_each_query("pairs", 20), cosine, gold))
    assert near.tolist() == [False, *[True] * 18, False]


def test_each_benchmark_says_what_its_queries_are(scored_runs, tmp_path):
    folder, _ = scored_runs
    copy = DatasetFolder(Path(shutil.copytree(folder.root, tmp_path / "data")))
    tables = SplitTables.open(copy, "test", captions=["caption"])
    asked = itr.queries(copy, "t2i_r1")
    assert asked.items.texts == tables.captions["caption"].to_pylist()
    assert len(asked.gallery.rows) == len(tables.image_rows)
    assert itr.queries(copy, "i2t_r1").items.texts is None
    assert itr.queries(copy, "folds/fold 1/i2t_r1") is None

    pq.write_table(
        pa.table({"caption": ["B", "A", "A"], "cleaned": ["b", "a", "a"], "image": tables.image_rows[:3]}),
        copy.annotations / EXTENDED_POSITIVES,
    )
    assert eccv_caption.queries(copy, "t2i_r1").items.texts == ["a", "b"]
    assert eccv_caption.queries(copy, "i2t_r1").gallery.texts == ["a", "b"]

    pq.write_table(
        pa.table({"first": ["a", "b"], "second": ["c", "d"], "score": [0.0, 1.0]}), copy.annotations / SENTENCE_PAIRS
    )
    pairs = sts.queries(copy, "spearman")
    assert [text.split() for text in pairs.items.texts] == [["a", "\N{EN DASH}", "c"], ["b", "\N{EN DASH}", "d"]]
    assert pairs.gallery is None
    assert sts.queries(copy, "STS12/spearman") is None


def test_images_with_roles_search_the_gallery_and_others_each_other(scored_runs, tmp_path):
    folder, _ = scored_runs
    copy = DatasetFolder(Path(shutil.copytree(folder.root, tmp_path / "shapes")))
    own = copy.benchmark_data("inshop")
    own.annotations.mkdir(parents=True)
    images = read_table(copy.annotations, IMAGES).slice(0, 4).drop_columns(["split"])
    images = images.append_column("split", pa.array(["test"] * 4))
    pq.write_table(images, own.annotations / IMAGES)
    everyone = image_retrieval.queries(copy, "inshop/r1")
    assert everyone.with_itself
    assert everyone.items.rows.tolist() == [0, 1, 2, 3]
    roles = images.append_column("role", pa.array(["query", "gallery", "gallery", "query"]))
    pq.write_table(roles, own.annotations / IMAGES)
    divided = image_retrieval.queries(copy, "inshop/r1")
    assert (divided.items.rows.tolist(), divided.gallery.rows.tolist()) == ([0, 3], [1, 2])
    assert not divided.with_itself


def labelled(folder: DatasetFolder, labels: list[str | None]) -> DatasetFolder:
    """Labelled images without captions, of the pictures of the shapes' test split."""
    own = folder.benchmark_data("birds")
    own.annotations.mkdir(parents=True)
    names = [f"{number}.png" for number in range(len(labels))]
    table = {"image_id": names, "image_path": names, "split": ["test"] * len(labels), "label": labels}
    pq.write_table(pa.table(table), own.annotations / IMAGES)
    shutil.copytree(folder.shards("test"), own.shards("test"))
    return own


def test_classified_images_are_shown_with_their_class(scored_runs, models, tmp_path):
    folder = DatasetFolder(Path(shutil.copytree(scored_runs[0].root, tmp_path / "shapes")))
    labels = ["tit", None, "robin", "robin", "tit", "tit", "robin", "tit"]
    own = labelled(folder, labels)
    asked = zero_shot_classification.queries(folder, "birds/acc1")
    assert asked.items.rows.tolist() == [0, 2, 3, 4, 5, 6, 7]
    assert linear_probe.queries(folder, "birds/acc1").items.array == "image_uni"
    runs = {}
    for name, answers in (("one", [1, 1, 0, 0, 0, 0, 0]), ("two", [0, 1, 1, 0, 0, 0, 0])):
        run = Path(shutil.copytree(models["cusa"].folder, tmp_path / name / "seed23"))
        (run / "benchmarks/itr.queries.npz").unlink()
        units = Units.of_each_query("birds", 7)
        outcomes = {"birds/acc1": np.array(answers, dtype=float)}
        outcomes_file.save(run / "benchmarks/zero_shot_classification.queries.npz", means(outcomes, units))
        runs[name] = RunFolder(run)
    (each,) = disagreements(folder, runs, Gallery())
    assert [(example.text, example.answered_by) for example in each.examples] == [("tit", "one"), ("robin", "two")]
    shutil.rmtree(own.shards("test"))
    (each,) = disagreements(folder, runs, Gallery())
    assert (each.only, each.examples) == ((1, 1), [])
