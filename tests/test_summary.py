from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from cusa.files import write_json
from cusa.summary import benchmark_tables, metric_title, summarise, summary_rows, to_markdown


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
