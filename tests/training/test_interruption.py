"""SIGTERM, Ctrl-C, kill -9 and a second training of the same run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import in_processes
from training_runs import command, configured, saved, stopped_after_a_save, tower_student, wait_for, weights_sha256

from cusa.common.files import read_json, sha256_of_file
from cusa.errors import ResumeError, StoppedError
from cusa.layout import DatasetFolder
from cusa.training.interruption import Stop, lock_run
from cusa.training.loop import Trainer, train


def terminate() -> None:
    """Send SIGTERM to this process."""
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_stops_at_once_only_if_there_is_nothing_to_save():
    before = signal.getsignal(signal.SIGTERM)
    with Stop() as stop:
        stop.defer()
        terminate()
        terminate()
        assert stop.requested
        with pytest.raises(StoppedError, match="the same command continues"), stop.immediately():
            raise AssertionError("the block does not start")
        terminate()
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_before_the_first_step_stops_at_once():
    """A second signal does not interrupt the clean-up after the first."""
    with Stop() as stop:
        with pytest.raises(StoppedError, match="stopped by SIGTERM; the same command continues"):
            terminate()
        terminate()
        assert stop.requested


def test_sigterm_within_a_block_that_may_stop_ends_the_block():
    with Stop() as stop:
        stop.defer()
        with stop.immediately():
            pass
        reached = False
        with pytest.raises(StoppedError), stop.immediately():
            terminate()
            reached = True
        assert not reached


def test_the_error_says_what_was_saved():
    assert str(Stop(saves=False).error()) == (
        "stopped by SIGTERM; nothing was saved, and the same command starts anew."
    )
    message = str(Stop().error(" after step 3; the state is in runs/a/state"))
    assert message == ("stopped by SIGTERM after step 3; the state is in runs/a/state; the same command continues.")


@pytest.fixture
def interruptible():
    """Python's own handler of Ctrl-C, which a program that a shell starts in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_is_named_and_has_a_status_of_its_own():
    with Stop() as stop:
        stop.defer()
        signal.raise_signal(signal.SIGINT)  # os.kill may reach another thread first
        terminate()
    assert str(stop.error()) == "stopped by Ctrl-C; the same command continues."
    assert (stop.error().number, Stop().error().number) == (signal.SIGINT, signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_in_a_terminal_finishes_the_step_and_the_same_command_ends_bit_identical(
    tiny_configuration, shapes_data, tmp_path, workers
):
    """The terminal sends it to the processes that load data, too."""
    run = configured(tiny_configuration, epochs=25, workers=workers)
    message = stopped_after_a_save(run, shapes_data, tmp_path / "stopped", 1, signal.SIGINT)
    assert re.search(r"stopped by Ctrl-C after epoch \d+, step \d of 8; the state is in \S+/state; the same", message)
    assert message.splitlines()[-1].endswith("the same command continues.")
    assert 0 < saved(tmp_path / "stopped")["epoch"] < 25
    for folder in ("stopped", "undisturbed"):
        train(run, DatasetFolder(shapes_data), tmp_path / folder)
    assert weights_sha256(tmp_path / "undisturbed") == weights_sha256(tmp_path / "stopped")


def test_only_the_main_thread_handles_signals():
    """Python allows no other thread to; a training in one is not stopped, but it runs."""
    before, handlers = signal.getsignal(signal.SIGTERM), []

    def in_a_thread() -> None:
        with Stop():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_sigterm_within_an_epoch_saves_the_step(tiny_configuration, shapes_data, tmp_path, monkeypatch):
    run, data = configured(tiny_configuration), DatasetFolder(shapes_data)
    train(run, data, tmp_path / "undisturbed")
    train_step = Trainer.train_step

    def signalled(trainer: Trainer, step: int, *arguments: object) -> object:
        if (trainer.progress.epoch, step) == (1, 2):
            terminate()
        return train_step(trainer, step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", signalled)
        message = (
            r"stopped by SIGTERM after epoch 2, step 3 of 8; the state is in \S+/state; the same command continues"
        )
        with pytest.raises(StoppedError, match=message):
            train(run, data, tmp_path / "stopped")
    assert (saved(tmp_path / "stopped")["epoch"], saved(tmp_path / "stopped")["step"]) == (1, 3)
    train(run, data, tmp_path / "stopped")
    assert weights_sha256(tmp_path / "undisturbed") == weights_sha256(tmp_path / "stopped")


def test_sigterm_within_a_validation_stops_at_once(tiny_configuration, shapes_data, tmp_path, monkeypatch):
    """The validation is repeated from the state that was saved before."""
    run, data = configured(tiny_configuration), DatasetFolder(shapes_data)
    monkeypatch.setattr("cusa.training.loop.SAVE_BEFORE_VALIDATION", 0.0)
    train(run, data, tmp_path / "undisturbed")
    validate, finished = Trainer.validate, []

    def signalled(trainer: Trainer) -> dict[str, float]:
        if trainer.progress.epoch == 1:
            terminate()
        finished.append(trainer.progress.epoch)
        return validate(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "validate", signalled)
        message = (
            r"stopped by SIGTERM after epoch 2, step 8 of 8; the state is in \S+/state; the same command continues"
        )
        with pytest.raises(StoppedError, match=message):
            train(run, data, tmp_path / "stopped")
    assert finished == [0]
    assert (saved(tmp_path / "stopped")["epoch"], saved(tmp_path / "stopped")["step"]) == (1, 8)
    train(run, data, tmp_path / "stopped")
    assert weights_sha256(tmp_path / "undisturbed") == weights_sha256(tmp_path / "stopped")


def test_sigterm_saves_the_step_and_the_same_command_ends_bit_identical(
    tiny_configuration, shapes_data, tmp_path, caplog
):
    """The state is saved at the end of an epoch and at the signal only."""
    run = configured(tiny_configuration, epochs=40)
    stopped_after_a_save(run, shapes_data, tmp_path / "stopped", 1)
    state = saved(tmp_path / "stopped")
    assert 0 < state["epoch"] < 40
    for folder in ("stopped", "undisturbed"):
        with caplog.at_level("INFO"):
            train(run, DatasetFolder(shapes_data), tmp_path / folder)
    assert f"continuing at epoch {state['epoch'] + 1}, step {state['step'] + 1}" in caplog.text
    assert weights_sha256(tmp_path / "undisturbed") == sha256_of_file(tmp_path / "stopped/best.safetensors")


@pytest.mark.slow
def test_kill_9_at_any_moment_then_the_same_command_ends_bit_identical(
    tiny_configuration, tiny_vision, tiny_sentences, shapes_data, tmp_path, caplog
):
    """BERT, features and heads have dropout: the random state matters too. The state is saved after every step."""
    towers = {**tiny_configuration, "student": tower_student(tiny_vision, tiny_sentences)}
    run = configured(towers, epochs=6, save_every_minutes=1e-9, feature_dropout=0.5, head_dropout=0.1)
    train(run, DatasetFolder(shapes_data), tmp_path / "undisturbed")

    state = tmp_path / "killed/state/last.pt"
    kills = 0
    for moment in (0.0, 0.05, 0.15):
        process = subprocess.Popen(command(run, shapes_data, tmp_path / "killed"), stderr=subprocess.PIPE, text=True)
        before = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(moment)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 3
    with caplog.at_level("INFO"):
        train(run, DatasetFolder(shapes_data), tmp_path / "killed")
    assert "continuing at epoch" in caplog.text
    assert weights_sha256(tmp_path / "undisturbed") == weights_sha256(tmp_path / "killed")
    histories = [pq.read_table(tmp_path / name / "history.parquet").to_pylist() for name in ("undisturbed", "killed")]
    kept = ("kind", "epoch", "step", "loss", "lr", "r_mean")
    assert [[row[key] for key in kept] for row in histories[0]] == [[row[key] for key in kept] for row in histories[1]]


@pytest.mark.slow
def test_two_processes_that_are_stopped_and_killed_end_bit_identical(tiny_configuration, shapes_data, tmp_path):
    """Ctrl-C and SIGTERM to all; then kill -9 of one process, then of the launcher: the others end too."""
    run = configured(tiny_configuration, cpu_processes=2, batch_size=4, epochs=30, gather="global")
    folder = tmp_path / "disturbed"
    stopped_after_a_save(run, shapes_data, tmp_path / "another", 2, signal.SIGINT)
    stopped_after_a_save(run, shapes_data, folder, 2)
    for victim in ("rank", "torchrun"):
        before = saved(folder)["epoch"]
        process = subprocess.Popen(command(run, shapes_data, folder, 2), stderr=subprocess.PIPE, text=True)
        while saved(folder)["epoch"] == before and process.poll() is None:
            time.sleep(0.01)
        ranks = [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        os.kill(ranks[1] if victim == "rank" else process.pid, signal.SIGKILL)
        message = process.communicate(timeout=60)[1]
        assert process.returncode != 0
        if victim == "rank":
            assert message.splitlines()[-1] == (
                "Error: process 1 of the training was ended by SIGKILL, as the system does when memory runs out; the "
                "same command continues from the last state that was saved, if there is one."
            )
        assert saved(folder)["epoch"] > before
    for place in (folder, tmp_path / "undisturbed"):
        in_processes(2, train, run, DatasetFolder(shapes_data), place, 2)
    assert weights_sha256(tmp_path / "undisturbed") == weights_sha256(folder)
    assert read_json(folder / "run.json")["epochs"] == 30


def test_the_process_that_holds_the_lock_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    lock = lock_run(tmp_path)
    with pytest.raises(ResumeError, match=rf"process {os.getpid()} on \S+, Slurm job 42 \(it holds"):
        lock_run(tmp_path)
    lock.release()
    lock_run(tmp_path).release()


def test_a_second_training_of_the_same_run_is_refused(tiny_configuration, shapes_data, tmp_path):
    """The error names the process that trains the run; that process continues."""
    run = configured(tiny_configuration, epochs=100, save_every_minutes=1e-9)
    process = subprocess.Popen(command(run, shapes_data, tmp_path), stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "state/last.pt")
    with pytest.raises(ResumeError, match=rf"another process is training .*: process {process.pid} on \S+ \(it holds"):
        train(run, DatasetFolder(shapes_data), tmp_path)
    assert process.poll() is None
    process.kill()
    process.wait()


def test_partial_files_of_a_killed_training_are_removed(tiny_configuration, shapes_data, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state/.last.pt.0123.partial").write_bytes(b"half")
    train(configured(tiny_configuration, epochs=1), DatasetFolder(shapes_data), tmp_path)
    assert not list(tmp_path.rglob("*.partial"))
