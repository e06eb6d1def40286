"""Compiled towers: any size of a batch, the same values, a resume that is bit-identical, and compilers that fail."""

from __future__ import annotations

import signal
import warnings

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from training_runs import configured, interrupted_after, weights_sha256

from cusa.errors import StoppedError
from cusa.layout import DatasetFolder
from cusa.losses import CUSALoss
from cusa.student.student import NOTHING_FROZEN, build_student
from cusa.training import compilation
from cusa.training.compilation import compile_towers
from cusa.training.loop import train
from cusa.training.step import TrainingTask

PLAIN = {"backend": "aot_eager"}  # what torch.compile traces, without a compiler of C++


def task_of(run) -> TrainingTask:
    torch.manual_seed(0)
    return TrainingTask(build_student(run.student, run.losses), CUSALoss(run.losses), run.train)


def inputs(rows: int, tokens: int) -> dict:
    ids = torch.randint(4, 16, (rows, tokens))
    ids[:, -1] = 3
    pixels = torch.randint(0, 255, (rows, 3, 32, 32), dtype=torch.uint8)
    return {"image": pixels, "text": {"input_ids": ids, "attention_mask": torch.ones_like(ids)}}


@pytest.mark.parametrize("checkpointed", [False, True], ids=["plain", "checkpointed"])
def test_batches_of_any_size_take_the_same_code_and_have_the_same_gradients(
    tiny_configuration, monkeypatch, checkpointed
):
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(compilation, "COMPILER", {"backend": counter})
    run = configured(tiny_configuration, checkpoint_towers=checkpointed)
    task, plain = task_of(run).train(), task_of(configured(tiny_configuration)).train()
    assert compile_towers(task, NOTHING_FROZEN) == ["image", "text"]
    graphs = counter.frame_count
    for rows, tokens in ((8, 6), (3, 9), (5, 5), (7, 13)):
        given = inputs(rows, tokens)
        for each in (task, plain):
            each.zero_grad()
            torch.stack([features.square().sum() for features in each.towers(given).values()]).sum().backward()
        expected = {name: parameter.grad for name, parameter in plain.named_parameters()}
        for name, parameter in task.named_parameters():
            if expected[name] is not None:
                torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-4)
    assert counter.frame_count == graphs


def test_compiling_leaves_the_training_as_it_was(tiny_configuration, monkeypatch):
    monkeypatch.setattr(compilation, "COMPILER", PLAIN)
    task = task_of(configured(tiny_configuration)).eval()
    task.register_buffer("running", torch.ones(2))
    monkeypatch.setattr(compilation, "_run", lambda *_: (task.running.add_(1), torch.rand(3)))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    compile_towers(task, NOTHING_FROZEN)
    assert torch.equal(torch.rand(2), expected)
    assert task.running.tolist() == [1, 1]
    assert not task.training
    assert all(parameter.grad is None for parameter in task.parameters())


@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_a_tower_that_cannot_be_compiled_runs_as_it_is_and_the_log_says_so(
    tiny_configuration, monkeypatch, caplog, phase
):
    from torch._dynamo.backends.common import aot_autograd

    def failing(*_: object) -> None:
        raise RuntimeError("no C++ compiler was found")

    def working(graph, _):
        return graph.forward

    compilers = {"fw_compiler": working, "bw_compiler": working}
    compilers["fw_compiler" if phase == "forward" else "bw_compiler"] = failing
    monkeypatch.setattr(compilation, "COMPILER", {"backend": aot_autograd(**compilers)})
    run = configured(tiny_configuration)
    task, plain = task_of(run), task_of(run)
    assert compile_towers(task, NOTHING_FROZEN) == []
    assert task.compiled == {}
    for side in ("image", "text"):
        assert f"the {side} tower cannot be compiled, and is run as it is" in caplog.text
    assert "no C++ compiler was found" in caplog.text
    given = inputs(3, 5)
    for side, features in plain.eval().towers(given).items():
        assert torch.equal(task.eval().towers(given)[side], features)


def test_memory_that_is_not_enough_is_no_reason_to_go_on(tiny_configuration, monkeypatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("a batch does not fit")

    monkeypatch.setattr(compilation, "COMPILER", PLAIN)
    monkeypatch.setattr(compilation, "_run", full)
    with pytest.raises(torch.OutOfMemoryError, match="does not fit"):
        compile_towers(task_of(configured(tiny_configuration)), NOTHING_FROZEN)


def test_a_signal_while_the_compiler_traces_is_one_line(tiny_configuration, monkeypatch):
    """The tracer adds its graph to the error, and tells the stack of the forward pass by a warning."""

    class Stopping(torch.autograd.Function):
        @staticmethod
        def forward(ctx, features):
            return features.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise stopped

    def run(*_: object) -> None:
        with torch.autograd.detect_anomaly(check_nan=False):
            try:
                Stopping.apply(torch.ones(2, requires_grad=True)).sum().backward()
            except StoppedError as error:
                error.args = (f"{error.args[0]}\nUse tlparse to see full graph. ",)
                raise

    stopped = StoppedError("stopped by SIGTERM", signal.SIGTERM)
    monkeypatch.setattr(compilation, "COMPILER", PLAIN)
    monkeypatch.setattr(compilation, "_run", run)
    with warnings.catch_warnings(record=True) as warned, pytest.raises(StoppedError) as caught:
        warnings.filterwarnings("ignore", message="Anomaly Detection has been enabled")
        compile_towers(task_of(configured(tiny_configuration)), NOTHING_FROZEN)
    assert str(caught.value) == "stopped by SIGTERM"
    assert not [str(warning.message) for warning in warned]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_signal_while_the_compiler_works_stops_the_training(tiny_configuration, monkeypatch, wrapped):
    def stopped(*arguments):
        try:
            raise StoppedError("stopped by SIGTERM", signal.SIGTERM)
        except StoppedError as error:
            if not wrapped:
                raise
            raise RuntimeError("the compiler failed") from error

    monkeypatch.setattr(compilation, "_run", stopped)
    with pytest.raises(StoppedError, match="stopped by SIGTERM"):
        compile_towers(task_of(configured(tiny_configuration)), NOTHING_FROZEN)


def test_rows_are_not_taken_for_the_length_of_texts(tiny_configuration):
    """Twelve words of synthetic captions are 14 tokens; torch.compile would take 14 rows for the same dimension."""
    for size, rows in ((14, 13), (15, 15)):
        found = compilation._inputs(task_of(configured(tiny_configuration, batch_size=size)), NOTHING_FROZEN)
        assert {len(found["image"]), len(found["text"]["input_ids"])} == {rows}
        assert found["text"]["input_ids"].shape[1] == 14


def resumed_as_whole(run, data, folder, monkeypatch) -> None:
    train(run, DatasetFolder(data), folder / "whole")
    interrupted_after(11, run, data, folder / "stopped", monkeypatch)
    train(run, DatasetFolder(data), folder / "stopped")
    assert weights_sha256(folder / "stopped") == weights_sha256(folder / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"chunk_size": 3}], ids=["at_once", "in_chunks"])
def test_a_training_is_resumed_bit_identical(tiny_configuration, shapes_data, tmp_path, monkeypatch, settings):
    monkeypatch.setattr(compilation, "COMPILER", PLAIN)
    resumed_as_whole(configured(tiny_configuration, compile=True, **settings), shapes_data, tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_training_with_compiled_code_is_resumed_bit_identical(tiny_configuration, shapes_data, tmp_path, monkeypatch):
    """This needs a compiler of C++, and minutes."""
    run = configured(tiny_configuration, compile=True, precision="bf16")
    resumed_as_whole(run, shapes_data, tmp_path, monkeypatch)
    plain = configured(tiny_configuration, precision="bf16")
    train(plain, DatasetFolder(shapes_data), tmp_path / "plain")
    assert weights_sha256(tmp_path / "plain") != weights_sha256(tmp_path / "whole")
