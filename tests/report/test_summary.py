"""The summary of results: means over seeds, differences with intervals, and its files."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from benchmark_results import RESULTS, result

from cusa.benchmarks import outcomes_file
from cusa.benchmarks.outcomes import Mean, Spearman, Units
from cusa.common.files import write_json
from cusa.report.summary import SCHEMA, summarise, summary_rows


def test_mean_and_spread_over_seeds():
    rows = {(row["experiment"], row["metric"]): row for row in summary_rows(RESULTS)}
    assert rows["contrastive", "t2i_r1"]["mean"] == 12
    assert rows["contrastive", "t2i_r1"]["std"] == pytest.approx(8**0.5)
    assert rows["contrastive", "t2i_r1"]["values"] == [10.0, 14.0]
    assert rows["cusa", "spearman"]["std"] == 0


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


def test_what_runs_note_is_told_once_with_their_names(tmp_path):
    """The notes are those of run.json; the table of an earlier release has none."""
    paths = []
    for number, content in enumerate(RESULTS):
        notes = ["student: 59% are unknown."] + ["teacher: spelled."] * (content["experiment"] == "cusa")
        paths.append(tmp_path / f"{number}.json")
        write_json(paths[-1], content | {"notes": notes})
    write_json(tmp_path / "problems.json", {"skipped": {}})
    summarise(paths, tmp_path, tmp_path / "s.parquet", tmp_path / "s.md", tmp_path / "s.tex")
    expected = {"student: 59% are unknown.": "contrastive, cusa", "teacher: spelled.": "cusa"}
    assert json.loads(pq.read_schema(tmp_path / "s.parquet").metadata[b"notes"]) == expected
    text = (tmp_path / "s.md").read_text()
    assert "Results that may be worse than need be:\n\n- student: 59% are unknown. (noted by contrastive, cusa)" in text
    assert text.count("teacher: spelled. (noted by cusa)") == 1


def test_differences_with_intervals_and_published_figures(tmp_path):
    """The statistics are beside the results; a metric without one has a difference and no interval."""
    rng = np.random.default_rng(0)
    hits = {"contrastive": rng.random(200) < 0.3, "cusa": rng.random(200) < 0.6}
    paths = []
    for experiment, found in hits.items():
        path = tmp_path / experiment / "itr.json"
        content = result(experiment, 1, t2i_r1=100 * found.mean(), i2t_median_rank=2.0)
        write_json(path, content | {"published": {"t2i_r1": 44.2} if experiment == "cusa" else {}})
        statistics = {"t2i_r1": Mean(Units("images", 40, np.repeat(np.arange(40), 5)), found.astype(np.float64))}
        outcomes_file.save(path.with_suffix(".queries.npz"), statistics)
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
    assert "Differences without brackets have no interval" in text
    assert "| cusa, published | 44.2 |" in text
    latex = (tmp_path / "s.tex").read_text()
    assert latex.count("\\begin{tabular}{lrr}") == latex.count("\\bottomrule") == 1
    assert "i2t MedR" in latex
    assert "\\textbf" in latex


def test_outcomes_of_an_earlier_release_give_no_interval(tmp_path):
    """They do not say which queries are of one image. The differences stand alone, and a sentence says why."""
    paths = []
    for experiment in ("contrastive", "cusa"):
        paths.append(tmp_path / experiment / "itr.json")
        write_json(paths[-1], result(experiment, 1, t2i_r1=50.0))
        np.savez(paths[-1].with_suffix(".queries.npz"), t2i_r1=np.array([0, 1], dtype=np.float32))
    write_json(tmp_path / "problems.json", {"skipped": {}})
    summarise(paths, tmp_path, tmp_path / "s.parquet", tmp_path / "s.md", tmp_path / "s.tex", "contrastive")
    row = pq.read_table(tmp_path / "s.parquet").to_pylist()[1]
    assert (row["difference"], row["difference_low"], row["difference_high"]) == (0, None, None)
    assert "an earlier release wrote that file" in (tmp_path / "s.md").read_text()


def pairs(seed: int, constant: bool) -> Spearman:
    """Cosines of thirty pairs by one seed's model, which may give all pairs the same, with gold scores."""
    gold = np.random.default_rng(0).random(30)
    cosine = np.ones(30) if constant else gold + np.random.default_rng(seed).random(30)
    return Spearman(Units.of_each_query("sentence pairs", 30), cosine, gold)


def test_an_undefined_figure_is_null_with_its_reason(tmp_path):
    """One seed of cusa collapsed: its mean and interval are of the others. All of csa collapsed: it has neither."""
    collapsed, paths = {("cusa", 2), ("csa", 1), ("csa", 2)}, []
    for experiment, seed in [(name, seed) for name in ("contrastive", "cusa", "csa") for seed in (1, 2)]:
        undefined = (experiment, seed) in collapsed
        statistic = pairs(seed, undefined)
        content = result(experiment, seed, benchmark="sts", spearman=None if undefined else 50.0 + seed, pearson=1.0)
        if undefined:
            content["undefined"] = {"spearman": statistic.undefined()}
        paths.append(tmp_path / experiment / str(seed) / "sts.json")
        write_json(paths[-1], content)
        outcomes_file.save(paths[-1].with_suffix(".queries.npz"), {"spearman": statistic})
    write_json(tmp_path / "problems.json", {"skipped": {}})
    summarise(paths, tmp_path, tmp_path / "s.parquet", tmp_path / "s.md", tmp_path / "s.tex", "contrastive")
    rows = {(row["experiment"], row["metric"]): row for row in pq.read_table(tmp_path / "s.parquet").to_pylist()}
    cusa, csa = rows["cusa", "spearman"], rows["csa", "spearman"]
    assert (cusa["mean"], cusa["std"], cusa["values"]) == (51, 0, [51, None])
    assert cusa["undefined"] == "the model gives all 30 pairs the cosine 1 (seed 2)"
    assert cusa["difference_low"] <= cusa["difference_high"]
    assert (csa["mean"], csa["std"], csa["values"], csa["difference"]) == (None, None, [None, None], None)
    assert csa["undefined"] == "the model gives all 30 pairs the cosine 1 (seed 1, 2)"
    assert rows["csa", "pearson"]["mean"] == 1
    assert rows["contrastive", "spearman"]["undefined"] is None
    text = (tmp_path / "s.md").read_text()
    assert "| cusa | 51.0† | **1.0 ± 0.0** |" in text
    assert "| csa | – | **1.0 ± 0.0** |" in text
    assert "| csa - contrastive | – | +0.0 |" in text
    assert "cusa, Spearman: † mean of seed 1 only: the model gives all 30 pairs the cosine 1 (seed 2)." in text
    assert "csa, Spearman: – not defined: the model gives all 30 pairs the cosine 1 (seed 1, 2)." in text
    latex = (tmp_path / "s.tex").read_text()
    assert "csa & -- & \\textbf{1.0 $\\pm$ 0.0}" in latex
    assert "footnotesize csa, Spearman: -- not defined" in latex


def test_the_columns_of_the_summary_stay():
    """Others read summary.parquet."""
    assert SCHEMA.names == [
        "dataset", "benchmark", "data", "metric", "experiment", "mean", "std", "seeds", "values", "reference",
        "difference", "difference_low", "difference_high", "published", "n_queries", "n_gallery", "protocol",
        "undefined",
    ]  # fmt: skip
