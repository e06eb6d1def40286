"""Steps on made-up data, and `train.batch_size: auto`, which is replaced by the largest batch that fits."""

from __future__ import annotations

import json

import pytest
import torch
from training_runs import configured, interrupted, weights_sha256

from cusa.config.experiments import RunConfiguration
from cusa.errors import ConfigurationError, TrainingError
from cusa.layout import DatasetFolder
from cusa.runs.record import RunRecord
from cusa.student.backbones import FrozenDimensions
from cusa.training import batch_size
from cusa.training.batch_size import largest_that_fits, trial_step
from cusa.training.loop import train

CPU = torch.device("cpu")


@pytest.mark.parametrize("experiment", ["contrastive", "cusa"])
@pytest.mark.parametrize("settings", [{}, {"chunk_size": 3}, {"ema_decay": 0.9}], ids=str)
def test_the_trial_takes_complete_steps(tiny_configuration, experiment, settings, monkeypatch):
    taken, batches = [], []
    step, add = torch.optim.AdamW.step, batch_size.add_gradients
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a, **k: (taken.append(1), step(self, *a, **k))[1])
    monkeypatch.setattr(batch_size, "add_gradients", lambda *a, **k: (batches.append(a[2]), add(*a, **k))[1])
    run = configured(tiny_configuration, experiment, batch_size=6, **settings)
    trial_step(run, FrozenDimensions(), dict.fromkeys(run.losses.teachers, 8), CPU)
    assert taken == [1, 1]
    assert {len(batch.images) for batch in batches} == {6}  # nothing is shared: no batch of these pairs is larger
    assert {len(batch.texts["input_ids"]) for batch in batches} == {6}


@pytest.mark.parametrize("limit", [8, 9, 15, 16, 100, 127, 128, 1000, 5000])
def test_the_largest_batch_is_found_to_an_eighth(limit):
    tried: list[int] = []
    found = largest_that_fits(lambda size: (tried.append(size), size <= limit)[1], most=3000)
    assert found is not None
    assert found <= min(limit, 3000) < found + max(1, found // 8) + 1 or found == 3000
    assert len(tried) < 16


def test_no_batch_is_larger_than_the_data():
    assert largest_that_fits(lambda size: True, most=100) == 100
    assert largest_that_fits(lambda size: True, most=5) == 5
    assert largest_that_fits(lambda size: False, most=100) is None


def automatic(tiny_configuration, **settings) -> RunConfiguration:
    """A run with `batch_size: auto` that trains on the CPU all the same."""
    run = configured(tiny_configuration, **settings)
    return run.model_copy(update={"train": run.train.model_copy(update={"batch_size": "auto"})})


@pytest.fixture
def fits_seven(monkeypatch) -> list[int]:
    """A device on which up to 7 pairs fit; the sizes that were tried."""
    tried: list[int] = []

    def takes_a_step(configuration, frozen, teachers, device) -> bool:
        tried.append(configuration.train.pairs_per_batch)
        return tried[-1] <= 7

    monkeypatch.setattr(batch_size, "_takes_a_step", takes_a_step)
    monkeypatch.setattr(batch_size, "FIRST", 4)
    monkeypatch.setattr(batch_size, "_memory_of", lambda device: "1.0 GiB of a device")
    return tried


def test_a_training_finds_its_batch_size_and_keeps_it(
    tiny_configuration, shapes_data, tmp_path, monkeypatch, fits_seven
):
    train(configured(tiny_configuration, epochs=3, batch_size=7), DatasetFolder(shapes_data), tmp_path / "number")
    run = automatic(tiny_configuration, epochs=3)
    interrupted(run, shapes_data, tmp_path / "auto", monkeypatch)
    assert len(fits_seven) == len(set(fits_seven))
    assert 7 in fits_seven
    fits_seven.clear()
    train(run, DatasetFolder(shapes_data), tmp_path / "auto")
    assert fits_seven == []
    assert RunRecord.read(tmp_path / "auto").configuration.train.batch_size == 7
    assert weights_sha256(tmp_path / "auto") == weights_sha256(tmp_path / "number")


def test_another_configuration_finds_its_own(tiny_configuration, shapes_data, tmp_path, monkeypatch, fits_seven):
    interrupted(automatic(tiny_configuration, epochs=3), shapes_data, tmp_path / "run", monkeypatch)
    fits_seven.clear()
    kept = json.loads((tmp_path / "run/state/batch_size.json").read_text())
    (tmp_path / "run/state/batch_size.json").write_text(json.dumps(kept | {"configuration": "{}"}))
    train(automatic(tiny_configuration, epochs=3), DatasetFolder(shapes_data), tmp_path / "run")
    assert 7 in fits_seven


def test_a_student_that_does_not_fit_is_a_sentence(tiny_configuration, shapes_data, tmp_path, fits_seven, monkeypatch):
    monkeypatch.setattr(batch_size, "_takes_a_step", lambda *arguments: False)
    with pytest.raises(TrainingError, match="but a batch of 4 pairs does not fit 90% of the 1.0 GiB of a device. Take"):
        train(automatic(tiny_configuration), DatasetFolder(shapes_data), tmp_path / "run")


def test_without_a_gpu_it_is_refused(tiny_configuration):
    with pytest.raises(ConfigurationError, match="batch_size is `auto`, but gpus is 0: only the memory of a GPU says"):
        configured(tiny_configuration, batch_size="auto")
    assert configured(tiny_configuration, batch_size="auto", gpus=1).train.batch_size == "auto"
