"""What can be told of runs from their folders, whatever became of their processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cusa.commands.run_list import lines
from cusa.common.files import write_json
from cusa.config.interpolation import Interpolation
from cusa.errors import DataError
from cusa.runs.live import LiveRun, holder_of, is_alive
from cusa.runs.overview import overview, row_of, run_folders
from cusa.runs.record import RunRecord

HERE = os.uname().nodename


@pytest.fixture
def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def unfinished(folder, process: int, host: str = HERE, **changes):
    """A run folder as a training leaves it."""
    live = {
        "status": "running",
        "experiment": "cusa",
        "seed": 23,
        "epochs": 10,
        "steps_per_epoch": 100,
        "epoch": 4,
        "step": 50,
        "best_epoch": 2,
        "best_r_mean": 41.5,
        "last_r_mean": 40.0,
        "pairs_per_second": 1000.0,
        "seconds_left": 60.0,
        "started": "2026-11-28T20:00:00+00:00",
        "updated": "2026-11-28T20:01:00+00:00",
    }
    LiveRun(**live | changes).write(folder)
    write_json(folder / "state/holder.json", {"process": process, "host": host, "slurm_job": None})
    return folder


def test_a_process_that_lives_is_running(tmp_path):
    row = row_of(unfinished(tmp_path / "runs/cusa/seed23", os.getpid()))
    assert (row.state, row.epoch, row.epochs, row.best_r_mean, row.seconds_left) == ("running", 4, 10, 41.5, 60.0)
    assert row.host is None


def test_a_process_that_is_gone_was_killed(tmp_path, ended_process):
    row = row_of(unfinished(tmp_path / "run", ended_process))
    assert (row.state, row.pairs_per_second) == ("killed", None)


def test_a_process_on_another_host_is_believed_with_the_time_of_its_word(tmp_path):
    row = row_of(unfinished(tmp_path / "run", 1, host="elsewhere"))
    assert (row.state, row.host, row.updated) == ("running", "elsewhere", "2026-11-28T20:01:00+00:00")


def test_a_training_that_ended_badly_says_how(tmp_path, ended_process):
    failed = unfinished(tmp_path / "failed", ended_process, status="failed", message="the loss is not finite")
    assert (row_of(failed).state, row_of(failed).message) == ("failed", "the loss is not finite")
    assert row_of(unfinished(tmp_path / "stopped", ended_process, status="stopped")).state == "stopped"


def test_a_training_that_reads_its_data_is_starting(tmp_path):
    write_json(tmp_path / "run/state/holder.json", {"process": os.getpid(), "host": HERE, "slurm_job": None})
    assert row_of(tmp_path / "run").state == "starting"


def test_finished_runs_and_baselines(scored_runs):
    _, runs = scored_runs
    row = row_of(runs["cusa"][0])
    assert row.state == "finished"
    assert 0 < row.last_r_mean <= row.best_r_mean
    assert row.epoch == row.epochs
    assert row.pairs_per_second > 0
    assert row.seconds > 0


def test_a_hopeless_trial_of_a_sweep_has_not_just_finished(scored_runs, tmp_path):
    _, runs = scored_runs
    record = RunRecord.read(runs["cusa"][0]).model_copy(update={"stopped_because": "it was hopeless"})
    record.write(tmp_path)
    assert row_of(tmp_path).state == "stopped early"


def test_an_interpolation_has_its_alpha_and_none_of_the_epochs_of_its_source(scored_runs, tmp_path):
    _, runs = scored_runs
    record = RunRecord.read(runs["cusa"][0])
    between = record.configuration.model_copy(update={"interpolate": Interpolation(experiment="cusa")})
    changes = {"configuration": between, "selection_metrics": {"alpha": 0.4, "r_mean": 50.0}, "seconds": 7.0}
    record.model_copy(update=changes).write(tmp_path)
    row = row_of(tmp_path)
    assert (row.state, row.alpha, row.best_r_mean, row.seconds) == ("interpolated", 0.4, 50.0, 7.0)
    assert (row.epoch, row.epochs, row.best_epoch, row.last_r_mean, row.pairs_per_second) == (None,) * 5
    _, line = lines([row])
    assert line.split()[1:] == ["interpolated", "alpha", "0.4", "50.00", "took", "7", "s"]
    assert row_of(runs["cusa"][0]).alpha is None


def test_results_of_one_data_set_of_all_and_single_runs_are_found(tmp_path, ended_process):
    first = unfinished(tmp_path / "results/one/runs/cusa/seed23", ended_process)
    second = unfinished(tmp_path / "results/two/runs/cusa/seed24", ended_process)
    trial = unfinished(tmp_path / "results/two/sweep/cusa-0123/trials/004/seed23", ended_process)
    (tmp_path / "results/two/runs/cusa/seed25").mkdir()  # nothing is in it yet
    assert run_folders(tmp_path / "results") == [first, second, trial]
    assert run_folders(tmp_path / "results/two") == [second, trial]
    assert run_folders(tmp_path / "results/one/runs/cusa") == [first]
    assert run_folders(tmp_path / "results/two/sweep") == run_folders(trial.parents[2]) == [trial]
    assert run_folders(first) == [first]
    assert [row.seed for row in overview([tmp_path / "results"])] == ["23", "24", "23"]


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no runs. Expected a folder of results"):
        run_folders(tmp_path)


@pytest.mark.parametrize("content", [{}, {"host": HERE}, {"host": HERE, "process": "x"}], ids=str)
def test_a_holder_of_another_release_tells_nothing(content):
    assert is_alive(content) is None


def test_damaged_files_tell_nothing(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state/live.json").write_text("{")
    (tmp_path / "state/holder.json").write_text("{")
    assert LiveRun.read(tmp_path) is None
    assert holder_of(tmp_path) is None
    assert row_of(tmp_path).state == "not finished"
