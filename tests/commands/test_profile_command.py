"""`cusa profile`, as people run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CUSA = Path(sys.executable).parent / "cusa"


@pytest.fixture
def directory(tmp_path, tiny_configuration, shapes_data) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(yaml.safe_dump(tiny_configuration))
    (tmp_path / "results").mkdir()
    (tmp_path / "results/shapes").symlink_to(shapes_data)
    return tmp_path


def cusa(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(CUSA), "profile", "--steps", "2", "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=directory, check=False)


def test_it_prints_speed_parts_and_advice_and_writes_a_trace(directory):
    done = cusa(directory, "--trace", "trace.json")
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == "cusa: 2 steps of 8 pairs, fp32, on 1 x cpu"
    assert "s a step on average, " in lines[0]
    assert "pairs/s" in lines[0]
    assert "synthetic" not in done.stdout
    for part in ("data", "image tower", "text tower", "heads and loss", "gather", "optimiser", "host"):
        assert any(line.startswith(part) and "%" in line for line in lines), part
    assert "Most worth a look: " in done.stdout
    assert json.loads((directory / "trace.json").read_text())["traceEvents"]
    assert "profiler" not in done.stderr  # PyTorch's own messages
    assert cusa(directory, "--trace", "trace.json").stderr.startswith("Error: trace.json exists already")


def test_without_data_the_pairs_are_synthetic_and_json_says_it(directory):
    (directory / "results/shapes").unlink()
    done = cusa(directory, "--experiment", "contrastive", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["synthetic"] == "results/shapes/annotations/images.parquet does not exist yet"
    assert found["bottleneck"] in found["seconds_of_parts"]
    assert not (directory / "results/shapes").exists()


def test_missing_gpus_are_told_once(directory, tiny_configuration):
    train = tiny_configuration["train"] | {"gpus": 4}
    (directory / "config/config.yaml").write_text(yaml.safe_dump(tiny_configuration | {"train": train}))
    done = cusa(directory)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: train.gpus asks for 4 GPUs, but PyTorch sees")


def test_an_experiment_that_is_not_trained_is_a_sentence(directory):
    done = cusa(directory, "--experiment", "none")
    assert done.returncode == 1
    assert done.stderr == "Error: --experiment none is none of the experiments that are trained (contrastive, cusa).\n"
