"""Saving behind the next step; interrupted and resumed trainings are in test_training.py."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from conftest import mounted_tmpfs

from cusa.config.configuration import load
from cusa.errors import DataError, ResumeError, StoppedError
from cusa.losses import CUSALoss
from cusa.student.student import build_student
from cusa.training.distributed import Group
from cusa.training.interruption import Stop, lock_run
from cusa.training.optimisation import build_optimiser
from cusa.training.state import Progress, State
from cusa.training.step import TrainingTask


@pytest.fixture
def parts(tiny_configuration):
    """Configuration, task and optimiser after one step."""
    run = load(tiny_configuration).run("cusa", 23)
    task = TrainingTask(build_student(run.student, run.losses), CUSALoss(run.losses), run.train)
    optimiser = build_optimiser(task, run.train)
    for parameter in task.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    return run, task, optimiser


def weights(task: TrainingTask) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in task.state_dict().items()}


@pytest.mark.parametrize("prepared", [False, True])
def test_what_is_written_is_the_moment_of_saving(parts, tmp_path, prepared):
    """The next step may go on at once: what it changes is not in the file."""
    run, task, optimiser = parts
    lock_run(tmp_path).release()
    state = State(tmp_path, run, {"data": "1"}, Group())
    if prepared:
        state.reserve_memory(task, optimiser)
    for step in (1, 2):  # the second into the memory of the first
        before = weights(task)
        state.save(task, optimiser, Progress(step=step), [{"kind": "step"}])
        optimiser.step()
        state.wait()
        written = torch.load(state.path, weights_only=True)
        assert all(torch.equal(written["task"][name], before[name]) for name in before)
        assert written["progress"]["step"] == step
    assert any(not torch.equal(task.state_dict()[name], before[name]) for name in before)
    progress, history = state.restore(task, optimiser)
    assert (progress.step, history) == (2, [{"kind": "step"}])
    assert all(torch.equal(task.state_dict()[name], before[name]) for name in before)
    state.close()


def test_a_write_that_failed_is_told_at_the_next_chance(parts, tmp_path):
    run, task, optimiser = parts
    with mounted_tmpfs(tmp_path / "small", "size=64k") as folder:
        lock_run(folder).release()
        state = State(folder, run, {}, Group())
        state.save(task, optimiser, Progress(), [])
        with pytest.raises(DataError, match=r"the state in .* needs 0.00 GB, but .* free; free some space"):
            state.wait()
        state.wait()  # told once
        state.close()
        assert not state.path.exists()


def test_the_best_weights_are_there_before_the_state_that_speaks_of_them(parts, tmp_path):
    run, task, optimiser = parts
    lock_run(tmp_path).release()
    state = State(tmp_path, run, {}, Group())
    for epoch in (0, 3):
        state.save(task, optimiser, Progress(best_epoch=epoch), [], best=True)
    state.close()
    assert [path.name for path in (tmp_path / "state").glob("best-*")] == ["best-epoch3.safetensors"]


def test_a_holder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    lock = lock_run(tmp_path)
    with pytest.raises(ResumeError, match=rf"process {os.getpid()} on \S+, Slurm job 42 \(it holds"):
        lock_run(tmp_path)
    lock.release()
    lock_run(tmp_path).release()


def test_sigterm_is_obeyed_at_once_only_where_nothing_is_lost():
    before = signal.getsignal(signal.SIGTERM)
    with Stop() as stop:
        stop.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(StoppedError, match="the same command continues"), stop.immediately():
            raise AssertionError("the block does not start")
    assert signal.getsignal(signal.SIGTERM) == before
