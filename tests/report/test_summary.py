from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from cusa.benchmarks.published_results import figures
from cusa.common.files import write_json
from cusa.config import RunConfiguration, validate
from cusa.report.summary import summarise, summary_rows
from cusa.report.tables import benchmark_tables, metric_title, to_markdown


def result(experiment, seed, benchmark="itr", **metrics):
    return {
        "benchmark": benchmark,
        "dataset": "d",
        "experiment": experiment,
        "seed": seed,
        "metrics": metrics,
        "protocol": "p",
        "n_queries": 10,
        "n_gallery": 5,
    }


RESULTS = [
    result("contrastive", 1, t2i_r1=10.0, i2t_median_rank=4.0),
    result("contrastive", 2, t2i_r1=14.0, i2t_median_rank=4.0),
    result("cusa", 1, t2i_r1=20.0, i2t_median_rank=2.0),
    result("cusa", 2, t2i_r1=20.0, i2t_median_rank=3.0),
    result("cusa", 1, benchmark="sts", spearman=50.0),
]


def test_mean_and_spread_over_seeds():
    rows = {(row["experiment"], row["metric"]): row for row in summary_rows(RESULTS)}
    assert rows["contrastive", "t2i_r1"]["mean"] == 12
    assert rows["contrastive", "t2i_r1"]["std"] == pytest.approx(8**0.5)
    assert rows["contrastive", "t2i_r1"]["values"] == [10.0, 14.0]
    assert rows["cusa", "spearman"]["std"] == 0


def test_the_best_is_marked_low_ranks_included():
    table = benchmark_tables(summary_rows(RESULTS))[0]
    cells = dict(table.rows)
    assert cells["contrastive"] == [("12.0 ± 2.8", False), ("4.0 ± 0.0", False)]
    assert cells["cusa"] == [("20.0 ± 0.0", True), ("2.5 ± 0.7", True)]


def test_files_and_what_was_skipped(tmp_path):
    paths = []
    for number, content in enumerate(RESULTS):
        paths.append(tmp_path / f"{number}.json")
        write_json(paths[-1], content)
    write_json(tmp_path / "problems.json", {"skipped": {"missing_image": 3, "empty_caption": 1}})
    summarise(
        paths, tmp_path, tmp_path / "s.parquet", tmp_path / "s.md", tmp_path / "s.tex", "contrastive", {"cub": "gone."}
    )
    assert pq.read_table(tmp_path / "s.parquet").num_rows == 5
    text = (tmp_path / "s.md").read_text()
    assert "| cusa | **20.0 ± 0.0** | **2.5 ± 0.7** |" in text
    assert "Left out of the data, as dataset.skip allows: 3 missing image, 1 empty caption." in text


def test_a_metric_that_one_experiment_lacks_is_said():
    rows = summary_rows([*RESULTS[:1], result("cusa", 1, i2t_median_rank=1.0)])
    assert "not computed" in to_markdown(benchmark_tables(rows), {})


@pytest.mark.parametrize(
    ("metric", "title"),
    [("t2i_r10", "t2i R@10"), ("rsum", "rsum"), ("r_mean", "mean"), ("i2t_map_at_r", "i2t mAP@R"), ("r1", "R@1"),
     ("t2i_median_rank", "t2i median rank"), ("spearman", "Spearman")],
)  # fmt: skip
def test_titles(metric, title):
    assert metric_title(metric) == title


def test_differences_with_intervals_and_published_figures(tmp_path):
    """Per-query outcomes lie beside the results; medians have a difference and no interval."""
    rng = np.random.default_rng(0)
    hits = {"contrastive": rng.random(200) < 0.3, "cusa": rng.random(200) < 0.6}
    paths = []
    for experiment, found in hits.items():
        path = tmp_path / experiment / "itr.json"
        content = result(experiment, 1, t2i_r1=100 * found.mean(), i2t_median_rank=2.0)
        write_json(path, content | {"published": {"t2i_r1": 44.2} if experiment == "cusa" else {}})
        np.savez(path.with_suffix(".queries.npz"), t2i_r1=found.astype(np.float32))
        paths.append(path)
    write_json(tmp_path / "problems.json", {"skipped": {}})
    summarise(paths, tmp_path, tmp_path / "s.parquet", tmp_path / "s.md", tmp_path / "s.tex", "contrastive")
    row = next(row for row in pq.read_table(tmp_path / "s.parquet").to_pylist() if row["published"])
    expected = 100 * (hits["cusa"].mean() - hits["contrastive"].mean())
    assert row["difference"] == pytest.approx(expected)
    assert row["difference_low"] < expected < row["difference_high"]
    text = (tmp_path / "s.md").read_text()
    assert "| cusa - contrastive | +" in text
    assert "| +0.0 |" in text  # the median
    assert "| cusa, published | 44.2 |" in text
    latex = (tmp_path / "s.tex").read_text()
    assert latex.count("\\begin{tabular}{lrr}") == latex.count("\\bottomrule") == 1
    assert "i2t median rank" in latex
    assert "\\textbf" in latex


def test_what_could_not_be_scored_is_said():
    rows = summary_rows([*RESULTS, result("teachers", 1, benchmark="sts", spearman=1.0)])
    tables = benchmark_tables(rows, {"teachers, itr": "The two teachers share no space."})
    assert tables[0].notes == ["teachers: not computed. The two teachers share no space."]
    assert "- sop: gone." in to_markdown(tables, {}, {"sop": "gone."})


def test_one_table_for_many_data_sets():
    metrics = {"cub/r1": 40.0, "cub/map_at_r": 10.0, "sop/r1": 50.0, "average/r1": 45.0}
    found = [result("cusa", 1, benchmark="image_retrieval") | {"metrics": metrics, "sizes": {"cub": [7, 6]}}]
    table = benchmark_tables(summary_rows(found))[0]
    assert table.columns == ["CUB-200-2011", "Stanford Online Products", "average"]
    assert table.title == "Image retrieval, R@1 of each data set"
    assert table.size.startswith("Queries: CUB-200-2011 7,")


def configuration(name, cross=None, uni=None):
    towers = {"image": {"name": "an image model"}, "text": {"name": "a text model"}} if name is None else None
    return validate(
        RunConfiguration,
        {
            "dataset": "d",
            "experiment": "e",
            "seed": 1,
            "student": {"name": name, "towers": towers},
            "losses": {"contrastive": {}, "cross_softlabel": cross, "uni_softlabel": uni},
            "teachers": None,
            "train": {"epochs": 1},
        },
    )


def test_published_figures_are_of_the_same_student_and_losses():
    wanted = {"t2i_r1": ("coco_5k", "t2i_r1"), "cub/r1": ("image_retrieval_r1", "cub"), "x": ("coco_5k", "no such")}
    cusa = figures(configuration("openai/clip-vit-base-patch32", {}, {}), wanted)
    assert cusa == {"t2i_r1": 44.2, "cub/r1": 49.7}
    assert figures(configuration("ViT-L/14@336px"), wanted) == {"t2i_r1": 51.6, "cub/r1": 58.3}
    assert figures(configuration("ViT-B/16", {}, {}), wanted) == {}
    assert figures(configuration(None), wanted) == {}
