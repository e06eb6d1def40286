"""`cusa runs` and `cusa diff`."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from cusa import cli
from cusa.common.files import read_json, write_json
from cusa.common.progress import duration
from cusa.runs.live import LiveRun


def said(capsys, monkeypatch, *words) -> str:
    monkeypatch.setattr(sys, "argv", ["cusa", *map(str, words)])
    cli.main()
    return capsys.readouterr().out


def test_runs_of_a_data_set_in_a_table_and_as_json(scored_runs, capsys, monkeypatch):
    folder, runs = scored_runs
    heading, *lines = said(capsys, monkeypatch, "runs", folder.root).splitlines()
    assert heading.split()[:3] == ["run", "state", "epochs"]
    # Other tests train runs in the same folder.
    assert {line.split()[0] for line in lines} >= {str(path) for paths in runs.values() for path in paths}
    rows = json.loads(said(capsys, monkeypatch, "runs", folder.root, "--json"))
    record = read_json(runs["cusa"][0] / "run.json")
    (row,) = (row for row in rows if row["run"] == str(runs["cusa"][0]))
    assert row["best_r_mean"] == record["selection_metrics"]["r_mean"]


def test_the_error_of_a_failed_run_is_below_the_table(tmp_path, capsys, monkeypatch):
    live = {"status": "failed", "experiment": "a", "seed": 1, "epochs": 9, "steps_per_epoch": 5, "epoch": 1, "step": 2}
    LiveRun(**live, started="then", updated="now", message="the loss is not finite").write(tmp_path / "a/seed1")
    output = said(capsys, monkeypatch, "runs", tmp_path)
    assert "failed" in output.splitlines()[1]
    assert output.splitlines()[2] == f"{tmp_path}/a/seed1: the loss is not finite"


def test_two_runs_side_by_side(scored_runs, capsys, monkeypatch):
    _, runs = scored_runs
    first, second = runs["contrastive"][0], runs["cusa"][0]
    output = said(capsys, monkeypatch, "diff", first, second)
    lines = {line.split()[0]: line.split()[1:] for line in output.splitlines() if line}
    assert lines["experiment"] == ["contrastive", "cusa"]
    assert lines["losses.uni_softlabel.rate"][0] == "-"
    assert "train.lr" not in lines
    content = json.loads(said(capsys, monkeypatch, "diff", first, second, "--json", "--all"))
    assert content["settings"]["train.lr"] == [0.001, 0.001]
    for benchmark, metrics in content["scores"].items():
        results = [read_json(run / f"benchmarks/{benchmark}.json")["metrics"] for run in (first, second)]
        for name, each in metrics.items():
            assert (each["first"], each["second"]) == (results[0][name], results[1][name])
            low, high = each.get("interval", (-200, 200))
            assert low <= each["difference"] <= high
    assert "interval" in content["scores"]["itr"]["rsum"]


def test_a_run_is_no_different_from_itself(scored_runs, capsys, monkeypatch):
    run = scored_runs[1]["cusa"][0]
    output = said(capsys, monkeypatch, "diff", run, run)
    assert "(the settings of both are equal)" in output
    assert "+0.00" in output


def test_runs_of_different_data_and_without_scores_are_compared_by_their_settings(
    scored_runs, tmp_path, capsys, monkeypatch
):
    run = scored_runs[1]["cusa"][0]
    other = tmp_path / "runs/cusa/seed24"
    other.mkdir(parents=True)
    shutil.copy(run / "run.json", other)
    content = read_json(other / "run.json")
    content["configuration"]["dataset"] = "other"
    content["data"] = {"annotations": "0" * 64}
    write_json(other / "run.json", content)
    output = said(capsys, monkeypatch, "diff", run, other)
    assert "(no benchmark has scored both" in output
    assert "data." not in output


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit, match=r"run.json does not exist"):
        said(capsys, monkeypatch, "diff", tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (11_100, "3 h 05 min"), (200_000, "2 d 7 h")],
    ids=str,
)
def test_times_are_for_people(seconds, text):
    assert duration(seconds) == text
