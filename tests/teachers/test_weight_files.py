"""The files of weights: several files with an index, damaged, quantised or pickled ones, and their digests."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from model_files import changed_json, changed_weights, sharded
from safetensors.torch import load_file, save_file

from cusa.common.files import sha256_of_file
from cusa.config.models import ImageModel, TextModel
from cusa.errors import ConfigurationError
from cusa.teachers.encoders import configured_weights_sha256, weights_sha256
from cusa.teachers.registry import load_image_encoder, load_text_encoder

BLANK = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)


def image_encoder(folder: Path):
    return load_image_encoder(ImageModel(name=str(folder)))


def test_weights_in_several_files_are_the_same_model(tiny_vision, tmp_path):
    folder = sharded(tiny_vision, tmp_path / "sharded")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    with torch.inference_mode():
        assert torch.allclose(image_encoder(folder)(BLANK), image_encoder(tiny_vision)(BLANK), atol=1e-6)


def test_the_digest_of_several_files_changes_with_each_of_them(tiny_vision, tmp_path):
    folder = sharded(tiny_vision, tmp_path / "sharded")
    settings = ImageModel(name=str(folder))
    digests = {configured_weights_sha256(settings)}
    assert digests == {weights_sha256(image_encoder(folder))}
    shards = sorted(folder.glob("model-*.safetensors"))
    for shard in shards:
        state = load_file(shard)
        name = next(iter(state))
        save_file(state | {name: state[name] + 1}, shard, {"format": "pt"})
        digests.add(configured_weights_sha256(settings))
    assert len(digests) == len(shards) + 1


def test_the_digest_of_one_file_is_that_of_its_bytes(tiny_vision, tmp_path):
    digest = sha256_of_file(tiny_vision / "model.safetensors")
    assert configured_weights_sha256(ImageModel(name=str(tiny_vision))) == digest
    pickled = Path(shutil.copytree(tiny_vision, tmp_path / "pickled"))
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    digest = sha256_of_file(pickled / "pytorch_model.bin")
    assert configured_weights_sha256(ImageModel(name=str(pickled))) == digest == weights_sha256(image_encoder(pickled))
    with torch.inference_mode():
        assert torch.allclose(image_encoder(pickled)(BLANK), image_encoder(tiny_vision)(BLANK), atol=1e-6)


def test_files_that_the_index_names_and_that_are_missing_are_listed(tiny_vision, tmp_path):
    folder = sharded(tiny_vision, tmp_path / "sharded")
    shards = sorted(folder.glob("model-*.safetensors"))
    shards[1].unlink()
    with pytest.raises(ConfigurationError, match=f"names {len(shards)} files of .* 1 of them .*{shards[1].name}"):
        image_encoder(folder)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"weight_map": 3}', '{"weight_map": {"a": [1]}}', "\0\1"])
def test_an_index_that_is_none(tiny_vision, tmp_path, content):
    folder = Path(shutil.copytree(tiny_vision, tmp_path / "odd"))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ConfigurationError, match="model.safetensors.index.json"):
        image_encoder(folder)


@pytest.mark.parametrize("fixture", ["tiny_vision", "tiny_sentences"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "run `git lfs pull`"),
        (b"<!DOCTYPE html><title>404</title>", "It is an HTML page"),
        (b"", "not a whole safetensors file"),
        (None, "not a whole safetensors file"),
    ],
)
def test_damaged_weights_are_a_sentence(request, tmp_path, fixture, content, says):
    folder = Path(shutil.copytree(request.getfixturevalue(fixture), tmp_path / "odd"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100] if content is None else content)
    load, settings = (load_image_encoder, ImageModel) if fixture == "tiny_vision" else (load_text_encoder, TextModel)
    with pytest.raises(ConfigurationError, match=f"{weights} is .*{says}"):
        load(settings(name=str(folder)))


def test_quantised_weights_are_refused(tiny_vision, tmp_path):
    folder = changed_weights(
        tiny_vision,
        tmp_path / "int8",
        lambda state: {name: tensor.to(torch.int8) if tensor.ndim > 1 else tensor for name, tensor in state.items()},
    )
    with pytest.raises(ConfigurationError, match=r"holds \d+ quantised weights, .*as it was before, in float32"):
        image_encoder(folder)
    said = {"quant_method": "gptq", "bits": 4}
    folder = changed_json(tiny_vision, tmp_path / "gptq", "config.json", quantization_config=said)
    with pytest.raises(ConfigurationError, match=r"are quantised \(.*gptq\)"):
        image_encoder(folder)


def test_pickled_weights_run_no_code(tiny_vision, tmp_path, monkeypatch):
    class Hostile:
        def __reduce__(self):
            return os.system, ("touch was-here",)

    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(tiny_vision, tmp_path / "hostile"))
    (folder / "model.safetensors").unlink()
    torch.save({"a": Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match="could not be loaded .*Weights only load failed"):
        image_encoder(folder)
    assert not Path("was-here").exists()


@pytest.mark.parametrize("content", ["{", '{"model_type": "zzz"}', '{"model_type": "vit", "hidden_size": "many"}'])
def test_a_configuration_that_cannot_be_read(tiny_vision, tmp_path, content):
    folder = Path(shutil.copytree(tiny_vision, tmp_path / "odd"))
    (folder / "config.json").write_text(content)
    with pytest.raises(ConfigurationError, match="could not be loaded"):
        image_encoder(folder)


def test_a_folder_without_weights(tiny_vision, tmp_path):
    folder = Path(shutil.copytree(tiny_vision, tmp_path / "empty"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigurationError, match="could not be loaded .*no file named model.safetensors"):
        image_encoder(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "vit"
