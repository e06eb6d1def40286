"""The average of the weights: its values, its place in a training, and its place in the state."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_runs import configured, interrupted_after, weights_sha256

from cusa.errors import ResumeError
from cusa.layout import DatasetFolder
from cusa.metrics.recall import image_text_recall
from cusa.student.encoding import Encoder
from cusa.student.inputs import open_split
from cusa.student.student import build_student
from cusa.training.averaging import WeightAverage
from cusa.training.loop import train


def test_the_average_is_that_of_the_formula():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    module[0].bias.requires_grad_(False)
    average = WeightAverage(module, decay=0.7)
    assert set(average.state()) == {"0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
    expected = {name: module.state_dict()[name].numpy().copy() for name in average.state()}
    generator = np.random.default_rng(1)
    for step in range(1, 40):
        for name in expected:
            new = generator.normal(size=expected[name].shape)
            module.state_dict()[name].copy_(torch.from_numpy(new))
            decay = min(0.7, (1 + step) / (10 + step))
            expected[name] = decay * expected[name] + (1 - decay) * new
        average.update(step)
    for name, value in expected.items():
        np.testing.assert_allclose(average.state()[name].numpy(), value, rtol=1e-12)


def test_the_module_has_the_average_within_the_block_only():
    module = nn.Linear(2, 2)
    average = WeightAverage(module, decay=0.5)
    before = module.weight.clone()
    with torch.no_grad():
        module.weight.add_(1)
    with pytest.raises(ZeroDivisionError), average.in_place():
        assert torch.equal(module.weight, before)
        _ = 1 / 0
    assert torch.equal(module.weight, before + 1)
    assert torch.equal(average.state()["weight"], before)


def test_shared_weights_are_averaged_once_and_have_all_their_names():
    module = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    module[1].weight = module[0].weight
    average = WeightAverage(module, decay=0.5)
    start = module[0].weight.detach().clone()
    with torch.no_grad():
        module[0].weight.add_(11)
    average.update(1)
    expected = start + 11 * (1 - 2 / 11)
    assert torch.allclose(average.state()["0.weight"], expected)
    assert average.state()["0.weight"] is average.state()["1.weight"]


def test_a_state_of_other_weights_is_refused():
    with pytest.raises(ResumeError, match="has other weights than the model"):
        WeightAverage(nn.Linear(2, 2), 0.5).load({"weight": torch.zeros(2, 2)})


def test_the_average_is_validated_and_saved(tiny_configuration, shapes_data, tmp_path):
    folder = DatasetFolder(shapes_data)
    run = configured(tiny_configuration, ema_decay=0.9, epochs=3)
    train(run, folder, tmp_path / "averaged")
    train(configured(tiny_configuration, epochs=3), folder, tmp_path / "last")
    averaged, last = (load_file(tmp_path / name / "best.safetensors") for name in ("averaged", "last"))
    assert averaged.keys() == last.keys()
    assert any(not torch.equal(averaged[name], last[name]) for name in averaged)
    student = build_student(run.student, run.losses)
    student.load_state_dict({name.removeprefix("student."): averaged[name] for name in averaged if "student." in name})
    inputs = open_split(student.backbone, run.student, folder, "val")
    found = Encoder(student.eval(), torch.device("cpu"), 128).encode(inputs, ("cross",))
    recall = image_text_recall(found["image_cross"], found["text_cross"], inputs.image_of_caption)
    rows = pq.read_table(tmp_path / "averaged/history.parquet").to_pylist()
    assert recall["r_mean"] == pytest.approx(max(row["r_mean"] for row in rows if row["kind"] == "epoch"))
    steps = [
        [row["loss"] for row in pq.read_table(tmp_path / name / "history.parquet").to_pylist() if row["kind"] == "step"]
        for name in ("averaged", "last")
    ]
    assert steps[0] == steps[1]  # the average does not change what is learned


def test_a_stopped_training_continues_with_the_same_average(tiny_configuration, shapes_data, tmp_path, monkeypatch):
    run = configured(tiny_configuration, ema_decay=0.95, epochs=3)
    train(run, DatasetFolder(shapes_data), tmp_path / "undisturbed")
    interrupted_after(11, run, shapes_data, tmp_path / "stopped", monkeypatch)
    train(run, DatasetFolder(shapes_data), tmp_path / "stopped")
    assert weights_sha256(tmp_path / "undisturbed") == weights_sha256(tmp_path / "stopped")


def test_a_decay_that_was_taken_away_is_named_as_such(tiny_configuration, shapes_data, tmp_path, monkeypatch):
    interrupted_after(1, configured(tiny_configuration, ema_decay=0.95), shapes_data, tmp_path, monkeypatch)
    with pytest.raises(ResumeError, match=r"train.ema_decay was 0\.95, is null or left out"):
        train(configured(tiny_configuration), DatasetFolder(shapes_data), tmp_path)
