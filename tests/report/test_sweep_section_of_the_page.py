"""The part of the report about a sweep: its table, its lines, and pages without one."""

from __future__ import annotations

import json

import pytest

from cusa.config.report import Gallery
from cusa.report.page import render
from cusa.report.sweep import draw_trials, sweep_section
from cusa.sweep.study import SeedResult, Study, TrialResult
from cusa.sweep.summary import summarise_sweep, table_rows


def trial(number: int, r_mean: float | None, **values: object) -> TrialResult:
    seeds = []
    if r_mean is not None:
        curve = [r_mean - 1, r_mean]
        seeds = [SeedResult(seed=23, r_mean=r_mean, selected_epoch=1, curve=curve, metrics={}, seconds=30.0)]
    state = "finished" if seeds else "diverged"
    return TrialResult(trial=f"{number:04d}", number=number, values=values, state=state, epochs=2, seeds=seeds)


TRIALS = [
    trial(0, 40.0, **{"train.lr": 0.001, "student.towers.dimension": 128, "experiments.cusa.uni_softlabel": None}),
    trial(
        1, 50.0, **{"train.lr": 0.01, "student.towers.dimension": 256, "experiments.cusa.uni_softlabel": {"rate": 1}}
    ),
    trial(2, None, **{"train.lr": 0.1, "student.towers.dimension": 256, "experiments.cusa.uni_softlabel": None}),
]


@pytest.fixture
def trials(tmp_path):
    study = Study(tmp_path / "cusa-tpe-0")
    for each in TRIALS:
        study.trial(each.trial).begin(each.number, each.values)
        study.trial(each.trial).end(each)
    summarise_sweep(study.folder, [each.trial for each in TRIALS])
    return study.folder / "trials.parquet"


def test_the_section_has_the_best_first(trials):
    section = sweep_section(trials)
    assert section["keys"] == ["train.lr", "student.towers.dimension", "experiments.cusa.uni_softlabel"]
    assert [row["trial"] for row in section["rows"]] == ["0001", "0000", "0002"]
    assert section["rows"][0]["values"] == ["0.01", "256", '{"rate": 1}']
    assert [row["best"] for row in section["rows"]] == [True, False, False]
    assert section["states"] == {"finished": 2, "diverged": 1}
    assert section["minutes"] == 1.0


def test_a_line_crosses_each_axis_at_its_value(trials):
    """Two trials with a score: lines from end to end, and one axis for each of three keys and the score."""
    svg = draw_trials(table_rows(TRIALS))
    for text in ("dimension", "uni_softlabel", "r_mean on val", "256", "null", "0.001"):
        assert text in svg
    assert svg.count('<path d="M') >= 4 + 2
    assert svg == draw_trials(table_rows(TRIALS))


@pytest.mark.parametrize("kept", [[], [0], [2]], ids=["none", "one", "without-score"])
def test_few_trials_can_be_drawn(kept):
    assert draw_trials(table_rows([TRIALS[number] for number in kept])).startswith("<?xml")


def test_many_values_have_an_axis_of_numbers():
    trials = [trial(number, 40.0 + number, **{"train.lr": 10.0 ** -(number / 2)}) for number in range(8)]
    svg = draw_trials(table_rows(trials))
    assert ">0.0178<" in svg  # the middle of a logarithmic axis from 10**-3.5 to 1


def test_the_page_shows_the_sweep_only_if_there_is_one(scored_runs, trials, tmp_path):
    folder, runs = scored_runs
    pages = {}
    for name, sweep in (("without", None), ("with", trials)):
        figures = tmp_path / name
        render(folder, folder.root / "summary.parquet", runs, Gallery(), tmp_path / f"{name}.html", figures, sweep)
        pages[name] = (tmp_path / f"{name}.html").read_text()
        assert (figures / "sweep.svg").is_file() == (sweep is not None)
    assert 'id="sweep"' not in pages["without"]
    assert '<h2 id="sweep">' in pages["with"]
    assert "cusa-tpe-0: 3 trials (2 finished, 1 diverged), 1.0 minutes" in pages["with"]
    assert "# The best of 3 trials" in pages["with"]
    assert json.dumps({"rate": 1}).replace('"', "&#34;") in pages["with"]
    assert pages["with"].count("<svg") == pages["without"].count("<svg") + 1
