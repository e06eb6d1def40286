"""Trainings that read stored tokens and pixels end with the weights of those that tokenise and decode themselves."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from training_runs import configured, interrupted_after, tower_student, weights_sha256

from cusa.config.student_inputs import WHOLE_PICTURES, pixels_folder, tokens_folder
from cusa.embeddings import embed
from cusa.layout import DatasetFolder
from cusa.shards.reading import ShardReader
from cusa.student.pixels import transform_of_student, write_crops, write_whole_pictures
from cusa.student.tokens import tokeniser_of_student, write_tokens
from cusa.training.loop import train


@pytest.fixture(scope="module", params=["dual encoder", "towers"])
def student(request, tiny_configuration, tiny_vision, tiny_sentences) -> dict:
    return (
        tiny_configuration["student"] if request.param == "dual encoder" else tower_student(tiny_vision, tiny_sentences)
    )


@pytest.fixture
def data(shapes_data, tmp_path) -> DatasetFolder:
    """A copy of the shapes, to which tokens and pixels may be written."""
    return DatasetFolder(Path(shutil.copytree(shapes_data, tmp_path / "shapes")))


def store(data: DatasetFolder, run) -> None:
    """What the workflow makes ready for a run."""
    student = run.student
    write_tokens(data, "train", tokeniser_of_student(student), data.tokens(tokens_folder(student), "train"))
    for split in ("train", "val", "test"):
        folder = data.pixels(pixels_folder(student), split)
        write_crops(data.shards(split), transform_of_student(student), folder)
    write_whole_pictures(data.shards("train"), data.pixels(WHOLE_PICTURES, "train"))


def without_decoding(monkeypatch) -> None:
    def refuse(reader, position):
        raise AssertionError("an image of the shards was read")

    monkeypatch.setattr(ShardReader, "encoded", refuse)


@pytest.mark.parametrize("augmentation", [None, {"image": {"colour": 0.2, "flip": True}}], ids=["plain", "augmented"])
def test_stored_inputs_give_the_same_weights_and_embeddings(
    tiny_configuration, student, augmentation, data, tmp_path, monkeypatch
):
    run = configured({**tiny_configuration, "student": student}, augmentation=augmentation, epochs=1)
    train(run, data, data.run("cusa", 23))
    embed(data.run("cusa", 23), data, "test", tmp_path / "decoded")
    expected = weights_sha256(data.run("cusa", 23))
    store(data, run)
    without_decoding(monkeypatch)
    train(run, data, data.run("cusa", 24))
    assert weights_sha256(data.run("cusa", 24)) == expected
    embed(data.run("cusa", 24), data, "test", tmp_path / "mapped")
    for path in (tmp_path / "decoded").iterdir():
        assert np.array_equal(np.load(path), np.load(tmp_path / "mapped" / path.name))


def test_a_training_may_go_on_with_stored_inputs_that_began_without(tiny_configuration, data, tmp_path, monkeypatch):
    run = configured(tiny_configuration)
    train(run, data, tmp_path / "whole")
    interrupted_after(5, run, data.root, tmp_path / "interrupted", monkeypatch)
    store(data, run)
    without_decoding(monkeypatch)
    train(run, data, tmp_path / "interrupted")
    assert weights_sha256(tmp_path / "interrupted") == weights_sha256(tmp_path / "whole")


def test_loader_workers_read_the_same_stored_inputs(tiny_configuration, data, tmp_path, monkeypatch):
    alone, several = (configured(tiny_configuration, epochs=1, workers=workers) for workers in (0, 2))
    store(data, alone)
    without_decoding(monkeypatch)
    train(alone, data, tmp_path / "alone")
    train(several, data, tmp_path / "several")
    assert weights_sha256(tmp_path / "alone") == weights_sha256(tmp_path / "several")
