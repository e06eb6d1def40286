"""Exports to safetensors: a folder that stands alone, for every kind of student."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from runs_to_export import RUNS, tower, untrained_run

import cusa
from cusa.annotations.tables import CAPTIONS, IMAGES, read_table
from cusa.common.files import read_json, sha256_of_file, write_json
from cusa.config.models import ImageModel, StudentSettings, TextModel
from cusa.errors import ConfigurationError, DataError
from cusa.export.exporting import ExportOptions, export
from cusa.model.run_model import Model
from cusa.student.backbones import FrozenDimensions
from cusa.student.registry import load_backbone
from cusa.teachers.registry import load_image_encoder, load_text_encoder


@pytest.fixture(scope="module")
def data(shapes_data) -> tuple[list[str], list[str]]:
    """Paths of the pictures of val, and their captions."""
    images, captions = (read_table(shapes_data / "annotations", name).to_pylist() for name in (IMAGES, CAPTIONS))
    paths = [row["image_path"] for row in images if row["split"] == "val"]
    return paths, [row["caption"] for row in captions if row["split"] == "val"]


def timm_run(get) -> Path:
    """A trainable tower of timm, and the vision side of a CLIP that is not a whole model of its own."""
    import timm
    from timm.models import save_for_hf

    folder = get("tmp_path_factory").mktemp("timm")
    save_for_hf(timm.create_model("resnet10t", pretrained=False, num_classes=3), folder, safe_serialization=True)
    image = tower(folder, image_size=32)
    towers = {"image": image, "text": tower(get("tiny_sentences"), trainable=False), "dimension": 12}
    student = {"towers": towers}
    return untrained_run(get("shapes_data"), get("tiny_configuration"), student, "a_timm", FrozenDimensions(0, 20))


def clip_side_run(get) -> Path:
    """A frozen tower that is the vision side of a CLIP."""
    image = tower(get("tiny_clip"), trainable=False)
    towers = {"image": image, "text": tower(get("tiny_sentences")), "dimension": 12}
    student = {"towers": towers}
    return untrained_run(get("shapes_data"), get("tiny_configuration"), student, "a_side", FrozenDimensions(32, 0))


KINDS = {**RUNS, "timm": timm_run, "side of a CLIP": clip_side_run}


@pytest.mark.parametrize("kind", KINDS)
def test_a_moved_folder_embeds_as_the_run_does(request, kind, data, tmp_path):
    (paths, texts), run = data, KINDS[kind](request.getfixturevalue)
    told = export(run, "safetensors", tmp_path / "out", ExportOptions())
    modes = {path.stat().st_mode for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "out/cusa.json").stat().st_mode}
    moved = Path(shutil.move(tmp_path / "out", tmp_path / "elsewhere"))
    model, found = cusa.load(run, device="cpu"), cusa.load(moved, device="cpu")
    assert isinstance(found, Model)
    for head in ("cross", "uni"):
        assert np.allclose(found.encode_image(paths, head), model.encode_image(paths, head), atol=1e-5)
        assert np.allclose(found.encode_text(texts, head), model.encode_text(texts, head), atol=1e-5)
    assert (found.weights_sha256, found.folder) == (model.weights_sha256, moved)
    assert found.configuration.captions == model.configuration.captions
    assert any("efficientnet-lite0" in line for line in told) == (kind == "demo")


def test_nothing_else_is_needed(request, tiny_configuration, tmp_path, data):
    """The folders that the models of the run came from are gone."""
    sources = {}
    for name in ("tiny_vision", "tiny_sentences"):
        sources[name] = shutil.copytree(request.getfixturevalue(name), tmp_path / name)
    towers = {"image": tower(sources["tiny_vision"], trainable=False), "text": tower(sources["tiny_sentences"])}
    results = tmp_path / "results/shapes"
    student = {"towers": towers | {"dimension": 12}}
    run = untrained_run(results, tiny_configuration, student, "towers", FrozenDimensions(24, 0))
    expected = cusa.load(run, device="cpu").encode_text("a red circle")
    export(run, "safetensors", tmp_path / "out", ExportOptions())
    for folder in (*sources.values(), tmp_path / "results"):
        shutil.rmtree(folder)
    model = cusa.load(tmp_path / "out", device="cpu")
    assert np.allclose(model.encode_text("a red circle"), expected, atol=1e-6)
    assert model.encode_image(data[0]).shape == (8, 12)
    assert not {path.suffix for path in (tmp_path / "out").rglob("*")} & {".bin", ".pt", ".pkl"}


def test_a_vision_model_without_a_pooler_stays_without_one(request, tiny_configuration, tiny_sentences, tmp_path, data):
    from model_files import changed_weights, without

    plain = changed_weights(request.getfixturevalue("tiny_vision"), tmp_path / "vision", without("pooler."))
    student = {"towers": {"image": tower(plain), "text": tower(tiny_sentences), "dimension": 12}}
    run = untrained_run(tmp_path / "results/shapes", tiny_configuration, student, "towers")
    export(run, "safetensors", tmp_path / "out", ExportOptions())
    expected = cusa.load(run, device="cpu").encode_image(data[0])
    assert np.allclose(cusa.load(tmp_path / "out", device="cpu").encode_image(data[0]), expected, atol=1e-5)


def test_the_models_in_the_folder_start_another_training(request, tmp_path):
    """As docs/coming-from.md says: by their folders, as a student and as towers."""
    for kind in ("imported", "towers"):
        run = RUNS[kind](request.getfixturevalue)
        export(run, "safetensors", tmp_path / kind, ExportOptions())
    trained = cusa.load(tmp_path / "imported").encoder.student.backbone.state_dict()
    student = load_backbone(StudentSettings(name=str(tmp_path / "imported/student"))).state_dict()
    assert student.keys() == trained.keys()
    assert all(torch.equal(student[name], trained[name]) for name in trained)
    trained = cusa.load(tmp_path / "towers").encoder.student.backbone
    image = load_image_encoder(ImageModel(name=str(tmp_path / "towers/image_tower"))).state_dict()
    text = load_text_encoder(TextModel(name=str(tmp_path / "towers/text_tower"))).state_dict()
    for found, expected in ((image, trained.image_tower.state_dict()), (text, trained.text_tower.state_dict())):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_one_head_alone(request, tmp_path):
    run = RUNS["clip"](request.getfixturevalue)
    export(run, "safetensors", tmp_path / "out", ExportOptions(head="uni"))
    model = cusa.load(tmp_path / "out", device="cpu")
    expected = cusa.load(run, device="cpu").encode_text("a red circle", head="uni")
    assert np.allclose(model.encode_text("a red circle", head="uni"), expected, atol=1e-6)
    with pytest.raises(ConfigurationError, match="holds the head uni only"):
        model.encode_text("a red circle")


def test_a_resnet_clip_needs_no_fetched_weights(monkeypatch):
    """The network is built without OpenAI's weights, which the folder has."""
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer

    from cusa.student.open_clip_models import OpenClip

    asked = []
    small = {"embed_dim": 16, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}

    def create(name, pretrained, **_):
        asked.append(pretrained)
        network = open_clip.CLIP(**small, text_cfg=text)
        network.visual.preprocess_cfg = open_clip.transform.PreprocessCfg(size=64).__dict__
        return network

    monkeypatch.setattr(open_clip, "create_model", create)
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda _: SimpleTokenizer(context_length=16))
    settings = StudentSettings(name="RN50", max_tokens=16)
    assert OpenClip.load(settings, weights=False).dimension == 16
    OpenClip.load(settings)
    assert asked == [None, "openai"]


def test_the_baseline_of_two_teachers_has_nothing_to_export(shapes_data, tiny_configuration, tmp_path):
    from cusa.config.configuration import load
    from cusa.layout import DatasetFolder
    from cusa.runs.baseline import write_baseline

    experiments = {"teachers": {"baseline": "teachers"}}
    run = DatasetFolder(shapes_data).run("teachers_to_export", 23)
    write_baseline(run, load({**tiny_configuration, "experiments": experiments}).run("teachers", 23))
    with pytest.raises(ConfigurationError, match="share no space"):
        export(run, "safetensors", tmp_path / "out", ExportOptions())
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory) -> Path:
    """The export of a run with the demo's towers."""
    output = tmp_path_factory.mktemp("demo") / "out"
    export(RUNS["demo"](request.getfixturevalue), "safetensors", output, ExportOptions())
    return output


def test_other_weights_of_a_package_are_told(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    write_json(tmp_path / "cusa.json", read_json(folder / "cusa.json") | {"named": {"image_tower": "0" * 64}})
    with pytest.raises(ConfigurationError, match="with the model efficientnet-lite0, whose weights had the sha256 0"):
        cusa.load(tmp_path, device="cpu")


def test_damaged_and_missing_weights_are_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(DataError, match="is not a complete safetensors file"):
        cusa.load(tmp_path, device="cpu")
    weights.unlink()
    with pytest.raises(DataError, match=r"model.safetensors does not exist; delete .*, and export the run again"):
        cusa.load(tmp_path, device="cpu")


def test_weights_of_another_model_are_told(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    del tensors["student.heads.cross_text.1.weight"]
    save_file(tensors | {"student.odd": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"lacks 1 tensors and has 1 others, for instance heads.cross_text.1.weight"):
        cusa.load(tmp_path, device="cpu")


def test_an_export_says_what_it_is_of(folder, shapes_data):
    about = read_json(folder / "cusa.json")
    run = shapes_data / "runs/as_the_demo/seed23"
    assert about["format"] == "safetensors"
    assert about["weights_sha256"] == sha256_of_file(run / "best.safetensors")
    assert (about["dataset"], about["experiment"], about["seed"]) == ("shapes", "cusa", 23)
    assert about["heads"] == ["cross", "uni"]
    assert about["shards"]["shorter_side"] == 32
