"""The tables of a sweep and the overlay of its best trial."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
import yaml
from sweep_configurations import result, study_of

from cusa.errors import DataError
from cusa.sweep.summary import markdown_lines, overlay_of, summarise_sweep, table_rows

VALUES = {"train.lr": 0.0012345678, "experiments.cusa.uni_softlabel": None}
TRIALS = [
    result("a", 0, [1.0, 3.0, 2.0, 2.0]),
    result("b", 1, [1.0, 2.0, 3.0, 9.0], values=VALUES),
    result("c", 2, [99.0], reason="After 1 of 4 epochs its best r_mean was 99.00."),
    result("d", 3, state="diverged", reason="the loss is not finite"),
    result("e", 4, [1.0, 2.0, 3.0, 9.0], values=VALUES, same_as="b"),
]


def test_the_tables_and_the_overlay_are_written(tmp_path):
    study = study_of(tmp_path / "cusa-grid-0", *TRIALS)
    summarise_sweep(study.folder, ["a", "b", "c", "d", "e"])
    rows = pq.read_table(study.folder / "trials.parquet").to_pylist()
    assert [row["trial"] for row in rows] == ["b", "e", "a", "c", "d"]
    assert [row["best"] for row in rows] == [True, False, False, False, False]
    assert json.loads(rows[0]["values"]) == VALUES
    assert (rows[0]["score"], rows[0]["selected_epochs"], rows[0]["seconds"]) == (9.0, [3], 1.0)
    assert rows[1]["seconds"] == 0.0
    assert rows[4]["score"] is None
    overlay = (study.folder / "best.yaml").read_text()
    assert yaml.safe_load(overlay) == {
        "train": {"lr": 0.0012345678},
        "experiments": {"cusa": {"uni_softlabel": None}},
    }
    assert "# The best of 5 trials" in overlay
    assert (study.folder / "trials.md").read_text().count("\n") == 7


def test_the_markdown_marks_the_best_and_says_how_trials_ended():
    lines = markdown_lines(table_rows(TRIALS))
    assert lines[0] == "| trial | `train.lr` | `experiments.cusa.uni_softlabel` | r_mean on val | epoch | state |"
    assert lines[2] == "| **b** | **0.001235** | **null** | **9.00** | **4** | **finished** |"
    assert lines[3].endswith("| same as b |")
    assert lines[5].endswith("| 99.00 | 1 | stopped after 1 of 4 epochs |")
    assert lines[6].endswith("|  |  | diverged |")


def test_a_trial_that_has_not_ended_is_named(tmp_path):
    study = study_of(tmp_path, *TRIALS)
    with pytest.raises(DataError, match=r"2 of 3 trials of .* have not ended, the first x; run `snakemake sweep`"):
        summarise_sweep(study.folder, ["a", "x", "y"])
    assert not (tmp_path / "trials.parquet").exists()


def test_without_a_finished_trial_there_is_no_best(tmp_path):
    study = study_of(tmp_path, *TRIALS[2:4])
    with pytest.raises(DataError, match=r"none of the 2 trials .* its end \(After 1 of 4 .*\); change `sweep.space`"):
        overlay_of(study.results, study)
