"""Embeddings of a benchmark's data, computed once with the student of a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cusa.annotations.tables import CAPTIONS, captions_schema, read_table, write_table
from cusa.common.files import read_json
from cusa.config.captions import CaptionCleaning
from cusa.config.configuration import load
from cusa.embeddings import embed
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.runs.record import RunRecord
from cusa.runs.weights import load_student
from cusa.student.encoding import Encoder
from cusa.student.inputs import open_split
from cusa.teachers.extraction import extract_text_features
from cusa.training.loop import train


@pytest.fixture(scope="module")
def run(tiny_configuration, shapes_data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(load(tiny_configuration).run("cusa", 23), DatasetFolder(shapes_data), folder)
    return folder


def test_rows_are_in_order_and_heads_differ(run, shapes_data, tmp_path):
    folder = DatasetFolder(shapes_data)
    embed(run, folder, "test", tmp_path / "test")
    found = {path.stem: np.load(path) for path in (tmp_path / "test").glob("*.npy")}
    assert {name: array.shape for name, array in found.items()} == {
        "image_cross": (8, 16),
        "image_uni": (8, 16),
        "text_cross": (16, 16),
        "text_uni": (16, 16),
    }
    student, configuration = load_student(run)
    inputs = open_split(student.backbone, configuration.student, folder, "test")
    with torch.inference_mode():
        for position in (0, 7):
            image = student.encode_image(inputs.images[np.array([position])], "uni")[0].numpy()
            assert np.allclose(found["image_uni"][position], image, atol=1e-5)
        for position in (0, 15):
            text = student.encode_text(inputs.texts[np.array([position])], "cross")[0].numpy()
            assert np.allclose(found["text_cross"][position], text, atol=1e-5)
    assert not np.allclose(found["image_uni"], found["image_cross"])


def test_a_run_records_how_its_captions_were_cleaned_and_other_data_are_told(
    run, shapes_data, tiny_configuration, tmp_path, caplog
):
    """run.json says it of the tables that were read; a run without the key learned from published cleaning."""
    data = DatasetFolder(Path(shutil.copytree(shapes_data, tmp_path / "data")))
    none = CaptionCleaning(clean="none", max_words=None)
    captions = read_table(data.annotations, CAPTIONS)
    write_table(data.annotations / CAPTIONS, captions.cast(captions_schema(none)))
    train(load(tiny_configuration).run("contrastive", 23), data, tmp_path / "run")
    assert RunRecord.read(tmp_path / "run").configuration.captions == none
    assert "captions" not in read_json(run / "run.json")["configuration"]

    embed(tmp_path / "run", data, "test", tmp_path / "test")
    assert "learned from captions" not in caplog.text
    embed(run, data, "test", tmp_path / "other")
    assert f"{run} learned from captions with caption clean-up as published; those in " in caplog.text


def test_a_run_notes_captions_that_its_models_do_not_know(shapes_data, tiny_configuration, tmp_path, caplog):
    """The text teacher's extraction says it in meta.json, the student is looked at when training starts."""
    data = DatasetFolder(Path(shutil.copytree(shapes_data, tmp_path / "data")))
    captions = read_table(data.annotations, CAPTIONS)
    for number, name in enumerate(captions.column_names[:2]):  # caption and cleaned
        captions = captions.set_column(number, name, [[f"ቀይ ፖም {row}" for row in range(len(captions))]])
    write_table(data.annotations / CAPTIONS, captions)
    configuration = load(tiny_configuration).run("cusa", 23)
    text = configuration.teachers.text
    shutil.rmtree(data.features("text", text.folder, "train"))
    extract_text_features(data.annotations, "train", text, data.features("text", text.folder, "train"))
    assert "100% of all tokens are unknown (Ethiopic 100%)" in caplog.text
    train(configuration, data, tmp_path / "run")
    notes = RunRecord.read(tmp_path / "run").notes
    assert len(notes) == 4
    assert notes[0].startswith(f"{text.name}: 100% of all tokens are unknown")
    assert notes[1].startswith(f"{text.name}: 64 distinct texts are 64 after clean-up and 1 rows of tokens")
    assert notes[2].startswith("student: 100% of all tokens are unknown")


def test_a_run_that_has_not_finished(tmp_path, shapes_data):
    with pytest.raises(DataError, match="run `snakemake models` first"):
        embed(tmp_path, DatasetFolder(shapes_data), "test", tmp_path / "out")


def test_embeddings_that_are_not_finite_are_refused_by_row(run, shapes_data, tmp_path, monkeypatch):
    """Nothing is written: scores would be undefined, and the rows say where to look."""
    original = Encoder.encode

    def diverged(self, *arguments):
        embeddings = original(self, *arguments)
        embeddings["text_cross"][[3, 7], 0] = np.nan, np.inf
        return embeddings

    monkeypatch.setattr(Encoder, "encode", diverged)
    with pytest.raises(DataError, match=r"text_cross of 2 of the 16 rows of test is not finite \(rows 3, 7, counted"):
        embed(run, DatasetFolder(shapes_data), "test", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_weights_are_a_sentence(run, shapes_data, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    weights = copy / "best.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(DataError, match="is not a complete safetensors file"):
        load_student(copy)


def test_weights_of_another_student_are_a_sentence(run, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(run, tmp_path / "run"))
    tensors = load_file(copy / "best.safetensors")
    tensors.pop("student.heads.uni_text.1.weight")
    save_file(tensors, copy / "best.safetensors")
    with pytest.raises(DataError, match="does not fit the student .*Missing key"):
        load_student(copy)


def test_shards_of_other_data_are_refused(run, shapes_data, tmp_path):
    data = Path(shutil.copytree(shapes_data, tmp_path / "data"))
    shutil.rmtree(data / "shards/test")
    shutil.copytree(data / "shards/val", data / "shards/test")
    with pytest.raises(DataError, match="but the annotations list 8 other ones"):
        embed(run, DatasetFolder(data), "test", tmp_path / "out")
