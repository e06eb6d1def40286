"""Pairs that are changed at random for training: exact for (seed, epoch, pair), with any workers, and after a stop."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from training_runs import configured, interrupted_after, tower_student, weights_sha256

from cusa.common.draws import hashed
from cusa.config.shards import Stream
from cusa.config.views import views_of_training
from cusa.errors import ConfigurationError, DataError
from cusa.layout import DatasetFolder
from cusa.student.inputs import FeatureInputs, PixelInputs, frozen_dimensions
from cusa.student.student import build_student
from cusa.teachers.extraction import extract_image_features, extract_text_features
from cusa.training.augmentation import CachedViews
from cusa.training.batches import TrainingBatch
from cusa.training.distributed import Group
from cusa.training.loading import TrainingData
from cusa.training.loop import train
from cusa.training.state import Progress

CHANGED_AT_ONCE = {"image": {"flip": True, "colour": 0.2}, "caption": {"drop_words": 0.2, "reorder": "words"}}
CHANGED = {**CHANGED_AT_ONCE, "views": 3}


def trained_towers(tiny_configuration, **settings):
    return configured(tiny_configuration, augmentation=CHANGED_AT_ONCE, **settings)


@pytest.fixture(scope="module")
def views_data(tiny_configuration, tiny_vision, tiny_sentences, shapes_data, tmp_path_factory):
    """A configuration of frozen towers, and the shapes with the features of their views."""
    student = tower_student(tiny_vision, tiny_sentences)
    for side in ("image", "text"):
        student["towers"][side]["trainable"] = False
    configuration = {**tiny_configuration, "student": student}
    data = shutil.copytree(shapes_data, tmp_path_factory.mktemp("views") / "shapes")
    views, folder = views_of_training(configured(configuration, augmentation=CHANGED)), DatasetFolder(data)
    extract_image_features(folder.shards("train"), views.image, folder.features("image", views.image.folder, "train"))
    texts = folder.features("text", views.text.folder, "train")
    extract_text_features(folder.annotations, "train", views.text, texts)
    return configuration, data


def opened(run, data, rank: int = 0, processes: int = 1) -> TrainingData:
    folder = DatasetFolder(data)
    student = build_student(run.student, run.losses, frozen_dimensions(run.student, folder, "train"))
    return TrainingData(student, run, folder, Group(processes, rank))


def rows_of(data: TrainingData, epoch: int, first: int = 0) -> dict[tuple[int, bytes], bytes]:
    """What an epoch reads: the pixels or features of each pair, by its image and its caption's inputs."""
    found = {}
    for _, batches in data.steps(Progress(epoch=epoch, step=first)):
        for batch in map(TrainingBatch.by_pair, batches):
            texts = batch.texts if isinstance(batch.texts, torch.Tensor) else batch.texts["input_ids"]
            for image, pixels, text, teacher in zip(
                batch.image_ids, batch.images, texts, batch.teacher_text, strict=True
            ):
                key = (int(image), teacher.numpy().tobytes())
                found[key] = pixels.numpy().tobytes() + text.numpy().tobytes().rstrip(b"\0")
    return found


def same(one: dict, other: dict) -> float:
    """The share of the pairs of both that read the same."""
    assert one.keys() & other.keys()
    return float(np.mean([one[key] == other[key] for key in one.keys() & other.keys()]))


@pytest.mark.parametrize("towers", ["trained", "frozen"])
def test_what_is_read_is_a_function_of_seed_epoch_and_pair(tiny_configuration, shapes_data, views_data, towers):
    configuration, data = (tiny_configuration, shapes_data) if towers == "trained" else views_data
    changed = CHANGED_AT_ONCE if towers == "trained" else CHANGED
    run = configured(configuration, augmentation=changed)
    read = rows_of(opened(run, data), epoch=1)
    for settings in ({"workers": 2}, {"batch_size": 16}):
        other = configured(configuration, augmentation=changed, **settings)
        assert same(read, rows_of(opened(other, data), epoch=1)) == 1
    shares = [
        rows_of(opened(configured(configuration, augmentation=changed), data, rank, 2), epoch=1) for rank in (0, 1)
    ]
    assert same(read, shares[0] | shares[1]) == 1
    assert same(read, rows_of(opened(run, data), epoch=1, first=3)) == 1
    # With three views and the original, an image and a caption that are drawn anew are the same in 1 of 16 pairs.
    assert same(read, rows_of(opened(run, data), epoch=2)) < 0.5
    assert same(read, rows_of(opened(run.model_copy(update={"seed": 24}), data), epoch=1)) < 0.5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "neither `image` nor `caption` is given"),
        ({"caption": {"drop_parts": 0, "reorder": None}}, "caption.drop_parts and caption.drop_words are 0 and"),
    ],
    ids=["empty", "captions stay"],
)
def test_an_augmentation_that_changes_nothing_is_refused(tiny_configuration, changed, message):
    with pytest.raises(ConfigurationError, match=message):
        configured(tiny_configuration, augmentation=changed)


def test_views_without_a_frozen_tower_are_refused(tiny_configuration):
    with pytest.raises(ConfigurationError, match="no tower that reads changed ones is frozen; leave it out"):
        configured(tiny_configuration, augmentation=CHANGED)


def test_a_frozen_tower_reads_each_view_and_the_original_equally_often():
    originals = FeatureInputs(np.zeros((4, 1), np.float32))

    class Store:
        dimension = 1

        def __getitem__(self, rows: np.ndarray) -> np.ndarray:
            return 1 + rows[:, None].astype(np.float32)

    items = np.tile(np.arange(4), 3000)
    drawn = CachedViews(Store(), 3).drawn(originals, items, hashed(np.arange(len(items))))[:, 0].numpy().astype(int)
    for item in range(4):
        values, counts = np.unique(drawn[items == item], return_counts=True)
        assert values.tolist() == [0, *(1 + item * 3 + view for view in range(3))]
        assert np.abs(counts / 750 - 1).max() < 0.12


def test_each_pair_of_an_image_has_a_view_of_its_own_but_shares_its_decoding(
    tiny_configuration, shapes_data, monkeypatch
):
    pairs = opened(trained_towers(tiny_configuration), shapes_data).pairs
    read, original = [], PixelInputs.encoded
    monkeypatch.setattr(
        PixelInputs, "encoded", lambda self, position: (read.append(position), original(self, position))[1]
    )
    batch = pairs[np.arange(4)]
    assert batch.image_ids.tolist() == [0, 0, 1, 1]
    assert read == [0, 1]
    assert not torch.equal(batch.images[0], batch.images[1])
    assert batch.images.dtype == torch.uint8
    assert batch.texts["input_ids"].shape == batch.texts["attention_mask"].shape


def test_only_what_is_asked_for_is_changed(tiny_configuration, shapes_data):
    plain = opened(configured(tiny_configuration), shapes_data).pairs[np.arange(6)]
    pictures = opened(configured(tiny_configuration, augmentation={"image": {}}), shapes_data).pairs[np.arange(6)]
    captions = opened(configured(tiny_configuration, augmentation={"caption": {"drop_words": 0.5}}), shapes_data).pairs[
        np.arange(6)
    ]
    assert torch.equal(pictures.texts["input_ids"], plain.texts["input_ids"])
    assert not torch.equal(pictures.images, plain.images)
    assert torch.equal(captions.images, plain.images)
    assert captions.texts["attention_mask"].sum() < plain.texts["attention_mask"].sum()
    assert torch.equal(captions.teacher_text, plain.teacher_text)


def test_validation_reads_what_is_stored(views_data):
    configuration, data = views_data
    plain, changed = (
        opened(configured(configuration, augmentation=augmentation), data).validation
        for augmentation in (None, CHANGED)
    )
    everything = np.arange(len(plain.images))
    assert torch.equal(plain.images[everything], changed.images[everything])
    assert torch.equal(plain.texts[everything], changed.texts[everything])


def test_streamed_pairs_are_changed_too(tiny_configuration, shapes_data):
    shards = DatasetFolder(shapes_data).shards("train")
    streamed = {"stream": {"url": str(shards / "shard-{shard}.tar"), "shuffle_buffer": 4}}
    run = configured({**tiny_configuration, **streamed}, augmentation=CHANGED_AT_ONCE)
    assert isinstance(run.stream, Stream)
    local = rows_of(opened(trained_towers(tiny_configuration), shapes_data), epoch=1)
    assert same(local, rows_of(opened(run, shapes_data), epoch=1)) == 1


def test_views_that_are_missing_or_of_another_configuration_are_named(views_data):
    configuration, data = views_data
    with pytest.raises(DataError, match=r"views2-.*run `snakemake features` first"):
        opened(configured(configuration, augmentation={**CHANGED, "views": 2}), data)


@pytest.mark.parametrize("towers", ["trained", "frozen"])
def test_a_stopped_training_ends_bit_identical(
    tiny_configuration, shapes_data, views_data, tmp_path, monkeypatch, towers
):
    configuration, data = (tiny_configuration, shapes_data) if towers == "trained" else views_data
    changed = CHANGED_AT_ONCE if towers == "trained" else CHANGED
    run = configured(configuration, augmentation=changed, epochs=3)
    train(run, DatasetFolder(data), tmp_path / "undisturbed")
    interrupted_after(11, run, data, tmp_path / "stopped", monkeypatch)
    train(run, DatasetFolder(data), tmp_path / "stopped")
    assert weights_sha256(tmp_path / "undisturbed") == weights_sha256(tmp_path / "stopped")
