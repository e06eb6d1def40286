"""Dual encoders, pairs of towers, frozen or not, and the heads."""

from __future__ import annotations

import pytest
import torch

from cusa.config.losses import LossConfiguration
from cusa.config.models import StudentSettings
from cusa.config.section import validate
from cusa.errors import ConfigurationError
from cusa.student.backbones import FrozenDimensions
from cusa.student.student import build_student

ALL = {"contrastive": {}, "cross_softlabel": {}, "uni_softlabel": {}}


def losses(*families: str) -> LossConfiguration:
    return validate(LossConfiguration, {name: ALL[name] for name in families})


def towers(vision, sentences, image=True, text=True, dimension=12) -> StudentSettings:
    return validate(
        StudentSettings,
        {
            "towers": {
                "image": {"name": str(vision), "trainable": image},
                "text": {"name": str(sentences), "trainable": text},
                "dimension": dimension,
            }
        },
    )


def tokens(student, captions):
    from cusa.teachers.encoders import pad_tokens

    return pad_tokens(*student.backbone.tokenise(captions))


def test_a_dual_encoder_equals_the_hugging_face_model(tiny_clip):
    from transformers import CLIPModel

    student = build_student(StudentSettings(name=str(tiny_clip)), losses(*ALL)).eval()
    reference = CLIPModel.from_pretrained(tiny_clip).eval()
    pixels = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    texts = tokens(student, ["a red circle", "a large blue triangle and a cross"])
    with torch.inference_mode():
        normalised = student.backbone.image_transform.normalise(pixels)
        image = reference.get_image_features(pixel_values=normalised).pooler_output
        text = reference.get_text_features(**texts).pooler_output
        assert torch.allclose(student.backbone.image_features(pixels), image, atol=1e-5)
        assert torch.allclose(student.backbone.text_features(texts), text, atol=1e-5)


def test_siglip_gets_captions_of_the_length_it_was_trained_at(tiny_siglip):
    from transformers import AutoTokenizer, SiglipModel

    student = build_student(StudentSettings(name=str(tiny_siglip), max_tokens=5), losses("contrastive")).eval()
    captions = ["a red circle", "blue"]
    encoded = AutoTokenizer.from_pretrained(tiny_siglip)(captions, padding="max_length", max_length=16)["input_ids"]
    with torch.inference_mode():
        reference = SiglipModel.from_pretrained(tiny_siglip).eval().get_text_features(torch.tensor(encoded))
        found = student.backbone.text_features(tokens(student, captions))
    assert torch.allclose(found, reference.pooler_output, atol=1e-5)
    assert student.backbone.image_transform.square


@pytest.fixture(scope="module")
def resnet(request):
    """RN50 with random weights in place of OpenAI's, which cannot be fetched here."""
    import open_clip

    create, patch = open_clip.create_model, pytest.MonkeyPatch()
    request.addfinalizer(patch.undo)
    torch.manual_seed(0)
    patch.setattr(open_clip, "create_model", lambda name, **_: create(name, pretrained=None))
    return build_student(StudentSettings(name="RN50"), losses(*ALL)).eval()


def test_a_resnet_clip_equals_open_clip(resnet):
    import open_clip

    captions = ["a red circle", "a large blue triangle and a cross"]
    pixels = torch.randint(0, 255, (1, 3, 224, 224), dtype=torch.uint8)
    backbone, model = resnet.backbone, resnet.backbone.model
    with torch.inference_mode():
        expected = model.encode_text(open_clip.get_tokenizer("RN50")(captions))
        assert torch.allclose(backbone.text_features(tokens(resnet, captions)), expected, atol=1e-4)
        expected = model.encode_image(backbone.image_transform.normalise(pixels))
        assert torch.allclose(backbone.image_features(pixels), expected, atol=1e-4)
    assert backbone.dimension == 1024
    assert resnet.encode_text(tokens(resnet, captions), "uni").shape == (2, 1024)
    long, pad = backbone.tokenise(["circle " * 100])
    assert (len(long[0]), pad) == (77, 0)


def test_resnets_without_open_clip_say_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ConfigurationError, match=r"needs open_clip; run pip install -e '.\[open-clip\]'"):
        build_student(StudentSettings(name="RN50x4"), losses("contrastive"))


def test_captions_are_truncated_to_max_tokens(tiny_clip):
    student = build_student(StudentSettings(name=str(tiny_clip), max_tokens=5), losses("contrastive"))
    ids, _ = student.backbone.tokenise(["a " * 40])
    assert len(ids[0]) == 5


def test_heads_are_layernorm_and_linear_initialised_as_published(tiny_clip):
    torch.manual_seed(0)
    student = build_student(StudentSettings(name=str(tiny_clip)), losses(*ALL))
    assert set(student.heads) == {"cross_image", "cross_text", "uni_image", "uni_text"}
    norm, linear = student.heads["uni_text"]
    assert norm.normalized_shape == (16,)
    assert linear.weight.shape == (16, 16)
    assert 0.015 < linear.weight.std() < 0.025


def recall(images: torch.Tensor, texts: torch.Tensor) -> float:
    """The share of texts whose own image is the nearest."""
    similarities = torch.nn.functional.normalize(texts) @ torch.nn.functional.normalize(images).T
    return float((similarities.argmax(dim=1) == torch.arange(len(texts))).float().mean())


def test_heads_that_start_at_the_identity_keep_what_the_model_finds(tiny_clip):
    """LayerNorm takes only the mean and the length of a feature away; random heads start from nothing."""
    found = {}
    for start in ("identity", "random"):
        torch.manual_seed(0)
        student = build_student(StudentSettings(name=str(tiny_clip), head_start=start), losses(*ALL))
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(400, 16, generator=generator) + 0.3
        texts = images + 0.3 * torch.randn(400, 16, generator=generator)
        with torch.inference_mode():
            sides = student.head(images, "cross", "image"), student.head(texts, "cross", "text")
        found |= {start: recall(*sides), "loaded": recall(images, texts)}
        if start == "identity":
            torch.testing.assert_close(sides[0], torch.nn.functional.layer_norm(images, (16,)))
        assert all(weight.requires_grad for weight in student.heads.parameters())
    assert found["loaded"] > 0.9
    assert found["identity"] > 0.95 * found["loaded"]
    assert found["random"] < 0.05


@pytest.mark.parametrize(
    ("families", "heads"),
    [
        (["contrastive"], {"cross_image", "cross_text"}),
        (["cross_softlabel"], {"cross_image", "cross_text"}),
        (["uni_softlabel"], {"uni_image", "uni_text"}),
    ],
)
def test_heads_of_a_family_that_is_off_do_not_exist(tiny_clip, families, heads):
    student = build_student(StudentSettings(name=str(tiny_clip)), losses(*families))
    assert set(student.heads) == heads
    missing = "uni" if "cross_image" in heads else "cross"
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert torch.equal(student.encode_image(pixels, missing), student.backbone.image_features(pixels))


def test_trainable_towers_get_gradients(tiny_vision, tiny_sentences):
    student = build_student(towers(tiny_vision, tiny_sentences), losses("contrastive"))
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    texts = tokens(student, ["red", "a circle"])
    (student.encode_image(pixels, "cross").sum() + student.encode_text(texts, "cross").sum()).backward()
    parameters = student.backbone.pretrained_parameters()
    assert sum(parameter.grad is not None for parameter in parameters) > 20
    assert student.backbone.image_projection.weight not in parameters


def test_frozen_towers_are_not_loaded_at_all(tiny_vision):
    settings = towers("no/such-vision-model", "no/such-sentence-model", image=False, text=False)
    student = build_student(settings, losses("contrastive"), FrozenDimensions(image=24, text=20))
    assert {name.split(".")[1] for name, _ in student.named_parameters() if name.startswith("backbone")} == {
        "image_projection",
        "text_projection",
    }
    assert student.encode_image(torch.ones(3, 24), "cross").shape == (3, 12)
    assert student.encode_text(torch.ones(3, 20), "cross").shape == (3, 12)


def test_one_tower_frozen(tiny_vision, tiny_sentences):
    student = build_student(
        towers(tiny_vision, tiny_sentences, image=False), losses("contrastive"), FrozenDimensions(24)
    )
    assert student.backbone.image_transform is None
    assert student.backbone.tokenises
    assert student.encode_text(tokens(student, ["red"]), "cross").shape == (1, 12)


def test_a_model_that_is_no_dual_encoder(tiny_vision, tmp_path, tiny_clip):
    import shutil

    folder = shutil.copytree(tiny_vision, tmp_path / "vit")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_clip / name, folder / name)
    with pytest.raises(ConfigurationError, match="is a ViTModel, which has no get_image_features"):
        build_student(StudentSettings(name=str(folder)), losses("contrastive"))


def test_a_name_that_cannot_be_loaded():
    with pytest.raises(ConfigurationError, match="student.name no-one/clip could not be loaded"):
        build_student(StudentSettings(name="no-one/clip"), losses("contrastive"))


def test_dropout_is_of_the_features_before_the_projection_and_inside_the_heads(tiny_vision, tiny_sentences):
    """With the features of frozen towers, against the formula: heads read the projection of what was not dropped."""
    student = build_student(
        towers(tiny_vision, tiny_sentences, image=False, text=False), losses("contrastive"), FrozenDimensions(6, 5)
    )
    student.set_dropout(features=0.5, heads=0.25)
    features = torch.randn(4, 6)
    torch.manual_seed(0)
    found = student.train().encode_image(features, "cross")
    torch.manual_seed(0)
    kept = torch.nn.functional.dropout(features, 0.5)
    assert 0 < (kept == 0).sum() < kept.numel()
    norm, linear = student.heads["cross_image"]
    inner = torch.nn.functional.dropout(norm(student.backbone.image_projection(kept)), 0.25)
    assert torch.equal(found, linear(inner))
    without_dropout = linear(norm(student.backbone.image_projection(features)))
    assert torch.equal(student.eval().encode_image(features, "cross"), without_dropout)


def test_dropout_of_a_dual_encoder_is_of_what_its_heads_read(tiny_clip):
    student = build_student(StudentSettings(name=str(tiny_clip)), losses("contrastive")).train()
    student.set_dropout(features=0.5, heads=0.0)
    pixels = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    torch.manual_seed(0)
    found = student.image_features(pixels)
    plain = student.backbone.image_features(pixels)
    assert torch.equal(found[found != 0], 2 * plain[found != 0])
    assert 0 < (found == 0).sum() < found.numel()


def test_noise_is_a_share_of_the_deviation_of_each_feature_and_only_of_training(tiny_vision, tiny_sentences):
    student = build_student(
        towers(tiny_vision, tiny_sentences, image=False, text=False), losses("contrastive"), FrozenDimensions(6, 5)
    )
    student.set_dropout(features=0.5, heads=0.0, noise=0.5)
    features = torch.randn(4, 6) * torch.arange(6)
    torch.manual_seed(0)
    found = student.train().image_features(features)
    torch.manual_seed(0)
    noisy = features + 0.5 * features.double().std(dim=0, correction=0).float() * torch.randn(4, 6)
    expected = student.backbone.image_projection(torch.nn.functional.dropout(noisy, 0.5))
    torch.testing.assert_close(found, expected)
    assert torch.equal(noisy[:, 0], features[:, 0])  # a feature that is always the same stays so
    assert torch.equal(student.eval().image_features(features), student.backbone.image_projection(features))
