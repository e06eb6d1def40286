"""Trainings by the real Snakefile that are stopped, fail, or are given up: what is kept, and what the user is told."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import yaml
from conftest import copy_of_results
from snakemake_runs import output_of_snakemake

from cusa.common.files import sha256_of_file

ROOT = Path(__file__).parents[2]
SNAKEMAKE = [str(Path(sys.executable).parent / "snakemake"), "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
RUN = Path("results/shapes/runs/cusa/seed23")
LOG = Path("results/shapes/logs/train/cusa/seed23.log")
TRAINED = str(RUN / "best.safetensors")
CUSA = str(Path(sys.executable).parent / "cusa")
EPOCHS = "train={epochs: 3000}"  # which nobody waits for


def snakemake(directory: Path, *arguments: str, check: bool = True) -> str:
    """Run in `directory` with its mine.yaml; returns standard output and error together."""
    return output_of_snakemake("--cores", "2", "--configfile=mine.yaml", *arguments, cwd=directory, check=check)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, finished_workflow, tiny_configuration) -> Path:
    """A folder in which one experiment is trained."""
    folder = copy_of_results(finished_workflow, tmp_path_factory.mktemp("interrupted"))
    shutil.rmtree(folder / "results/shapes/runs/contrastive")
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


def test_ctrl_c_saves_and_a_configuration_that_goes_back_has_its_finished_run_again(trained):
    """What is kept of the finished run is outside of state/, which the user may be told to delete."""
    finished = sha256_of_file(trained / TRAINED)
    output = interrupt(trained, TRAINED, "--config", "train={epochs: 3000}")
    log = (trained / LOG).read_text()
    assert f"the run that was finished before is kept in {RUN}/previous until this one is complete" in log
    assert "changed since then: train.epochs was 2, is 3000" in log
    assert sha256_of_file(trained / RUN / "previous/best.safetensors") == finished
    assert re.search(
        r"stopped by Ctrl-C after epoch \d+, step \d of 8; the state is in \S+/cusa/seed23/state; the same command "
        r"continues\.$",
        log.strip(),
    ), log
    assert "Traceback" not in output + log
    assert re.search(r"^cusa/seed23: stopped by Ctrl-C after epoch \d+, step \d of 8; the state is in ", output, re.M)
    assert "What is done is kept. To continue from there:\n    snakemake --snakefile" in output
    assert "RuleException" not in output
    # No lock is left, and the same command continues.
    state = trained / RUN / "state/last.pt"
    output = snakemake(trained, TRAINED, "--config", "train={epochs: 2, lr: 0.5}", "--show-failed-logs", check=False)
    sentence = "was saved with another configuration: train.epochs was 3000, is 2; train.lr was 0.001, is 0.5. Restore"
    assert sentence in output
    assert "delete the folder" in (trained / LOG).read_text().splitlines()[-1]
    assert not (trained / TRAINED).exists()
    snakemake(trained, TRAINED)
    assert (
        "was trained before, with this configuration on these data; its files are restored"
        in (trained / LOG).read_text()
    )
    assert sha256_of_file(trained / TRAINED) == finished
    assert state.exists()  # of 3000 epochs
    assert "Nothing to be done" in snakemake(trained, TRAINED)


def test_a_training_that_is_forced_trains_although_nothing_has_changed(trained):
    shutil.rmtree(trained / RUN / "state", ignore_errors=True)
    snakemake(trained, TRAINED, "--forcerun", "train")
    assert "its files are restored" not in (trained / LOG).read_text()
    assert not (trained / RUN / "previous").exists()


def test_features_that_are_gone_are_made_again_and_nothing_is_trained_twice(trained):
    """The file that describes them is still there, and it is all that the training names as its input."""
    (features,) = (trained / "results/shapes/teachers/image").glob("*/train/features.npy")
    features.unlink()
    record = (trained / RUN / "run.json").read_text()
    assert re.search(r"^extract_image_features +1$", snakemake(trained, "features", "-n"), re.M)
    snakemake(trained, "models")
    assert features.is_file()
    assert "its files are restored" in (trained / LOG).read_text()
    assert (trained / RUN / "run.json").read_text() == record


@pytest.mark.slow
def test_a_terminal_shows_the_epoch_and_score_and_ctrl_c_pressed_twice_saves(trained):
    """In a terminal of its own, whose Ctrl-C goes to all processes, as a person sees and presses it."""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        ["setsid", "--ctty", CUSA, "run", "--cores", "2", "--configfile=mine.yaml", TRAINED, "--config", EPOCHS],
        cwd=trained,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(terminal)
    shown, is_pressed, deadline = "", False, time.monotonic() + 240
    with contextlib.suppress(OSError):  # which is how a terminal says that nobody writes to it any more
        while part := os.read(main, 4096):
            shown += part.decode("utf-8", errors="replace")
            is_shown = re.search(r"cusa/seed23:\S* epoch \d+/3000, r_mean \d+", shown)
            if not is_pressed and (is_shown or time.monotonic() > deadline):
                is_pressed = True
                os.write(main, b"\x03")
                time.sleep(0.5)
                os.write(main, b"\x03")
    assert process.wait(timeout=120) == 1, shown
    assert is_shown
    assert "The jobs are saving what they have; please wait." in shown
    assert re.search(r"cusa/seed23: stopped by Ctrl-C after epoch \d+, step \d of 8", shown), shown[-3000:]
    assert "Traceback" not in shown
    assert "RuleException" not in shown
    assert "Log file:" not in shown
    shutil.rmtree(trained / RUN / "state")
