"""The target `sweep` of the real Snakefile, and `cusa sweep`, on the shapes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import copy_of_results
from test_workflow import planned, snakemake, write

from cusa.common.files import read_json
from cusa.config.configuration import load
from cusa.config.files import read_files

pytest.importorskip("optuna")

CUSA = Path(sys.executable).parent / "cusa"
SPACE = {"train.lr": {"low": 0.0005, "high": 0.01, "log": True}, "train.feature_dropout": {"low": 0.0, "high": 0.5}}


def sweeping(mapping: dict, **changes: object) -> dict:
    """One experiment, of which two trials are drawn."""
    experiments = mapping["experiments"] | {"contrastive": None}
    sweep = {"experiment": "cusa", "method": "tpe", "trials": 2, "space": SPACE}
    return {**mapping, "experiments": experiments, "sweep": sweep | changes}


def jobs(output: str) -> dict[str, int]:
    return {name: count for name, count in planned(output).items() if name not in ("all", "total", "sweep", "models")}


def cusa(directory: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    done = subprocess.run([CUSA, *arguments], capture_output=True, text=True, cwd=directory, check=False)
    assert (done.returncode == 0) == check, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def swept(tmp_path_factory, finished_workflow, tiny_configuration) -> tuple[Path, str]:
    """A finished sweep of two trials, on data and features alone. Tests that change it work on a copy."""
    directory = copy_of_results(finished_workflow, tmp_path_factory.mktemp("swept"))
    for name in ("runs", "report"):
        shutil.rmtree(directory / "results/shapes" / name)
    config = write(directory, sweeping(tiny_configuration))
    snakemake(directory, "sweep", "--configfile", config)
    return directory, config


def copied(swept: tuple[Path, str], tmp_path: Path) -> Path:
    return copy_of_results(swept[0], tmp_path)


def study(directory: Path) -> Path:
    (folder,) = (directory / "results/shapes/sweep").iterdir()
    return folder


def test_every_trial_has_a_result_and_the_best_its_weights(swept):
    folder = study(swept[0])
    rows = pq.read_table(folder / "trials.parquet").to_pylist()
    assert [row["state"] for row in rows] == ["finished", "finished"]
    values = read_json(folder / "trials/0000/trial.json")["values"]
    assert values == {"train.lr": 0.001, "train.feature_dropout": load(read_files([])).train.feature_dropout}
    assert [path.parts[-3] for path in folder.rglob("seed23/best.safetensors")] == [rows[0]["trial"]]
    assert (folder / "optuna.journal").is_file()
    data = swept[0] / "results/shapes"
    for rule in ("run_trial", "summarise_sweep"):
        assert list((data / "logs" / rule).rglob("*.log")), rule
        assert list((data / "timings" / rule).rglob("*.tsv")), rule


def test_a_second_run_does_nothing_and_more_trials_add_to_it(swept, tiny_configuration, tmp_path):
    directory = copied(swept, tmp_path)
    assert "Nothing to be done" in snakemake(directory, "sweep", "--configfile", swept[1], "-n")
    more = write(tmp_path, sweeping(tiny_configuration, trials=5))
    assert jobs(snakemake(directory, "sweep", "--configfile", more, "-n")) == {"run_trial": 3, "summarise_sweep": 1}


def test_a_lost_trial_is_the_only_one_that_runs_again(swept, tmp_path):
    directory = copied(swept, tmp_path)
    for name in ("trials/0001/trial.json", "trials.parquet"):
        (study(directory) / name).unlink()
    output = snakemake(directory, "sweep", "--configfile", swept[1], "-n")
    assert jobs(output) == {"run_trial": 1, "summarise_sweep": 1}


def test_what_a_trial_does_not_read_is_no_reason_to_run_it_again(swept, tiny_configuration, tmp_path):
    directory = copied(swept, tmp_path)
    mapping = sweeping(tiny_configuration)
    train = {**mapping["train"], "lr": 0.002, "log_every": 1}
    changed = write(tmp_path, mapping | {"train": train, "report": {"gallery": {"top": 3}}, "seeds": [23, 24]})
    assert "Nothing to be done" in snakemake(directory, "sweep", "--configfile", changed, "-n")
    train = {**mapping["train"], "epochs": 3}
    output = snakemake(directory, "sweep", "--configfile", write(tmp_path, mapping | {"train": train}), "-n")
    assert jobs(output) == {"run_trial": 2, "summarise_sweep": 1}


def test_the_report_asks_for_the_sweep_only_if_there_is_one(swept, tiny_configuration, tmp_path):
    directory = copied(swept, tmp_path)
    shutil.rmtree(directory / "results/shapes/sweep")
    assert jobs(snakemake(directory, "--configfile", swept[1], "-n"))["run_trial"] == 2
    without = write(tmp_path, sweeping(tiny_configuration) | {"sweep": None})
    output = snakemake(directory, "--configfile", without, "-n")
    assert {"run_trial", "summarise_sweep"} & set(jobs(output)) == set()
    assert jobs(snakemake(directory, "sweep", "--configfile", without, "-n")) == {}


def test_the_best_is_an_overlay_and_is_not_trained_again(swept, tmp_path):
    directory = copied(swept, tmp_path)
    table = cusa(directory, "sweep", "trials", swept[1]).stdout
    assert table.count("\n") == 4
    done = cusa(directory, "sweep", "best", swept[1], "--output", "best.yaml")
    assert done.stderr == ""
    best = next(row for row in pq.read_table(study(directory) / "trials.parquet").to_pylist() if row["best"])
    overlay = yaml.safe_load((directory / "best.yaml").read_text())
    assert f'"train.lr": {overlay["train"]["lr"]}' in best["values"]
    assert (directory / "best.yaml").read_text() == (study(directory) / "best.yaml").read_text()
    again = cusa(directory, "sweep", "best", swept[1], "--output", "best.yaml", check=False)
    assert "best.yaml exists already; name another file, nothing is overwritten" in again.stderr

    snakemake(directory, "models", "--configfile", swept[1], str(directory / "best.yaml"))
    log = (directory / "results/shapes/logs/train/cusa/seed23.log").read_text()
    assert "was trained before, with this configuration on these data; its files are restored" in log
    trial = read_json(study(directory) / f"trials/{best['trial']}/seed23/run.json")
    assert read_json(directory / "results/shapes/runs/cusa/seed23/run.json") == trial


def test_trials_are_shown_while_others_have_not_ended(swept, tiny_configuration, tmp_path):
    directory = copied(swept, tmp_path)
    more = write(tmp_path, sweeping(tiny_configuration, trials=4))
    done = cusa(directory, "sweep", "trials", more)
    assert "2 of 4 trials have not ended yet" in done.stderr
    assert "0001" in done.stdout


def test_there_is_no_best_of_no_sweep_and_of_no_trials(tmp_path, tiny_configuration):
    without = write(tmp_path, tiny_configuration)
    assert "`sweep` is null or missing" in cusa(tmp_path, "sweep", "best", without, check=False).stderr
    config = write(tmp_path, sweeping(tiny_configuration))
    assert "has no trial that has ended" in cusa(tmp_path, "sweep", "best", config, check=False).stderr


def test_a_sweep_that_cannot_be_is_refused_before_any_job(tmp_path, tiny_configuration):
    config = write(tmp_path, sweeping(tiny_configuration, space={"train.lr": {"low": -1.0, "high": 0.1}}))
    output = snakemake(tmp_path, "sweep", "--configfile", config, "-n", check=False)
    assert "Configuration key `sweep.space`, with train.lr: -1.0: Configuration key `train.lr` is -1.0" in output
    assert "Configuration key `sweep.space`" in cusa(tmp_path, "check", config, check=False).stderr
