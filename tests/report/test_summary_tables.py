"""The summary as tables for readers."""

from __future__ import annotations

import pytest
from benchmark_results import RESULTS, result

from cusa.report.summary import add_differences, summary_rows
from cusa.report.tables import benchmark_tables, metric_title, to_markdown


def test_the_best_is_marked_low_ranks_included():
    table = benchmark_tables(summary_rows(RESULTS))[0]
    cells = dict(table.rows)
    assert cells["contrastive"] == [("12.0 ± 2.8", False), ("4.0 ± 0.0", False)]
    assert cells["cusa"] == [("20.0 ± 0.0", True), ("2.5 ± 0.7", True)]


def test_a_metric_that_one_experiment_lacks_is_said():
    rows = summary_rows([*RESULTS[:1], result("cusa", 1, i2t_median_rank=1.0)])
    assert "not computed" in to_markdown(benchmark_tables(rows), {})


@pytest.mark.parametrize(
    ("metric", "title"),
    [("t2i_r10", "t2i R@10"), ("rsum", "rsum"), ("r_mean", "mean"), ("i2t_map_at_r", "i2t mAP@R"), ("r1", "R@1"),
     ("t2i_median_rank", "t2i MedR"), ("spearman", "Spearman")],
)  # fmt: skip
def test_titles(metric, title):
    assert metric_title(metric) == title


def test_what_could_not_be_scored_is_said():
    rows = summary_rows([*RESULTS, result("teachers", 1, benchmark="sts", spearman=1.0)])
    tables = benchmark_tables(rows, {"teachers, itr": "The two teachers share no space."})
    assert tables[0].notes == ["teachers: not computed. The two teachers share no space."]
    assert "- sop: gone." in to_markdown(tables, {}, {"sop": "gone."})


def test_an_experiment_with_other_seeds_than_its_reference_is_said():
    rows = summary_rows([*RESULTS[:2], *(result("cusa", seed, t2i_r1=20.0) for seed in (2, 3, 4))])
    add_differences(rows, {}, "contrastive")
    (table,) = benchmark_tables(rows)
    assert table.notes == ["cusa - contrastive: the mean of seed 2, 3, 4 is compared with that of seed 1, 2."]
    same = summary_rows(RESULTS[:4])
    add_differences(same, {}, "contrastive")
    assert benchmark_tables(same)[0].notes == []


def test_figures_that_no_experiment_defines_have_no_best():
    content = result("cusa", 1, benchmark="sts", spearman=None, pearson=None)
    content["undefined"] = dict.fromkeys(("spearman", "pearson"), "all 3 gold scores are 1")
    (table,) = benchmark_tables(summary_rows([content]))
    assert table.rows == [("cusa", [("–", False), ("–", False)])]
    assert table.notes == ["cusa, Spearman, Pearson: – not defined: all 3 gold scores are 1 (seed 1)."]


def test_one_table_for_many_data_sets():
    metrics = {"cub/r1": 40.0, "cub/map_at_r": 10.0, "sop/r1": 50.0, "average/r1": 45.0}
    found = [result("cusa", 1, benchmark="image_retrieval") | {"metrics": metrics, "sizes": {"cub": [7, 6]}}]
    table = benchmark_tables(summary_rows(found))[0]
    assert table.columns == ["CUB-200-2011", "Stanford Online Products", "average"]
    assert table.title == "Image retrieval, R@1 of each data set"
    assert table.size.startswith("Queries: CUB-200-2011 7,")


def test_the_average_stands_beside_all_that_it_is_of():
    metrics = {"acc1": 70.0, "mean_per_class_recall": 60.0, "pets/acc1": 80.0, "average/acc1": 75.0}
    sizes = {"": [60, 2], "pets": [120, 2]}
    found = [result("cusa", 1, benchmark="zero_shot_classification") | {"metrics": metrics, "sizes": sizes}]
    own, every = benchmark_tables(summary_rows(found))
    assert own.columns == ["accuracy", "mean per class recall"]
    assert every.columns == ["own images", "pets", "average"]
    assert every.rows == [("cusa", [("70.0", True), ("80.0", True), ("75.0", True)])]
    assert every.size == "Queries: own images 60, pets 120"


@pytest.mark.parametrize(
    ("benchmark", "metrics", "size"),
    [
        ("itr", {"t2i_r1": 1.0, "i2t_r1": 2.0}, "50 texts and 30 images, each searched with the other"),
        ("zero_shot_classification", {"acc1": 1.0}, "50 images, 30 classes"),
        ("image_retrieval", {"r1": 1.0}, "50 queries, 30 in the gallery"),
    ],
)
def test_sizes_are_called_what_they_are(benchmark, metrics, size):
    each = result("cusa", 1, benchmark=benchmark, **metrics) | {"n_queries": 50, "n_gallery": 30, "sizes": {}}
    assert benchmark_tables(summary_rows([each]))[0].size == size
