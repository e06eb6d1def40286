"""Whole trainings: what they write, learn and select, and that a seed fixes them."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import in_processes
from safetensors.torch import load_file
from training_runs import ROOT, command, configured, interrupted_after, tower_student, weights_sha256

from cusa.common.files import read_json
from cusa.config.captions import PUBLISHED
from cusa.errors import TrainingError
from cusa.layout import DatasetFolder
from cusa.losses import CUSALoss
from cusa.student.encoding import Encoder
from cusa.training import guard
from cusa.training.loop import train
from cusa.training.state import State


def test_a_run_writes_its_three_files(tiny_configuration, shapes_data, tmp_path):
    run = configured(tiny_configuration, epochs=3)
    train(run, DatasetFolder(shapes_data), tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "best.safetensors",
        "history.parquet",
        "run.json",
        "state",
        "tensorboard",
    ]
    record = read_json(tmp_path / "run/run.json")
    history = pq.read_table(tmp_path / "run/history.parquet").to_pylist()
    epochs = [row for row in history if row["kind"] == "epoch"]
    best = max(epochs, key=lambda row: row["r_mean"])
    assert record["selected_epoch"] == best["epoch"]
    assert record["selection_metrics"]["r_mean"] == best["r_mean"]
    assert "highest r_mean on val" in record["selected_because"]
    assert record["weights_sha256"] == weights_sha256(tmp_path / "run")
    learned = run.model_copy(update={"captions": PUBLISHED})  # as the captions of the tables were cleaned
    assert record["configuration"] == learned.model_dump(mode="json")
    steps = [row for row in history if row["kind"] == "step"]
    assert {row["epoch"] for row in steps} == {0, 1, 2}
    assert steps[0]["loss"] == pytest.approx(
        steps[0]["loss_contrastive"] + steps[0]["loss_cross"] + steps[0]["loss_uni"], rel=1e-5
    )
    assert steps[-1]["temperature_cross_teacher"] == 1.0


def test_training_learns(tiny_configuration, shapes_data, tmp_path):
    """Measured by the mean of some steps: other versions draw other random weights, on which a single step depends."""
    train(configured(tiny_configuration, epochs=40, lr=0.003), DatasetFolder(shapes_data), tmp_path / "run")
    history = pq.read_table(tmp_path / "run/history.parquet").to_pylist()
    losses = [row["loss_contrastive"] for row in history if row["kind"] == "step"]
    assert np.mean(losses[-8:]) < 0.6 * np.mean(losses[:4])


def test_a_seed_fixes_the_weights(tiny_configuration, shapes_data, tmp_path):
    run = configured(tiny_configuration)
    for name in ("one", "two"):
        train(run, DatasetFolder(shapes_data), tmp_path / name)
    assert weights_sha256(tmp_path / "one") == weights_sha256(tmp_path / "two")
    other = run.model_copy(update={"seed": 24})
    train(other, DatasetFolder(shapes_data), tmp_path / "three")
    assert weights_sha256(tmp_path / "one") != weights_sha256(tmp_path / "three")


def test_two_processes_share_each_epoch(tiny_configuration, shapes_data, tmp_path):
    run = configured(tiny_configuration, cpu_processes=2, epochs=2, batch_size=4)
    for name in ("one", "two"):
        in_processes(2, train, run, DatasetFolder(shapes_data), tmp_path / name, 2)
    assert weights_sha256(tmp_path / "one") == weights_sha256(tmp_path / "two")
    assert read_json(tmp_path / "one/run.json")["processes"] == 2
    history = pq.read_table(tmp_path / "one/history.parquet").to_pylist()
    assert max(row["step"] for row in history) == 64 // 8


def weights_after_each_step(monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Tensor]]:
    """A list that gets the weights after each call of the optimiser."""
    found: list[list[torch.Tensor]] = []
    step = torch.optim.AdamW.step

    def noted(optimiser: torch.optim.AdamW) -> None:
        step(optimiser)
        found.append([each.detach().clone() for group in optimiser.param_groups for each in group["params"]])

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    return found


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_training_in_half_precision_is_resumed_bit_identical(
    tiny_configuration, shapes_data, tmp_path, monkeypatch, precision
):
    """With fp16 also in its scale, which the state has; a step that overflows is left out in both."""
    run, data = configured(tiny_configuration, precision=precision), DatasetFolder(shapes_data)
    monkeypatch.setattr(guard, "FIRST_SCALE", 2.0**126)
    train(run, data, tmp_path / "whole")
    interrupted_after(11, run, shapes_data, tmp_path / "stopped", monkeypatch)
    scale = torch.load(tmp_path / "stopped/state/last.pt", weights_only=True).get("loss_scale", {}).get("scale")
    assert scale is None if precision == "bf16" else scale < 2.0**126
    train(run, data, tmp_path / "stopped")
    assert weights_sha256(tmp_path / "stopped") == weights_sha256(tmp_path / "whole")
    train(configured(tiny_configuration), data, tmp_path / "fp32")
    assert weights_sha256(tmp_path / "fp32") != weights_sha256(tmp_path / "whole")


def test_tf32_is_for_the_training_that_asks_for_it(tiny_configuration, shapes_data, tmp_path):
    """On the CPU it is fp32, so the weights are the same."""
    weights = []
    for precision in ("tf32", "fp32"):
        train(
            configured(tiny_configuration, epochs=1, precision=precision),
            DatasetFolder(shapes_data),
            tmp_path / precision,
        )
        assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
        weights.append(weights_sha256(tmp_path / precision))
    assert weights[0] == weights[1]


@pytest.mark.parametrize(("call", "where"), [(11, "epoch 2, step 3"), (16, "epoch 2, step 8")])
def test_no_step_is_taken_with_a_loss_that_is_not_finite(
    tiny_configuration, shapes_data, tmp_path, monkeypatch, call, where
):
    """The host learns of it a step later, or at the end of the epoch; the weights are those of the step before."""
    original = CUSALoss.forward
    calls = []

    def poisoned(self, **features):
        calls.append(1)
        losses = original(self, **features)
        if len(calls) == call:
            losses.cross = losses.cross * float("nan")
        return losses

    monkeypatch.setattr(CUSALoss, "forward", poisoned)
    weights = weights_after_each_step(monkeypatch)
    with pytest.raises(TrainingError, match=rf"not finite at {where}: contrastive .*, cross nan, uni .*temperatures"):
        train(configured(tiny_configuration), DatasetFolder(shapes_data), tmp_path)
    assert len(weights) == min(call + 1, 16)
    assert not same(weights[call - 3], weights[call - 2])
    assert same(weights[call - 2], weights[call - 1])
    assert same(weights[call - 2], weights[-1])


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize(("call", "where"), [(3, "epoch 1, step 3"), (8, "epoch 1, step 8")])
def test_no_step_is_taken_with_gradients_that_are_not_finite_and_nothing_is_saved(
    tiny_configuration, shapes_data, tmp_path, monkeypatch, call, where, clip
):
    """The loss is finite: only its gradient is not. Also in the last step of an epoch, which is then saved."""
    original, calls, saved = CUSALoss.forward, [], []

    def poisoned(self, **features):
        calls.append(1)
        losses = original(self, **features)
        if len(calls) == call:
            losses.cross = losses.cross + torch.sqrt(losses.cross * 0)
        return losses

    monkeypatch.setattr(CUSALoss, "forward", poisoned)
    monkeypatch.setattr(State, "save", lambda *arguments, **options: saved.append(1))
    weights = weights_after_each_step(monkeypatch)
    with pytest.raises(
        TrainingError,
        match=rf"gradients are not finite at {where} \(norm nan\), but the loss is; temperatures .*No optim",
    ):
        train(configured(tiny_configuration, gradient_clip=clip), DatasetFolder(shapes_data), tmp_path)
    assert not saved
    assert same(weights[call - 2], weights[-1])


def test_a_model_that_diverged_in_its_last_step_is_told_at_validation(
    tiny_configuration, shapes_data, tmp_path, monkeypatch
):
    original = Encoder.encode_images

    def diverged(*arguments):
        return {name: array * np.nan for name, array in original(*arguments).items()}

    monkeypatch.setattr(Encoder, "encode_images", diverged)
    with pytest.raises(TrainingError, match="after epoch 1, embeddings of val are not finite: the model has diverged"):
        train(configured(tiny_configuration), DatasetFolder(shapes_data), tmp_path)


def test_training_stops_early_after_epochs_without_a_better_one(tiny_configuration, shapes_data, tmp_path):
    run = configured(tiny_configuration, epochs=50, early_stop=2, lr=1e-9, min_lr=0.0)
    train(run, DatasetFolder(shapes_data), tmp_path)
    record = read_json(tmp_path / "run.json")
    assert record["epochs"] < 50
    assert record["epochs"] == record["selected_epoch"] + 1 + 2


def test_a_run_selected_on_the_test_set_says_so(tiny_configuration, shapes_data, tmp_path):
    train(configured(tiny_configuration, select_on="test_leak_as_published"), DatasetFolder(shapes_data), tmp_path)
    assert "which leaks the test set" in read_json(tmp_path / "run.json")["selected_because"]


@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"gradient_clip": 0.1}, {"workers": 1}])
def test_a_run_is_trained_with_each_option(tiny_configuration, shapes_data, tmp_path, settings):
    train(configured(tiny_configuration, epochs=1, **settings), DatasetFolder(shapes_data), tmp_path)
    weights = load_file(tmp_path / "best.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values() if tensor.is_floating_point())
    assert all(tensor.dtype == torch.float32 for tensor in weights.values() if tensor.is_floating_point())


def test_frozen_towers_train_from_their_cached_features(
    tiny_configuration, tiny_vision, tiny_sentences, shapes_data, tmp_path
):
    student = tower_student(tiny_vision, tiny_sentences)
    for side in ("image", "text"):
        student["towers"][side]["trainable"] = False
    run = configured({**tiny_configuration, "student": student})
    train(run, DatasetFolder(shapes_data), tmp_path)
    assert set(load_file(tmp_path / "best.safetensors")) >= {"student.backbone.image_projection.weight"}
    assert not any("tower" in name for name in load_file(tmp_path / "best.safetensors"))


@pytest.mark.parametrize(("minutes", "before_validation", "saves"), [(15, 60.0, 1), (15, 0.0, 2), (1e-9, 60.0, 9)])
def test_the_state_is_saved_after_validation_and_when_it_is_due(
    tiny_configuration, shapes_data, tmp_path, monkeypatch, minutes, before_validation, saves
):
    """An epoch of eight steps is saved once at least; before validation too if the last save is some time ago."""
    steps = []
    save = State.save

    def counting(state: State, task, optimiser, progress, *arguments: object) -> None:
        steps.append((progress.epoch, progress.step))
        save(state, task, optimiser, progress, *arguments)

    monkeypatch.setattr(State, "save", counting)
    monkeypatch.setattr("cusa.training.loop.SAVE_BEFORE_VALIDATION", before_validation)
    run = configured(tiny_configuration, epochs=1, save_every_minutes=minutes)
    train(run, DatasetFolder(shapes_data), tmp_path)
    assert len(steps) == saves
    assert steps[-1] == (1, 0)
    assert steps[:-1] == [(0, step) for step in range(10 - saves, 9)]


def test_the_script_prints_one_sentence_and_fails(tiny_configuration, tmp_path):
    run = configured(tiny_configuration)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    completed = subprocess.run(
        command(run, tmp_path, tmp_path / "run"), capture_output=True, text=True, env=environment, check=False
    )
    assert completed.returncode == 1
    assert completed.stderr.strip().endswith("run `snakemake annotations` first.")
    assert "Traceback" not in completed.stderr
