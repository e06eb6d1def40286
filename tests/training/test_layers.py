"""The layers of towers, read off the names of real architectures, and the learning rates that they get."""

from __future__ import annotations

import pytest
import torch
from training_runs import configured, tower_student

from cusa.config.models import ImageModel
from cusa.errors import ConfigurationError
from cusa.losses import CUSALoss
from cusa.student.student import build_student
from cusa.teachers.registry import load_image_encoder
from cusa.training.layers import layers_below_the_top
from cusa.training.optimisation import build_optimiser
from cusa.training.step import TrainingTask


def test_towers_of_a_clip_have_their_own_layers():
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    text, vision = {**sizes, "num_hidden_layers": 2, "vocab_size": 9}, {**sizes, "num_hidden_layers": 3}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=4))
    above = layers_below_the_top(name for name, _ in model.named_parameters())
    assert above["text_model.embeddings.token_embedding.weight"] == 3
    assert above["text_model.encoder.layers.0.mlp.fc1.weight"] == 2
    assert above["text_model.encoder.layers.1.mlp.fc1.weight"] == 1
    assert above["text_model.final_layer_norm.weight"] == above["text_projection.weight"] == 0
    assert above["vision_model.embeddings.patch_embedding.weight"] == 4
    assert above["vision_model.pre_layrnorm.weight"] == 4
    assert [above[f"vision_model.encoder.layers.{n}.layer_norm1.bias"] for n in range(3)] == [3, 2, 1]
    assert above["vision_model.post_layernorm.bias"] == above["visual_projection.weight"] == 0


def test_projections_that_open_clip_defines_first_are_the_last_layer():
    names = ["positional_embedding", "text_projection", "logit_scale", "visual.class_embedding", "visual.proj"]
    names += ["visual.conv1.weight", "visual.transformer.resblocks.0.ln_1.weight", "visual.ln_post.weight"]
    names += ["transformer.resblocks.0.ln_1.weight", "transformer.resblocks.1.ln_1.weight"]
    names += ["token_embedding.weight", "ln_final.weight"]
    above = layers_below_the_top(names)
    assert above["text_projection"] == above["visual.proj"] == above["visual.ln_post.weight"] == 0
    assert above["visual.conv1.weight"] == above["visual.class_embedding"] == 2
    assert above["positional_embedding"] == above["token_embedding.weight"] == 3
    assert above["ln_final.weight"] == 0


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet10t", "efficientnet_lite0"])
def test_layers_of_timm_models_follow_the_order_of_computation(name):
    import timm

    model = timm.create_model(name, pretrained=False)
    above = layers_below_the_top(key for key, _ in model.named_parameters())
    first = next(iter(above))
    assert above[first] == max(above.values()) > 3
    order = [value for key, value in above.items() if "cls_token" not in key and "pos_embed" not in key]
    assert order == sorted(order, reverse=True)
    assert order[-1] == 0


def test_the_packaged_image_model_has_layers():
    encoder = load_image_encoder(ImageModel(name="efficientnet-lite0"))
    above = layers_below_the_top(name for name, _ in encoder.named_parameters())
    assert max(above.values()) > 3


def test_layers_have_shares_of_the_rate_of_their_tower(tiny_configuration, tiny_vision, tiny_sentences):
    towers = {**tiny_configuration, "student": tower_student(tiny_vision, tiny_sentences)}
    run = configured(towers, layer_decay=0.5, tower_lr=0.0001)
    task = TrainingTask(build_student(run.student, run.losses), CUSALoss(run.losses), run.train)
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    groups = build_optimiser(task, run.train).param_groups
    scale = {names[id(parameter)]: group["scale"] for group in groups for parameter in group["params"]}
    for side in ("image", "text"):
        of_tower = {name: share for name, share in scale.items() if f"backbone.{side}_tower" in name}
        layers = {round(share / 0.1, 6) for share in of_tower.values()}
        assert layers == {0.25, 0.5, 1.0}
        assert all(share == pytest.approx(0.025) for name, share in of_tower.items() if "embeddings" in name)
        assert all(share == pytest.approx(0.05) for name, share in of_tower.items() if ".layer.0." in name)
    assert scale["student.backbone.image_projection.weight"] == scale["loss.temperatures.cross"] == 1.0
    assert len(scale) == sum(parameter.requires_grad for parameter in task.parameters())


def test_layer_decay_without_trained_layers_is_refused(tiny_configuration, tiny_vision, tiny_sentences):
    student = tower_student(tiny_vision, tiny_sentences)
    for side in ("image", "text"):
        student["towers"][side]["trainable"] = False
    frozen = {**tiny_configuration, "student": student}
    with pytest.raises(ConfigurationError, match="`train.layer_decay` lowers the rates of pre-trained layers, but no"):
        configured(frozen, layer_decay=0.5)
    # Where another experiment has such layers, the common recipe may name it.
    whole = {"contrastive": {}, "student": tiny_configuration["student"]}
    configured({**frozen, "experiments": {"cusa": {"contrastive": {}}, "whole": whole}}, layer_decay=0.5)


def test_layer_decay_beside_adapters_alone_is_refused(tiny_configuration):
    def student(**text):
        adapt = {"image": {"lora": {"rank": 2}}, "text": {"lora": {"rank": 2}, **text}}
        return {**tiny_configuration, "student": {**tiny_configuration["student"], "adapt": adapt}}

    with pytest.raises(ConfigurationError, match="the sides of every student are frozen or have adapters"):
        configured(student(), layer_decay=0.5)
    configured(student(last_layers=1), layer_decay=0.5)


def test_the_groups_of_the_default_are_those_of_earlier_releases(tiny_configuration):
    """The state of their optimiser is in this order."""
    run = configured(tiny_configuration, tower_lr=0.0001)
    task = TrainingTask(build_student(run.student, run.losses), CUSALoss(run.losses), run.train)
    pretrained = task.student.backbone.pretrained_parameters()
    expected: dict[tuple[bool, bool], list[int]] = {}
    for parameter in task.parameters():
        if parameter.requires_grad:
            expected.setdefault((parameter in pretrained, parameter.ndim != 1), []).append(id(parameter))
    groups = build_optimiser(task, run.train).param_groups
    assert [[id(parameter) for parameter in group["params"]] for group in groups] == list(expected.values())
    assert isinstance(groups[0]["params"][0], torch.nn.Parameter)
