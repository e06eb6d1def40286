"""What is trained of a student where that is not all: adapters, the last layers, weights by name."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from cusa.config.adaptation import Adaptation
from cusa.config.losses import LossConfiguration
from cusa.config.models import StudentSettings
from cusa.config.section import validate
from cusa.errors import ConfigurationError
from cusa.student.backbones import Backbone
from cusa.student.callable_matrices import LinearAttention, original_of, with_callable_matrices
from cusa.student.open_clip_models import OpenClip
from cusa.student.student import Student, build_student
from cusa.teachers.encoders import pad_tokens
from cusa.teachers.transform import CLIP_MEAN, CLIP_STD, ImageTransform

CAPTIONS = ["a red circle", "a large blue triangle and a cross", "small"]


def adapted(student: dict, **sides: dict) -> Student:
    """A student, of which `sides` say what is trained."""
    torch.manual_seed(0)
    settings = validate(StudentSettings, student | {"adapt": sides})
    return build_student(settings, validate(LossConfiguration, {"contrastive": {}}))


def features(student: Student) -> tuple[torch.Tensor, torch.Tensor]:
    """The features of three pictures and three captions."""
    size = student.backbone.image_transform.crop
    pixels = torch.randint(0, 255, (3, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    texts = pad_tokens(*student.backbone.tokenise(CAPTIONS))
    return student.image_features(pixels), student.text_features(texts)


def trained(student: Student) -> set[str]:
    """The names of the weights of the backbone that are trained."""
    return {name for name, weight in student.backbone.named_parameters() if weight.requires_grad}


def step(student: Student) -> None:
    """A large step of an optimiser on every weight that is trained."""
    optimiser = torch.optim.AdamW([weight for weight in student.parameters() if weight.requires_grad], lr=0.05)
    for _ in range(2):  # the first product of an adapter has a gradient once the second is not 0
        optimiser.zero_grad()
        image, text = features(student.train())
        (student.head(image, "cross", "image") * student.head(text, "cross", "text")).sum().backward()
        optimiser.step()


@pytest.fixture(scope="session")
def deep_clip(tiny_clip, tmp_path_factory):
    """A randomly initialised CLIP with three layers on each side."""
    import shutil

    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("deep-clip") / "model"
    shutil.copytree(tiny_clip, folder)
    configuration = CLIPConfig.from_pretrained(tiny_clip)
    configuration.text_config.num_hidden_layers = configuration.vision_config.num_hidden_layers = 3
    torch.manual_seed(4)
    CLIPModel(configuration).save_pretrained(folder)
    return folder


def test_adapters_start_as_the_model_that_they_adapt(deep_clip):
    plain = build_student(StudentSettings(name=str(deep_clip)), LossConfiguration()).eval()
    student = adapted({"name": str(deep_clip)}, image={"lora": {"rank": 2}}, text={"lora": {"rank": 3}}).eval()
    for found, expected in zip(features(student), features(plain), strict=True):
        assert torch.equal(found, expected)


def test_adapters_are_beside_all_linear_layers_of_the_layers(deep_clip):
    student = adapted({"name": str(deep_clip)}, image={"lora": {"rank": 2}}, text={"lora": {"rank": 3}})
    names = trained(student)
    matrices = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    assert len(names) == 2 * 2 * 3 * len(matrices)
    assert all(".lora_" in name and name.split(".lora_")[0].endswith(matrices) for name in names)
    ranks = {
        name.split(".")[1]: weight.shape[0]
        for name, weight in student.backbone.named_parameters()
        if ".lora_A." in name
    }
    assert ranks == {"vision_model": 2, "text_model": 3}


def test_one_side_has_adapters_and_the_other_is_trained_whole(deep_clip):
    names = trained(adapted({"name": str(deep_clip)}, image={"lora": {}}))
    assert {name.split(".")[1] for name in names if ".lora_" in name} == {"vision_model"}
    whole = {name for name in names if ".lora_" not in name}
    assert {name.split(".")[1] for name in whole} == {"text_model", "text_projection"}
    assert "model.text_model.embeddings.token_embedding.weight" in whole


def test_modules_choose_what_gets_an_adapter(deep_clip):
    student = adapted({"name": str(deep_clip)}, text={"lora": {"modules": ["q_proj", "layers.2.mlp.*"]}})
    names = {name.split(".lora_")[0] for name in trained(student) if ".lora_" in name}
    layers = "model.text_model.encoder.layers"
    expected = {f"{layers}.{number}.self_attn.q_proj" for number in range(3)}
    assert names == expected | {f"{layers}.2.mlp.fc1", f"{layers}.2.mlp.fc2"}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_last_layers_and_what_follows_them_are_trained(deep_clip, count):
    student = adapted({"name": str(deep_clip)}, image={"last_layers": count}, text={"last_layers": count})
    names = trained(student)
    for side, behind in (
        ("vision_model", {"model.vision_model.post_layernorm", "model.visual_projection"}),
        ("text_model", {"model.text_model.final_layer_norm", "model.text_projection"}),
    ):
        layers = {name.split(".")[4] for name in names if name.startswith(f"model.{side}.encoder.layers.")}
        assert layers == {str(number) for number in range(3 - count, 3)}
        assert behind <= {name.rpartition(".")[0] for name in names}
    assert not any("embeddings" in name or "pre_layrnorm" in name for name in names)


def test_weights_are_trained_and_frozen_by_name(deep_clip):
    names = trained(
        adapted({"name": str(deep_clip)}, image={"names": ["*norm*"], "frozen": ["layers.0"]}, text={"frozen": ["*"]})
    )
    assert not any("text" in name for name in names)
    assert {"model.vision_model.pre_layrnorm.weight", "model.vision_model.encoder.layers.1.layer_norm1.bias"} <= names
    assert all("norm" in name and ".layers.0." not in name for name in names)


def test_frozen_alone_trains_all_others(deep_clip):
    names = trained(adapted({"name": str(deep_clip)}, text={"frozen": ["token_embedding", "position_embedding"]}))
    assert not any("text_model.embeddings" in name for name in names)
    assert "model.text_model.encoder.layers.0.mlp.fc1.weight" in names
    assert "model.vision_model.embeddings.patch_embedding.weight" in names


def test_adapters_leave_out_what_is_trained_or_frozen_by_name(deep_clip):
    names = trained(adapted({"name": str(deep_clip)}, image={"lora": {}, "last_layers": 1, "frozen": ["layers.0.mlp"]}))
    adapters = {name.split(".lora_")[0] for name in names if ".lora_" in name}
    assert "model.vision_model.encoder.layers.0.self_attn.q_proj" in adapters
    assert not any(".layers.2." in name or ".layers.0.mlp." in name for name in adapters)
    assert "model.vision_model.encoder.layers.2.mlp.fc1.weight" in names


@pytest.mark.parametrize("kind", ["clip", "siglip", "towers"])
def test_merging_changes_the_embeddings_in_the_last_bits_only(
    kind, deep_clip, tiny_siglip, tiny_vision, tiny_sentences
):
    towers = {"image": {"name": str(tiny_vision)}, "text": {"name": str(tiny_sentences)}, "dimension": 12}
    student = {"clip": {"name": str(deep_clip)}, "siglip": {"name": str(tiny_siglip)}, "towers": {"towers": towers}}
    sides = {"lora": {"rank": 2, "modules": ["*"]}}
    model = adapted(student[kind], image=sides, text=sides)
    before = features(model.eval())
    step(model)
    expected = features(model.eval())
    model.merge()
    found = features(model)
    for start, merged, adapters in zip(before, found, expected, strict=True):
        assert torch.allclose(merged, adapters, atol=1e-5)
        assert not torch.allclose(merged, start, atol=1e-2)
    plain = build_student(validate(StudentSettings, student[kind]), LossConfiguration())
    assert {name for name in model.state_dict() if not name.startswith("heads")} == set(plain.state_dict())


def test_the_base_stays_and_its_digest_names_it(deep_clip, tiny_clip):
    model = adapted({"name": str(deep_clip)}, image={"lora": {}}, text={"last_layers": 1})
    frozen = {name: weight.clone() for name, weight in model.named_parameters() if name in model.frozen_names()}
    digest = model.base.sha256
    step(model)
    now = dict(model.named_parameters())
    assert all(torch.equal(now[name], weight) for name, weight in frozen.items())
    again = adapted({"name": str(deep_clip)}, image={"lora": {"rank": 2}}, text={"last_layers": 1})
    assert again.base.sha256 == digest
    model.backbone.model.vision_model.pre_layrnorm.bias.data[0] += 1
    model.base.__dict__.pop("sha256")
    assert model.base.sha256 != digest


def test_adapters_learn_with_the_rate_of_new_weights(deep_clip):
    model = adapted({"name": str(deep_clip)}, image={"lora": {}})
    pretrained = model.pretrained_parameters()
    for name, weight in model.named_parameters():
        assert (weight in pretrained) == (name.startswith("backbone.") and ".lora_" not in name)


class Stages(Backbone):
    """A student of one's own: its images go through stages of convolutions, its texts through an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.dimension, self.image_transform = 6, ImageTransform(8, 8, CLIP_MEAN, CLIP_STD)
        self.stages = nn.Sequential(*(self.stage(3 if number == 0 else 6) for number in range(2)))
        self.words = nn.Embedding(4, 6)

    @staticmethod
    def stage(channels: int) -> nn.Module:
        depthwise = nn.Conv2d(6, 6, 3, groups=6, padding=1)
        return nn.Sequential(nn.Conv2d(channels, 6, 1), depthwise, nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding=1))

    def image_features(self, images):
        return self.stages(self.image_transform.normalise(images)).mean(dim=(2, 3))

    def text_features(self, texts):
        return self.words(texts["input_ids"]).mean(dim=1)

    def tokenise(self, captions):
        return [[1, 2] for _ in captions], 0

    def pretrained_parameters(self):
        return set(self.parameters())


def adapted_stages(**sides: dict) -> Student:
    student = Student(Stages(), validate(LossConfiguration, {"contrastive": {}}))
    student.adapt(validate(Adaptation, sides))
    return student


def test_convolutions_get_adapters_and_frozen_batch_norm_stays_as_it_is():
    student = adapted_stages(image={"lora": {"rank": 2}, "last_layers": 0}).eval()
    adapters = {name.split(".lora_")[0] for name in trained(student) if ".lora_" in name}
    assert adapters == {"stages.0.0", "stages.1.0"}  # a 3 x 3 convolution gets one only where it is named
    before = {name: value.clone() for name, value in student.state_dict().items() if "running" in name}
    step(student)
    assert before
    assert all(torch.equal(student.state_dict()[name], value) for name, value in before.items())
    expected = features(student.eval())[0]
    student.merge()
    assert torch.allclose(features(student)[0], expected, atol=1e-5)


def test_a_convolution_that_is_named_gets_an_adapter_and_trained_batch_norm_learns_statistics():
    student = adapted_stages(image={"lora": {"modules": ["stages.1.3"]}, "names": ["stages.1.2"]})
    names = trained(student)
    assert {name.split(".lora_")[0] for name in names if ".lora_" in name} == {"stages.1.3"}
    assert {"stages.1.2.weight", "stages.1.2.bias", "words.weight"} <= names
    means = {name: value.clone() for name, value in student.state_dict().items() if "running_mean" in name}
    step(student)
    changed = {name for name, value in means.items() if not torch.equal(student.state_dict()[name], value)}
    assert changed == {"backbone.stages.1.2.running_mean"}
    expected = features(student.eval())[0]
    student.merge()
    assert torch.allclose(features(student)[0], expected, atol=1e-5)


class SamePadding(nn.Conv2d):
    """A convolution with arguments of its own, as models of convolutions have them."""

    def __init__(self, *sizes: int, image_size: int) -> None:
        super().__init__(*sizes)

    def forward(self, x):
        return super().forward(x)


class Standardised(nn.Conv2d):
    """A convolution whose weights are standardised when it is called."""

    def forward(self, x):
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


def test_convolutions_of_other_classes_get_adapters_where_a_plain_one_computes_the_same(monkeypatch):
    def stage(channels: int) -> nn.Module:
        return nn.Sequential(SamePadding(channels, 6, 1, image_size=8), Standardised(6, 6, 1))

    monkeypatch.setattr(Stages, "stage", staticmethod(stage))
    student = adapted_stages(image={"lora": {"rank": 2}}).eval()
    assert {name.split(".lora_")[0] for name in trained(student) if ".lora_" in name} == {"stages.0.0", "stages.1.0"}
    step(student)
    expected = features(student.eval())[0]
    student.merge()
    assert torch.allclose(features(student)[0], expected, atol=1e-5)
    assert {type(part) for stage in student.backbone.stages for part in stage} == {SamePadding, Standardised}


@pytest.mark.parametrize("mask", [None, "added", "boolean", "per_head"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_linear_attention_equals_multi_head_attention(mask, batch_first):
    torch.manual_seed(0)
    original = nn.MultiheadAttention(8, 2, batch_first=batch_first).eval()
    x = torch.randn((3, 5, 8) if batch_first else (5, 3, 8))
    boolean = torch.ones(5, 5).triu(1).bool()
    added = torch.zeros(5, 5).masked_fill(boolean, -torch.inf)
    masks = {None: None, "added": added, "boolean": boolean, "per_head": added.expand(6, 5, 5)}
    expected = original(x, x, x, need_weights=False, attn_mask=masks[mask])[0]
    linear = with_callable_matrices(original, (x, x, x))
    assert torch.allclose(linear(x, x, x, need_weights=False, attn_mask=masks[mask])[0], expected, atol=1e-6)
    assert original_of(linear) is original
    assert {weight.data_ptr() for weight in linear.parameters()} == {
        weight.data_ptr() for weight in original.parameters()
    }
    assert with_callable_matrices(original, (x, x.clone(), x)) is None  # no self-attention


@pytest.fixture
def open_clip_student():
    """A randomly initialised CLIP of open_clip, whose attention is nn.MultiheadAttention."""
    from open_clip import CLIP, get_tokenizer

    torch.manual_seed(0)
    model = CLIP(
        16,
        {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
        {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    )
    model.visual.preprocess_cfg = {"size": 16, "mean": CLIP_MEAN, "std": CLIP_STD}
    return Student(OpenClip(model, get_tokenizer("RN50"), 77), validate(LossConfiguration, {"contrastive": {}}))


def test_the_attention_of_open_clip_gets_adapters(open_clip_student):
    student = open_clip_student.eval()
    names, before = list(student.state_dict()), features(student)
    student.adapt(validate(Adaptation, {side: {"lora": {"rank": 2}} for side in ("image", "text")}))
    adapters = {name.split(".lora_")[0] for name in trained(student)}
    assert {f"model.visual.transformer.resblocks.0.attn.{name}_proj" for name in ("in", "out")} <= adapters
    assert len(adapters) == 2 * 2 * 4  # sides, layers, and attention and feed-forward with two matrices each
    for found, expected in zip(features(student.eval()), before, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)
    step(student)
    assert all(weight.grad is not None for name, weight in student.named_parameters() if ".lora_" in name)
    expected = features(student.eval())
    student.merge()
    for found, adapted_features, start in zip(features(student), expected, before, strict=True):
        assert torch.allclose(found, adapted_features, atol=1e-5)
        assert not torch.allclose(found, start, atol=1e-2)
    assert list(student.state_dict()) == names


def test_attention_without_adapters_stays_as_it_was(open_clip_student):
    open_clip_student.adapt(validate(Adaptation, {"text": {"lora": {"modules": ["c_fc"]}, "last_layers": 0}}))
    assert not any(isinstance(part, LinearAttention) for part in open_clip_student.modules())
    names = trained(open_clip_student)
    assert "model.text_projection" in names
    assert "model.transformer.resblocks.1.mlp.c_fc.lora_A.default.weight" in names
    assert "model.visual.proj" in names


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ({"image": {"last_layers": 4}}, "adapt.image.last_layers` is 4, but the image side has 3 layers; give at most"),
        ({"text": {"names": ["norms"]}}, "adapt.text.names` names norms, but no weight of the text side has a part"),
        ({"image": {"frozen": ["text_model"]}}, "image.frozen` names text_model, but no weight of the image side"),
        ({"text": {"lora": {"modules": ["query"]}}}, r"modules` names query, but no linear.*Some that can: .*\.q_proj"),
        ({"text": {"lora": {}, "last_layers": 3}}, "lora.modules` is null, but the text side has no linear layer"),
    ],
    ids=["layers", "names", "frozen", "modules", "nothing_left"],
)
def test_what_does_not_fit_the_model_is_a_sentence(deep_clip, sides, message):
    with pytest.raises(ConfigurationError, match=message):
        adapted({"name": str(deep_clip)}, **sides)


def test_a_model_without_layers_or_without_pretrained_weights_is_a_sentence(monkeypatch):
    with pytest.raises(ConfigurationError, match="adapt.text`: the model has no list of layers of one kind; name the"):
        adapted_stages(text={"last_layers": 1})
    monkeypatch.setattr(Stages, "pretrained_parameters", Backbone.pretrained_parameters)
    with pytest.raises(ConfigurationError, match="does not say which of its image weights are pre-trained"):
        adapted_stages(text={"frozen": ["words"]})


def test_lora_without_peft_says_what_to_install_and_the_last_layers_need_none(deep_clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigurationError, match=r"image.lora` needs peft; run pip install -e '.\[lora\]'"):
        adapted({"name": str(deep_clip)}, image={"lora": {}})
    adapted({"name": str(deep_clip)}, image={"last_layers": 1}).merge()
