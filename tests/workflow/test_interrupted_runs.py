"""Trainings by the real Snakefile that are stopped, fail, or are given up: what is kept, and what the user is told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SNAKEMAKE = [str(Path(sys.executable).parent / "snakemake"), "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
RUN = Path("results/shapes/runs/cusa/seed23")
LOG = Path("results/shapes/logs/train/cusa/seed23.log")
TRAINED = str(RUN / "best.safetensors")


def snakemake(directory: Path, *arguments: str, check: bool = True) -> str:
    """Run in `directory` with its mine.yaml; returns standard output and error together."""
    words = [*SNAKEMAKE, "--configfile=mine.yaml", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=directory)
    assert (done.returncode == 0) == check, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_configuration) -> Path:
    """A folder in which one experiment is trained."""
    folder = tmp_path_factory.mktemp("interrupted")
    experiments = {**tiny_configuration["experiments"], "contrastive": None}
    (folder / "mine.yaml").write_text(yaml.safe_dump({**tiny_configuration, "experiments": experiments}))
    snakemake(folder, TRAINED)
    return folder


def interrupt(folder: Path, *arguments: str) -> str:
    """Press Ctrl-C when a training has saved its state: the terminal sends SIGINT to all processes of the command."""
    words = [*SNAKEMAKE, "--configfile=mine.yaml", *arguments]
    process = subprocess.Popen(
        words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 240
    while not (folder / RUN / "state/last.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    return process.communicate(timeout=120)[1]


def test_ctrl_c_finishes_the_step_saves_and_says_one_sentence(trained):
    output = interrupt(trained, TRAINED, "--config", "train={epochs: 3000}")
    log = (trained / LOG).read_text()
    assert re.search(
        r"stopped by Ctrl-C after epoch \d+, step \d of 8; the state is in \S+/cusa/seed23/state; the same command "
        r"continues\.$",
        log.strip(),
    ), log
    assert "Traceback" not in output + log
    # No lock is left, and the same command continues.
    interrupted = (trained / RUN / "state/last.pt").stat().st_mtime_ns
    snakemake(trained, TRAINED, "--config", "train={epochs: 3000}", "-n")
    assert (trained / RUN / "state/last.pt").stat().st_mtime_ns == interrupted
