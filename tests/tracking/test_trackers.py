"""The trackers of others, each with its own library and without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cusa.config.section import validate
from cusa.config.training import Train
from cusa.errors import ConfigurationError
from cusa.tracking import tracker
from cusa.tracking.tracker import TrackedRun, flattened, require_trackers, start_tracker

POINTS = {1: {"train/loss": 2.0}, 2: {"train/loss": 1.0, "val/r_mean": 40.0}}


def tracked(folder: Path, continued: bool = False) -> TrackedRun:
    return TrackedRun(
        project="shapes",
        name="cusa-seed23",
        group="cusa",
        identity="0123abcd",
        continued=continued,
        configuration={"train": {"lr": 0.001, "trackers": []}, "losses": {"contrastive": None}},
        folder=folder,
    )


def track(name: str, folder: Path) -> None:
    """A training that is interrupted after two steps, and continued from the second."""
    first = start_tracker(name, tracked(folder))
    for step, values in POINTS.items():
        first.log(step, values)
    first.finish("stopped", {})
    second = start_tracker(name, tracked(folder, continued=True))
    second.log(2, POINTS[2])
    second.log(3, {"train/loss": 0.5})
    second.finish("finished", {"best/r_mean": 40.0})


def test_wandb_keeps_a_run_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    track("wandb", tmp_path)
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) >= 1
    assert {path.name.rpartition("run-")[2] for path in tmp_path.rglob("run-*.wandb")} == {"cusa-seed23-0123abcd.wandb"}


def test_a_tracker_that_cannot_start_says_why(tmp_path, monkeypatch):
    import wandb

    def nobody_is_logged_in(**_):
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", nobody_is_logged_in)
    with pytest.raises(ConfigurationError, match="tracker wandb could not start .UsageError: No API key configured"):
        start_tracker("wandb", tracked(tmp_path))


def test_mlflow_has_one_run_of_an_interrupted_training(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer releases ask for it; a server is the usual place
    track("mlflow", tmp_path)
    from mlflow import MlflowClient

    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("shapes").experiment_id])
    assert (run.info.run_name, run.info.status) == ("cusa-seed23", "FINISHED")
    assert run.data.params["train.lr"] == "0.001"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert {metric.step: metric.value for metric in history} == {1: 2.0, 2: 1.0, 3: 0.5}
    assert run.data.metrics["best/r_mean"] == 40.0


def test_mlflow_keeps_runs_in_a_database_without_a_server(tmp_path, monkeypatch):
    """What MLflow does by default; it takes alembic, which mlflow-skinny does not bring but the extra does."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    track("mlflow", tmp_path)
    from mlflow import MlflowClient

    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("shapes").experiment_id])
    assert (run.info.status, run.data.metrics["best/r_mean"]) == ("FINISHED", 40.0)


def test_trackio_has_one_run_of_an_interrupted_training(tmp_path, monkeypatch):
    trackio = pytest.importorskip("trackio", reason="it needs an older Pillow than the lock has")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    track("trackio", tmp_path)
    (run,) = trackio.Api().runs("shapes")
    assert run.name == "cusa-seed23-0123abcd"


def test_a_python_file_is_a_tracker(tmp_path):
    file = tmp_path / "lines.py"
    file.write_text(
        "import json\n\n\nclass Lines:\n"
        "    def __init__(self, path):\n        self.path = path\n\n"
        "    def log(self, step, values):\n        self.write([step, dict(values)])\n\n"
        "    def finish(self, status, summary):\n        self.write([status, dict(summary)])\n\n"
        "    def write(self, content):\n        with self.path.open('a') as file:\n"
        "            file.write(json.dumps(content) + '\\n')\n\n\n"
        "def start(run):\n    return Lines(run.folder / 'lines.jsonl')\n"
    )
    track(str(file), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert lines == [
        [1, POINTS[1]],
        [2, POINTS[2]],
        ["stopped", {}],
        [2, POINTS[2]],
        [3, {"train/loss": 0.5}],
        ["finished", {"best/r_mean": 40.0}],
    ]


def test_unknown_trackers_are_refused_with_the_configuration(tmp_path):
    with pytest.raises(ConfigurationError, match="no tracker 'neptune'; expected one of 'mlflow', 'trackio', 'wandb'"):
        validate(Train, {"epochs": 1, "trackers": ["neptune"]}, at="train")
    with pytest.raises(ConfigurationError, match="`train.trackers`: mine.py does not exist"):
        validate(Train, {"epochs": 1, "trackers": ["mine.py"]}, at="train")
    with pytest.raises(ConfigurationError, match="`train.trackers` has wandb twice; list each once"):
        validate(Train, {"epochs": 1, "trackers": ["wandb", "mlflow", "wandb"]}, at="train")


def test_a_file_without_start_is_refused_before_data_are_read(tmp_path):
    (tmp_path / "mine.py").write_text("")
    with pytest.raises(ConfigurationError, match="has no `start`"):
        require_trackers([str(tmp_path / "mine.py")])


def test_a_package_that_is_not_installed_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(tracker, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"package wandb is not installed; run pip install 'cusa\[wandb\]'"):
        require_trackers(["wandb"])


def test_without_trackers_the_configuration_is_as_before():
    settings = {"epochs": 1}
    assert "trackers" not in json.loads(Train(**settings).as_json())
    assert json.loads(Train(**settings, trackers=["wandb"]).as_json())["trackers"] == ["wandb"]


def test_nested_settings_have_one_name_each():
    assert flattened({"a": {"b": {"c": 1}, "d": {}}, "e": [2]}) == {"a.b.c": 1, "a.d": {}, "e": [2]}
