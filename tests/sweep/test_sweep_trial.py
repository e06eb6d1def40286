"""Trials that train: their results, what is continued and what is taken again, on the shapes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sweep_configurations import result, study_of, swept

from cusa.common.files import read_json, sha256_of_file
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.runs.record import RunRecord
from cusa.sweep.space import run_at
from cusa.sweep.study import Study
from cusa.sweep.trial import run_trial
from cusa.training.loop import Trainer, train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(shapes_data, tmp_path) -> DatasetFolder:
    """The data of the shapes, with a sweep of their own."""
    root = tmp_path / "shapes"
    root.mkdir()
    for path in shapes_data.iterdir():
        (root / path.name).symlink_to(path)
    return DatasetFolder(root)


@pytest.fixture
def study(folder) -> Study:
    return Study(folder.study("cusa-grid-0"))


def untrained(monkeypatch) -> None:
    """From here on nothing may be trained."""

    def no(*_: object) -> None:
        raise AssertionError("this was trained before")

    monkeypatch.setattr(Trainer, "train_epoch", no)


def test_a_trial_is_the_training_of_its_values(tiny_configuration, folder, study, tmp_path):
    """Bit for bit the same weights as the same configuration gives without a sweep."""
    configuration, point = swept(tiny_configuration), {"train.lr": 0.003}
    run_trial(configuration, folder, study.folder, "a", point)
    found = study.trial("a").result
    assert (found.state, found.number, found.values, found.epochs) == ("finished", 0, point, 2)
    record = RunRecord.read(study.trial("a").run(23))
    assert found.score == record.selection_metrics["r_mean"]
    assert found.seeds[0].curve[found.seeds[0].selected_epoch] == max(found.seeds[0].curve) == found.score

    train(run_at(configuration, point, 23), DatasetFolder(folder.root), tmp_path / "run")
    assert sha256_of_file(tmp_path / "run/best.safetensors") == record.weights_sha256


def test_all_seeds_count_and_the_best_keeps_its_weights(tiny_configuration, folder, study):
    configuration = swept(tiny_configuration, seeds=[5, 6])
    run_trial(configuration, folder, study.folder, "slow", {"train.lr": 0.0002})
    run_trial(configuration, folder, study.folder, "fast", {"train.lr": 0.003})
    results = {each.trial: each for each in study.results}
    for each in results.values():
        assert [seed.seed for seed in each.seeds] == [5, 6]
        assert each.score == pytest.approx(np.mean([seed.r_mean for seed in each.seeds]))
    best = max(results, key=lambda name: results[name].score)
    kept = {path.parts[-3] for path in study.folder.glob("trials/*/*/best.safetensors")}
    assert kept == {best}


def test_what_was_trained_is_not_trained_again(tiny_configuration, folder, study, monkeypatch):
    """Snakemake removes trial.json before it starts a job again; of losing trials even the weights are gone."""
    configuration = swept(tiny_configuration)
    run_trial(configuration, folder, study.folder, "a", {"train.lr": 0.003})
    before = study.trial("a").result
    (study.trial("a").folder / "trial.json").unlink()
    study.trial("a").drop_weights()
    untrained(monkeypatch)
    run_trial(configuration, folder, study.folder, "a", {"train.lr": 0.003})
    assert study.trial("a").result == before


def test_other_data_are_trained_again(tiny_configuration, folder, study, shapes_data):
    configuration = swept(tiny_configuration)
    run_trial(configuration, folder, study.folder, "a", {"train.lr": 0.003})
    recorded = study.trial("a").run(23) / "run.json"
    content = read_json(recorded)
    name = next(iter(content["data"]))
    content["data"][name] = "0" * 64
    for path in (recorded, study.trial("a").run(23) / "state/finished/run.json"):
        path.unlink()
        path.write_text(json.dumps(content))
    run_trial(configuration, folder, study.folder, "a", {"train.lr": 0.003})
    assert RunRecord.read(study.trial("a").run(23)).data[name] != "0" * 64


def test_the_best_trial_is_not_trained_again_as_a_run(tiny_configuration, folder, study, monkeypatch):
    """The overlay of the best gives its experiment the same configuration, so the run takes the trial's files."""
    configuration, point = swept(tiny_configuration), {"train.lr": 0.003}
    run_trial(configuration, folder, study.folder, "a", point)
    untrained(monkeypatch)
    run = folder.run("cusa", 23)
    train(run_at(configuration, point, 23), folder, run)
    record = RunRecord.read(run)
    assert record.weights_sha256 == sha256_of_file(run / "best.safetensors")
    with pytest.raises(AssertionError, match="trained before"):
        train(run_at(configuration, {"train.lr": 0.002}, 23), folder, folder.run("other", 23))


def test_a_hopeless_trial_is_stopped_and_no_run_takes_its_files(tiny_configuration, folder, study, monkeypatch):
    configuration = swept(tiny_configuration, pruning={"startup_trials": 2, "warmup": 0.25})
    others = [result(name, number, [101.0, 102.0], epochs=2) for number, name in enumerate("xy")]
    study_of(study.folder, *others)
    run_trial(configuration, folder, study.folder, "a", {"train.lr": 0.003})
    found = study.trial("a").result
    assert (found.state, found.number, len(found.seeds[0].curve)) == ("stopped", 2, 1)
    assert found.reason.startswith("After 1 of 2 epochs its best r_mean was ")
    assert found.reason.endswith("below 101.00, the median of 2 trials at this point.")

    (study.trial("a").folder / "trial.json").unlink()
    with monkeypatch.context() as patch:
        untrained(patch)
        run_trial(configuration, folder, study.folder, "a", {"train.lr": 0.003})
    assert study.trial("a").result == found

    run = folder.run("cusa", 23)
    train(run_at(configuration, {"train.lr": 0.003}, 23), folder, run)
    assert RunRecord.read(run).epochs == 2


def test_without_pruning_none_is_stopped(tiny_configuration, folder, study):
    others = [result(str(number), number, [101.0, 102.0], epochs=2) for number in range(6)]
    study_of(study.folder, *others)
    run_trial(swept(tiny_configuration, pruning=None), folder, study.folder, "a", {"train.lr": 0.003})
    assert study.trial("a").result.state == "finished"


def test_impossible_values_are_a_result(tiny_configuration, folder, study):
    run_trial(swept(tiny_configuration), folder, study.folder, "a", {"train.lr": 0.003, "train.min_lr": 0.5})
    found = study.trial("a").result
    assert (found.state, found.score) == ("impossible", None)
    assert "min_lr 0.5 is greater than lr 0.003" in found.reason


def test_a_trial_that_diverges_is_a_result(tiny_configuration, folder, study):
    run_trial(swept(tiny_configuration), folder, study.folder, "a", {"train.lr": 1e30})
    found = study.trial("a").result
    assert (found.state, found.score) == ("diverged", None)
    assert "finite" in found.reason
    assert not (study.trial("a").run(23) / "state").exists()


@pytest.mark.slow
def test_one_of_several_processes_that_diverges_is_a_result_at_the_next_start(tiny_configuration, folder, study):
    configuration = swept({**tiny_configuration, "train": {**tiny_configuration["train"], "cpu_processes": 2}})
    point = {"train.lr": 1e30}
    assert launched(configuration, folder, study, "a", point, 2).returncode != 0
    assert study.trial("a").result is None
    done = launched(configuration, folder, study, "a", point, 2)
    assert done.returncode == 0, done.stderr
    assert study.trial("a").result.state == "diverged"


@pytest.mark.slow
def test_two_processes_train_two_seeds(tiny_configuration, folder, study):
    configuration = swept(
        {**tiny_configuration, "train": {**tiny_configuration["train"], "cpu_processes": 2, "batch_size": 4}},
        seeds=[5, 6],
    )
    done = launched(configuration, folder, study, "a", {"train.lr": 0.003}, 2)
    assert done.returncode == 0, done.stderr
    assert [seed.seed for seed in study.trial("a").result.seeds] == [5, 6]
    assert RunRecord.read(study.trial("a").run(6)).processes == 2


def test_the_first_drawn_trial_has_the_present_values_and_repeated_values_are_not_trained(
    tiny_configuration, folder, study, monkeypatch
):
    pytest.importorskip("optuna")
    configuration = swept(tiny_configuration, {"train.lr": [0.001, 0.003]}, method="tpe", trials=3)
    for name in ("0000", "0001"):
        run_trial(configuration, folder, study.folder, name)
    assert [each.values for each in study.results] == [{"train.lr": 0.001}, {"train.lr": 0.003}]
    untrained(monkeypatch)
    run_trial(configuration, folder, study.folder, "0002")
    third = study.trial("0002").result
    twin = study.trial(third.same_as).result
    assert (third.values, third.score, third.number) == (twin.values, twin.score, 2)
    assert (study.folder / "optuna.journal").is_file()


@pytest.mark.slow
def test_a_killed_trial_continues_with_its_values_to_the_same_weights(tiny_configuration, folder, study, tmp_path):
    """Killed with -9 after its first save; the draw is on disk, the training continues, the weights are the same."""
    pytest.importorskip("optuna")
    train_section = {**tiny_configuration["train"], "epochs": 8}
    space = {"train.lr": {"low": 0.0005, "high": 0.01}, "train.feature_dropout": {"low": 0.1, "high": 0.5}}
    configuration = swept({**tiny_configuration, "train": train_section}, space, method="tpe", trials=3)
    started = subprocess.Popen(command(configuration, folder, study, "0000", None), stderr=subprocess.DEVNULL)
    state = study.trial("0000").run(23) / "state/last.pt"
    while not state.exists() and started.poll() is None:
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert state.exists()
    values = study.trial("0000").values
    run_trial(configuration, folder, study.folder, "0000")
    found = study.trial("0000").result
    assert (found.number, found.values) == values
    train(
        run_at(configuration, found.values, 23),
        DatasetFolder(shutil.copytree(folder.root, tmp_path / "b", ignore=shutil.ignore_patterns("sweep"))),
        tmp_path / "run",
    )
    assert (
        sha256_of_file(tmp_path / "run/best.safetensors") == RunRecord.read(study.trial("0000").run(23)).weights_sha256
    )


def test_a_record_without_validation_is_a_sentence(tiny_configuration, folder, study):
    run_trial(swept(tiny_configuration), folder, study.folder, "a", {"train.lr": 0.003})
    run = study.trial("a").run(23)
    content = read_json(run / "run.json")
    del content["selection_metrics"]
    (run / "run.json").unlink()
    (run / "run.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="has no validation metrics; delete"):
        run_trial(swept(tiny_configuration), folder, study.folder, "a", {"train.lr": 0.003})


def command(configuration, folder, study, name, point, processes=1) -> list[str]:
    """The command that runs a trial as the rule does."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    arguments = ["--data", str(folder.root), "--study", str(study.folder), "--trial", name]
    arguments += ["--configuration", configuration.as_json(), "--point", json.dumps(point)]
    return [*launcher, str(ROOT / "workflow/scripts/run_trial.py"), *arguments]


def launched(configuration, folder, study, name, point, processes) -> subprocess.CompletedProcess:
    words = command(configuration, folder, study, name, point, processes)
    return subprocess.run(words, capture_output=True, text=True, check=False)
