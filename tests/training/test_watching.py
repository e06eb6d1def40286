"""What is seen of a training while it runs, after an interruption and at its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import command, configured, interrupted, wait_for, weights_sha256

from cusa.errors import ConfigurationError, TrainingError
from cusa.layout import DatasetFolder
from cusa.runs.live import LiveRun, live_history_path, live_path
from cusa.training.loop import Trainer, train
from cusa.training.watching import points

TRACKER = """
import json, os

class Lines:
    def __init__(self, path):
        self.path = path

    def log(self, step, values):
        self.write([step, dict(values)])

    def finish(self, status, summary):
        self.write([status, dict(summary)])

    def write(self, content):
        with self.path.open("a") as file:
            file.write(json.dumps(content) + "\\n")

def start(run):
    lines = Lines(run.folder / "lines.jsonl")
    lines.write(["start", run.name, run.identity, run.continued])
    return lines
"""


def curve(run: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def expected(run: Path, kind: str, column: str) -> list[tuple[int, float]]:
    rows = [row for row in pq.read_table(run / "history.parquet").to_pylist() if row["kind"] == kind]
    steps = max(row["step"] for row in rows)
    return [(row["epoch"] * steps + row["step"], pytest.approx(row[column], rel=1e-6)) for row in rows]


@pytest.fixture
def tracker(tmp_path) -> str:
    path = tmp_path / "lines_tracker.py"
    path.write_text(TRACKER)
    return str(path)


def test_an_interrupted_training_has_one_curve_and_the_weights_of_an_uninterrupted_one(
    tiny_configuration, shapes_data, tmp_path, monkeypatch, tracker
):
    data = DatasetFolder(shapes_data)
    plain = configured(tiny_configuration, epochs=3, feature_dropout=0.2)
    train(plain, data, tmp_path / "plain")
    watched, run = configured(tiny_configuration, epochs=3, feature_dropout=0.2, trackers=[tracker]), tmp_path / "run"
    save = Trainer.save

    def stop_in_the_second_epoch(trainer, best=False):
        save(trainer, best)
        if trainer.progress.epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", stop_in_the_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            train(watched, data, run)
    assert LiveRun.read(run).status == "stopped"
    train(watched, data, run)
    assert weights_sha256(run) == weights_sha256(tmp_path / "plain")
    assert curve(run, "train/loss") == expected(run, "step", "loss")
    assert curve(run, "val/r_mean") == expected(run, "epoch", "r_mean")
    first, *told, last = [json.loads(line) for line in (run / "lines.jsonl").read_text().splitlines()]
    assert first[:2] == ["start", "cusa-seed23"]
    assert [line[1:] for line in told if line[0] == "start"] == [["cusa-seed23", first[2], True]]
    assert last[0] == "finished" and last[1]["best/r_mean"] == max(value for _, value in curve(run, "val/r_mean"))
    assert not {"live.json", "history.parquet", "tracked.json"} & {path.name for path in (run / "state").iterdir()}


def test_the_rows_so_far_are_there_before_the_end(tiny_configuration, shapes_data, tmp_path, monkeypatch):
    interrupted(configured(tiny_configuration, epochs=2), shapes_data, tmp_path / "run", monkeypatch)
    rows = pq.read_table(live_history_path(tmp_path / "run")).to_pylist()
    assert [row["epoch"] for row in rows if row["kind"] == "epoch"] == [0, 1]
    live = LiveRun.read(tmp_path / "run")
    assert (live.status, live.epoch, live.step, live.epochs) == ("stopped", 2, 0, 2)
    assert live.best_r_mean == max(row["r_mean"] for row in rows if row["kind"] == "epoch")
    assert live.pairs_per_second > 0
    assert live.seconds_left == 0


def test_a_failed_training_says_why(tiny_configuration, shapes_data, tmp_path):
    run = configured(tiny_configuration, lr=1e30, min_lr=1e29)
    with pytest.raises(TrainingError):
        train(run, DatasetFolder(shapes_data), tmp_path / "run")
    live = LiveRun.read(tmp_path / "run")
    assert live.status == "failed"
    assert "not finite" in live.message


def test_a_killed_training_leaves_its_curves(tiny_configuration, shapes_data, tmp_path):
    run, folder = configured(tiny_configuration, epochs=2000), tmp_path / "run"
    process = subprocess.Popen(command(run, shapes_data, folder), stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for(folder / "state/last.pt")
    wait_for(live_path(folder))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(curve(folder, "train/loss")) > 0
    assert LiveRun.read(folder).status == "running"  # it could not say anything else; `cusa runs` calls it killed


def test_a_training_from_the_start_replaces_the_curves(tiny_configuration, shapes_data, tmp_path):
    data = DatasetFolder(shapes_data)
    train(configured(tiny_configuration, epochs=2), data, tmp_path / "run")
    train(configured(tiny_configuration, epochs=1), data, tmp_path / "run")
    assert curve(tmp_path / "run", "val/r_mean") == expected(tmp_path / "run", "epoch", "r_mean")
    assert len(curve(tmp_path / "run", "val/r_mean")) == 1


def test_a_missing_package_stops_before_data_are_read(tiny_configuration, tmp_path, monkeypatch):
    monkeypatch.setattr("cusa.tracking.tracker.find_spec", lambda name: None)
    run = configured(tiny_configuration, trackers=["wandb"])
    with pytest.raises(ConfigurationError, match="`train.trackers` names wandb, but the package wandb is not"):
        train(run, DatasetFolder(tmp_path / "not there"), tmp_path / "run")


def test_curves_are_in_groups():
    row = {
        "kind": "step",
        "epoch": 3,
        "step": 20,
        "lr": 0.1,
        "loss": 2.0,
        "temperature_cross_teacher": 0.3,
        "samples_per_second": 10.0,
        "gpu_memory_gib": 3.0,
        "gpu_utilisation": None,
        "loss_uni": float("nan"),
    }
    assert points(row, "train") == {
        "train/lr": 0.1,
        "train/loss": 2.0,
        "temperature/cross_teacher": 0.3,
        "speed/samples_per_second": 10.0,
        "gpu/memory_gib": 3.0,
    }
