"""Exports of runs whose student is a model of open_clip, with random weights of small architectures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from open_clip_files import add_architectures, put_tokeniser_beside, write_weights
from runs_to_export import untrained_run

import cusa
from cusa.errors import ConfigurationError
from cusa.export.exporting import ExportOptions, export

TEXTS = ["a red circle", "A large_blue, triangle!", "small and\tyellow   cross"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, shapes_data, tiny_configuration, tiny_siglip) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("architectures")
    add_architectures(folder)
    found = {}
    for name in ("tiny-SigLIP2", "tiny-MobileCLIP"):
        (folder / name).mkdir()
        file = write_weights(name, folder / name / "weights.safetensors")
        put_tokeniser_beside(file, tiny_siglip)
        student = {"name": f"open_clip/{name}", "pretrained": str(file)}
        found[name] = untrained_run(shapes_data, tiny_configuration, student, f"of {name}".replace(" ", "_"))
    return found


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("tiny-SigLIP2", "safetensors"),
        ("tiny-MobileCLIP", "safetensors"),
        ("tiny-SigLIP2", "onnx"),
        pytest.param("tiny-MobileCLIP", "onnx", marks=pytest.mark.slow),
    ],
)
def test_an_export_embeds_as_the_run(runs, tmp_path, name, target):
    export(runs[name], target, tmp_path / "out", ExportOptions())
    moved = Path(shutil.move(tmp_path / "out", tmp_path / "moved"))
    model, exported = cusa.load(runs[name], device="cpu"), cusa.load(moved, device="cpu")
    picture = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    for head in ("cross", "uni"):
        assert np.abs(exported.encode_text(TEXTS, head) - model.encode_text(TEXTS, head)).max() < 1e-4
        both = [each.encode_image(picture, head) for each in (model, exported)]
        assert (both[0] * both[1]).sum() > 0.999


def test_the_safetensors_folder_needs_neither_the_file_of_weights_nor_a_hub(runs, tmp_path, monkeypatch):
    export(runs["tiny-SigLIP2"], "safetensors", tmp_path / "out", ExportOptions())
    expected = cusa.load(runs["tiny-SigLIP2"], device="cpu").encode_text(TEXTS)
    monkeypatch.setattr("open_clip.get_tokenizer", _only_of_folders)
    assert np.abs(cusa.load(tmp_path / "out", device="cpu").encode_text(TEXTS) - expected).max() < 1e-5


def _only_of_folders(name: str):
    from open_clip.factory import get_tokenizer

    assert name.startswith("local-dir:")
    return get_tokenizer(name)


def test_sentence_transformers_has_no_form_for_it(runs, tmp_path):
    with pytest.raises(ConfigurationError, match="not a model that plain sentence-transformers can hold; export"):
        export(runs["tiny-MobileCLIP"], "sentence-transformers", tmp_path / "out", ExportOptions())
