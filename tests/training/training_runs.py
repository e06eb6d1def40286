"""Configurations of tiny runs, and ways to start, interrupt and stop their training; shared by the tests here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cusa.common.files import sha256_of_file
from cusa.config.configuration import Configuration, load
from cusa.config.experiments import RunConfiguration
from cusa.layout import DatasetFolder
from cusa.training.loop import Trainer, train

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "workflow/scripts/train.py"


def configured(tiny_configuration, experiment="cusa", **settings) -> RunConfiguration:
    """The run of an experiment with seed 23; `settings` change keys of `train`."""
    mapping = {**tiny_configuration, "train": {**tiny_configuration["train"], **settings}}
    configuration: Configuration = load(mapping)
    return configuration.run(experiment, 23)


def tower_student(tiny_vision, tiny_sentences) -> dict:
    """The section `student` of a pair of towers."""
    return {
        "name": None,
        "towers": {"image": {"name": str(tiny_vision)}, "text": {"name": str(tiny_sentences)}, "dimension": 12},
    }


def command(run: RunConfiguration, data: Path, folder: Path, processes: int = 1) -> list[str]:
    """The command that trains a run as a rule does."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "cusa.training.launch", "--standalone", "--nproc-per-node", str(processes)]
    arguments = ["--data", str(data), "--run-folder", str(folder), "--configuration", run.model_dump_json()]
    return [*launcher, str(SCRIPT), *arguments, "--threads", str(processes)]


def interrupted(run: RunConfiguration, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, but interrupt the training when all epochs are saved and no output is written."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            train(run, DatasetFolder(data), folder)


def interrupted_after(
    steps: int, run: RunConfiguration, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train, but interrupt the training when the state is saved after so many steps."""
    taken = []

    def save_and_stop(trainer: Trainer) -> None:
        taken.append(1)
        if len(taken) == steps:
            trainer.save()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save_or_stop", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(run, DatasetFolder(data), folder)


def stopped_after_a_save(
    run: RunConfiguration, data: Path, folder: Path, processes: int, number: signal.Signals = signal.SIGTERM
) -> str:
    """Stop a training as Slurm does: a signal to the launcher and all processes, twice. Returns its standard error.

    A terminal does so with SIGINT; it sends it once for each Ctrl-C.
    """
    started = command(run, data, folder, processes)
    process = subprocess.Popen(started, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(folder / "state/last.pt")
    for _ in range(2 if number == signal.SIGTERM else 1):
        os.killpg(process.pid, number)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number, message
    assert message.count("stopped by ") == 1, message
    assert "Traceback" not in message
    return message


def wait_for(path: Path) -> None:
    """Wait until a file exists."""
    while not path.exists():
        time.sleep(0.01)


def saved(folder: Path) -> dict:
    """The progress in a run's saved state."""
    return torch.load(folder / "state/last.pt", weights_only=True)["progress"]


def weights_sha256(folder: Path) -> str:
    """The SHA-256 of a finished run's weights."""
    return sha256_of_file(folder / "best.safetensors")
