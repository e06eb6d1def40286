"""Weights of any type become float32, and weights that features depend on are never random."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from model_files import changed_json, changed_weights, stored_as, upcast, without
from safetensors.torch import save_file

from cusa.config.losses import LossConfiguration
from cusa.config.models import ImageModel, StudentSettings, TextModel
from cusa.config.section import validate
from cusa.errors import ConfigurationError, CusaError
from cusa.student.student import build_student
from cusa.teachers.extraction import encode_texts
from cusa.teachers.pretrained import used_weights
from cusa.teachers.registry import load_image_encoder, load_text_encoder

PIXELS = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LOSSES = validate(LossConfiguration, {"contrastive": {}})
TYPES = [torch.float16, torch.bfloat16, torch.float64]


def image_features(folder: Path) -> torch.Tensor:
    encoder = load_image_encoder(ImageModel(name=str(folder)))
    assert {tensor.dtype for tensor in encoder.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    with torch.inference_mode():
        return encoder(PIXELS)


def text_features(folder: Path) -> np.ndarray:
    encoder = load_text_encoder(TextModel(name=str(folder)))
    assert {tensor.dtype for tensor in encoder.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    return encode_texts(encoder, ["a red circle", "a small blue cross"], 2, torch.device("cpu"))


@pytest.mark.parametrize("dtype", TYPES)
def test_teachers_are_float32_whatever_the_type_of_the_file(tiny_vision, tiny_sentences, tmp_path, dtype):
    images, texts = (stored_as(model, tmp_path / model.name, dtype) for model in (tiny_vision, tiny_sentences))
    assert torch.equal(image_features(images), image_features(upcast(images, tmp_path / "vision")))
    assert np.array_equal(text_features(texts), text_features(upcast(texts, tmp_path / "text")))


def test_a_file_of_mixed_types_is_float32(tiny_vision, tmp_path):
    mixed = changed_weights(
        tiny_vision,
        tmp_path / "mixed",
        lambda state: {name: tensor.half() if "dense" in name else tensor for name, tensor in state.items()},
    )
    assert torch.equal(image_features(mixed), image_features(upcast(mixed, tmp_path / "upcast")))


@pytest.mark.parametrize("dtype", TYPES)
def test_a_timm_folder_is_float32(tmp_path, dtype):
    import timm
    from timm.models import save_for_hf

    network = timm.create_model("resnet10t", pretrained=False, num_classes=3)
    save_for_hf(network, tmp_path, model_config={"num_classes": 3}, safe_serialization=True)
    expected = load_image_encoder(ImageModel(name=str(tmp_path), image_size=32))
    halved = changed_weights(
        tmp_path,
        tmp_path.parent / f"{tmp_path.name}-stored",
        lambda state: {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()},
    )
    encoder = load_image_encoder(ImageModel(name=str(halved), image_size=32))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    with torch.inference_mode():
        assert torch.allclose(encoder(PIXELS), expected(PIXELS), rtol=0.05, atol=0.05)
    for part in ("layer1.0.conv1.weight", "bn1.running_mean"):
        lacking = changed_weights(tmp_path, tmp_path.parent / f"{tmp_path.name}-{part}", without(part))
        with pytest.raises(ConfigurationError, match=rf"\d of \d+ weights \({part}.* are missing"):
            load_image_encoder(ImageModel(name=str(lacking), image_size=32))


def trained(folder: Path, precision: str = "fp32") -> dict[str, torch.Tensor]:
    """The weights of a student after three steps of 1e-5."""
    torch.manual_seed(0)
    student = build_student(StudentSettings(name=str(folder)), LOSSES)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-5, weight_decay=0)
    ids = torch.tensor([[2, 4, 6, 3], [2, 5, 7, 3]])
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            image, text = student.encode_image(PIXELS, "cross"), student.encode_text(ids, "cross")
            similarity = torch.nn.functional.normalize(image) @ torch.nn.functional.normalize(text).T
        torch.nn.functional.cross_entropy(20 * similarity.float(), torch.arange(2)).backward()
        optimiser.step()
        optimiser.zero_grad()
    weights = student.state_dict()
    projection = "backbone.model.visual_projection.weight"
    moved = (weights[projection] != before[projection]).float().mean()
    assert moved > 0.99, f"a step of 1e-5 moves {moved:.0%} of the weights"
    return weights


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_student_is_trained_with_float32_weights(tiny_clip, tmp_path, dtype, precision):
    """Its weights take the same course as those of the same numbers in float32."""
    stored = stored_as(tiny_clip, tmp_path / "stored", dtype)
    found, expected = trained(stored, precision), trained(upcast(stored, tmp_path / "upcast"), precision)
    assert {tensor.dtype for tensor in found.values() if tensor.is_floating_point()} == {torch.float32}
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_student_of_a_python_file_is_float32_too(tmp_path):
    (tmp_path / "half.py").write_text(
        "import torch\n"
        "from cusa.student.backbones import Backbone\n"
        "from cusa.teachers.transform import ImageTransform\n"
        "class Half(Backbone):\n"
        "    dimension, image_transform = 4, ImageTransform(8, 8, (0.5,) * 3, (0.5,) * 3)\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(4, 4).half()\n"
        "def backbone(settings):\n"
        "    return Half()\n"
    )
    student = build_student(StudentSettings(name=str(tmp_path / "half.py")), LOSSES)
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}


@pytest.mark.parametrize("part", ["layernorm.weight", "layernorm_after", "embeddings.cls_token"])
def test_image_weights_that_features_depend_on_are_never_random(tiny_vision, tmp_path, part):
    folder = changed_weights(tiny_vision, tmp_path / "lacks", without(part))
    with pytest.raises(ConfigurationError, match=rf"{folder}: \d of \d+ weights \(.*{part}.* are missing in its file"):
        image_features(folder)


def test_weights_of_another_shape_are_listed_with_both_shapes(tiny_vision, tmp_path):
    folder = changed_weights(tiny_vision, tmp_path / "shape", lambda state: state | {"layernorm.bias": torch.zeros(7)})
    with pytest.raises(ConfigurationError, match=r"layernorm.bias: \[7\] in the file, \[24\] in the model"):
        image_features(folder)


def test_without_weights_for_its_pooler_a_model_has_the_mean_of_its_last_state(tiny_vision, tmp_path, caplog):
    """A vision transformer with a classifier is stored so. A random pooler would make other features each time."""
    from transformers import AutoModel

    classifier = {"classifier.weight": torch.zeros(3, 24)}
    folder = changed_weights(
        tiny_vision,
        tmp_path / "classifier",
        lambda state: {f"vit.{name}": tensor for name, tensor in without("pooler")(state).items()} | classifier,
    )
    encoder = load_image_encoder(ImageModel(name=str(folder)))
    assert "no weights for its pooler" in caplog.text
    with torch.inference_mode():
        pixels = encoder.transform.normalise(PIXELS)
        hidden = AutoModel.from_pretrained(tiny_vision).eval()(pixel_values=pixels).last_hidden_state
        assert torch.allclose(encoder(PIXELS), hidden.mean(dim=1), atol=1e-6)


@pytest.mark.parametrize("part", ["LayerNorm.weight", "word_embeddings"])
def test_text_weights_that_features_depend_on_are_never_random(tiny_sentences, tmp_path, part):
    folder = changed_weights(tiny_sentences, tmp_path / "lacks", without(part))
    with pytest.raises(ConfigurationError, match=rf"weights \(.*{part}.* are missing in its file"):
        text_features(folder)


def test_text_weights_that_no_feature_depends_on_may_be_missing(tiny_sentences, tmp_path):
    """The mean of the words needs no pooler, and many models are stored without one."""
    folder = changed_weights(tiny_sentences, tmp_path / "no-pooler", without("pooler"))
    assert np.array_equal(text_features(folder), text_features(tiny_sentences))


@pytest.mark.parametrize("part", ["text_projection", "vision_model.post_layernorm", "token_embedding"])
def test_a_student_that_lacks_weights_is_refused(tiny_clip, tmp_path, part):
    folder = changed_weights(tiny_clip, tmp_path / "lacks", without(part))
    with pytest.raises(ConfigurationError, match=rf"weights \(.*{part}.* are missing in its file"):
        build_student(StudentSettings(name=str(folder)), LOSSES)


def test_a_student_needs_no_logit_scale(tiny_clip, tmp_path):
    folder = changed_weights(tiny_clip, tmp_path / "no-scale", without("logit_scale"))
    assert build_student(StudentSettings(name=str(folder)), LOSSES).backbone.dimension == 16


def test_the_vision_side_needs_no_weights_of_the_text_side(tiny_clip, tmp_path):
    folder = changed_weights(tiny_clip, tmp_path / "vision-only", without("text_model", "text_projection"))
    assert torch.equal(image_features(folder), image_features(tiny_clip))


def test_weights_that_are_not_finite_are_named(tiny_vision, tiny_sentences, tiny_clip, tmp_path):
    def spoilt(state):
        name = next(name for name in state if name.endswith("bias"))
        return state | {name: torch.full_like(state[name], torch.inf)}

    for model, load in (
        (tiny_vision, image_features),
        (tiny_sentences, text_features),
        (tiny_clip, lambda folder: build_student(StudentSettings(name=str(folder)), LOSSES)),
    ):
        folder = changed_weights(model, tmp_path / f"spoilt-{model.name}", spoilt)
        with pytest.raises(CusaError, match=rf"{folder}: 1 of \d+ weights \(.*bias\) hold NaN or infinite numbers"):
            load(folder)


def test_another_architecture_in_config_json_is_told(tiny_vision, tmp_path):
    folder = changed_json(tiny_vision, tmp_path / "deeper", "config.json", num_hidden_layers=2)
    with pytest.raises(ConfigurationError, match=r"layers?\.1\..* are missing in its file"):
        image_features(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{",
        b"[" * 3000,
        {"model_type": 7},
        {"hidden_size": "abc", "projection_dim": "abc"},
        {"hidden_size": -1, "projection_dim": -1},
        {"hidden_size": 7, "projection_dim": 0},
        {"num_attention_heads": 0, "text_config": 0, "vision_config": []},
        {"architectures": 3, "text_config": {"hidden_size": 1e300}, "image_size": None, "vocab_size": -3},
    ],
)
def test_a_damaged_config_is_a_sentence(tiny_vision, tiny_sentences, tiny_clip, tmp_path, content):
    folders = [tmp_path / model.name for model in (tiny_vision, tiny_sentences, tiny_clip)]
    for model, folder in zip((tiny_vision, tiny_sentences, tiny_clip), folders, strict=True):
        if isinstance(content, dict):
            changed_json(model, folder, "config.json", **content)
        else:
            shutil.copytree(model, folder)
            (folder / "config.json").write_bytes(content)
    vision, sentences, clip = map(str, folders)
    with pytest.raises(CusaError, match=tmp_path.name):
        load_image_encoder(ImageModel(name=vision))
    with pytest.raises(CusaError, match=tmp_path.name):
        load_text_encoder(TextModel(name=sentences))
    with pytest.raises(CusaError, match=tmp_path.name):
        build_student(StudentSettings(name=clip, towers=None), LOSSES)


def with_adapter(model: Path, folder: Path) -> Path:
    """A copy of a model's folder with a LoRA adapter beside the weights, as peft saves one."""
    settings = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "base_model_name_or_path": "my/base"}
    shutil.copytree(model, folder)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    name = "base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_B.weight"
    save_file({name: torch.ones(32, 4)}, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_beside_the_weights_is_refused(tiny_clip, tmp_path):
    folder = with_adapter(tiny_clip, tmp_path / "adapted")
    with pytest.raises(
        ConfigurationError, match=r"has an adapter \(adapter_config.json\)[^\n]*'my/base'[^\n]*merge_and"
    ):
        build_student(StudentSettings(name=str(folder)), LOSSES)


def test_frozen_weights_that_outputs_depend_on_are_used_and_stay_frozen():
    module = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("used", "unused")}).requires_grad_(False)
    names = [name for name, _ in module.named_parameters()]
    assert used_weights(module, names, lambda: [module["used"](torch.ones(1, 2))]) == ["used.weight", "used.bias"]
    assert not any(weight.requires_grad for weight in module.parameters())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
def test_the_prefix_of_a_wrapping_program_is_named(tiny_clip, tmp_path, prefix):
    folder = changed_weights(
        tiny_clip, tmp_path / "wrapped", lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}
    )
    with pytest.raises(ConfigurationError, match=rf"weights \([\w.]+: {prefix}[\w.]+ in the file, .*would be random"):
        build_student(StudentSettings(name=str(folder)), LOSSES)
