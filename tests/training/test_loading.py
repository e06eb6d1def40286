"""The batches of an epoch, and features that do not fit the data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training_runs import configured

from cusa.config.experiments import RunConfiguration
from cusa.errors import DataError
from cusa.layout import DatasetFolder, RunInputs
from cusa.student.student import build_student
from cusa.teachers.store import write_features
from cusa.training.batches import TrainingPairs
from cusa.training.distributed import Group
from cusa.training.loading import TrainingData, open_loader, open_training_pairs
from cusa.training.loop import train
from cusa.training.sampling import PairSampler
from cusa.training.state import Progress


def data_of(run: RunConfiguration, data: Path) -> TrainingData:
    return TrainingData(build_student(run.student, run.losses), run, DatasetFolder(data), Group())


def test_a_step_has_the_batches_of_the_sampler(tiny_configuration, shapes_data):
    """From the step to take next to the end of the epoch, `accumulate` batches each."""
    data = data_of(configured(tiny_configuration, batch_size=4, accumulate=2), shapes_data)
    steps = []
    for step, batches in data.steps(Progress(epoch=1, step=3)):
        steps.append(step)
        images = [batch.image_ids.numpy() for batch in batches]
        pairs = [data.sampler.batch(1, step, part) for part in range(2)]
        assert np.array_equal(images, [data.pairs.image_of_caption[numbers] for numbers in pairs])
    assert steps == list(range(3, data.steps_per_epoch)) == [3, 4, 5, 6, 7]


def test_only_loading_counts_as_waiting(tiny_configuration, shapes_data, monkeypatch):
    """A batch is loaded when it is asked for; the time that a step computes is not waiting."""
    data = data_of(configured(tiny_configuration, batch_size=4, accumulate=2), shapes_data)
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("cusa.training.loading.time", SimpleNamespace(monotonic=lambda: clock.now))
    load = TrainingPairs.__getitem__

    def slow(pairs: TrainingPairs, numbers: np.ndarray) -> object:
        clock.now += 1.0
        return load(pairs, numbers)

    monkeypatch.setattr(TrainingPairs, "__getitem__", slow)
    for epoch in range(2):
        for step, batches in data.steps(Progress(epoch=epoch, step=5)):
            waited = data.spent.seconds_waited
            for number, _ in enumerate(batches, start=1):
                clock.now += 100.0
                assert data.spent.seconds_waited == waited + number, step
    assert data.spent.seconds_waited == 2 * 3 * 2


@pytest.mark.parametrize(("select_on", "split"), [("val", "val"), ("test_leak_as_published", "test")])
def test_validation_reads_the_split_that_selects(tiny_configuration, shapes_data, select_on, split):
    data = data_of(configured(tiny_configuration, select_on=select_on), shapes_data)
    assert Path(data.validation.images.reader.folder).name == split


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_loader_workers_do_not_change_the_order(shapes_data, tiny_configuration, workers):
    run = configured(tiny_configuration, epochs=1, batch_size=8, workers=workers)
    student = build_student(run.student, run.losses)
    pairs = open_training_pairs(student, run, DatasetFolder(shapes_data))
    sampler = PairSampler(len(pairs), 8, 23)
    batches = list(open_loader(pairs, sampler, Progress(step=3), run.train, torch.device("cpu")))
    assert len(batches) == sampler.steps_per_epoch - 3
    for batch, chosen in zip(batches, sampler.epoch(0, 3), strict=True):
        assert np.array_equal(batch.image_ids.numpy(), pairs.image_of_caption[chosen])
        expected = pairs[chosen]
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.teacher_text, expected.teacher_text)


def test_batches_have_what_the_judges_of_negatives_need(tiny_configuration, shapes_data):
    """A contrastive run whose text teacher judges reads that teacher alone, and what its positives are."""
    judged = {"contrastive": {"contrastive": {"false_negatives": {"teacher": "text"}}}}
    run = configured(
        {**tiny_configuration, "experiments": {**tiny_configuration["experiments"], **judged}}, "contrastive"
    )
    assert [features.modality for features in RunInputs.of_training(run).features] == ["text"]
    pairs = data_of(run, shapes_data).pairs
    batch = pairs[np.array([5, 0, 9])]
    assert batch.teacher_image is None
    others = [pairs.teacher_text[np.array([pair, pair ^ 1])].astype(np.float64) for pair in (5, 0, 9)]
    cosines = [first @ second / np.linalg.norm(first) / np.linalg.norm(second) for first, second in others]
    np.testing.assert_allclose(batch.positive_text.numpy(), cosines, atol=1e-6)


def test_a_mixture_of_teachers_is_read_as_one(tiny_configuration, shapes_data, tmp_path):
    data = Path(shutil.copytree(shapes_data, tmp_path / "data"))
    more = {"image": [{"name": "timm/resnet18", "share": 0.25}]}
    run = configured({**tiny_configuration, "teachers": {**tiny_configuration["teachers"], "more": more}})
    own = data / "teachers/image" / run.teachers.image.folder / "train"
    second = np.random.default_rng(0).standard_normal((32, 5)).astype(np.float32)
    folder = data / "teachers/image/timm--resnet18/train"
    write_features(folder, 32, 5, "float32", [second], {"model": "timm/resnet18", "weights_sha256": "unknown"})
    pairs = data_of(run, data).pairs
    rows = np.array([3, 0, 31])
    mixed, first = pairs.teacher_image[rows], np.load(own / "features.npy")[rows].astype(np.float64)

    def cosines(features: np.ndarray) -> np.ndarray:
        features = features / np.linalg.norm(features, axis=1, keepdims=True)
        return features @ features.T

    np.testing.assert_allclose(cosines(mixed), 0.75 * cosines(first) + 0.25 * cosines(second[rows]), atol=1e-6)
    train(run, DatasetFolder(data), tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert "teachers/image/timm--resnet18/train" in record["data"]


def test_features_of_the_wrong_length_stop_before_training(tiny_configuration, shapes_data, tmp_path):
    data = Path(shutil.copytree(shapes_data, tmp_path / "data"))
    run = configured(tiny_configuration)
    path = data / "teachers/image" / run.teachers.image.folder / "train/features.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(DataError, match="has 31 rows, but the split has 32"):
        train(run, DatasetFolder(data), tmp_path / "run")


def test_features_of_other_weights_stop_before_training(tiny_configuration, tiny_vision, shapes_data, tmp_path):
    """The model's folder got other weights after the features were extracted."""
    data = Path(shutil.copytree(shapes_data, tmp_path / "data"))
    run = configured(tiny_configuration)
    meta = data / "teachers/image" / run.teachers.image.folder / "train/meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"weights_sha256": "0" * 64}))
    with pytest.raises(DataError, match="was extracted with other weights"):
        train(run, DatasetFolder(data), tmp_path / "run")
