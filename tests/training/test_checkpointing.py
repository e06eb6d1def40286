"""Gradient checkpointing of the towers: the same gradients, statistics and weights, with less kept in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_runs import configured, interrupted_after, tower_student, weights_sha256

from cusa.config.experiments import RunConfiguration
from cusa.config.losses import LossConfiguration
from cusa.config.section import validate
from cusa.config.training import Train
from cusa.errors import ConfigurationError
from cusa.layout import DatasetFolder
from cusa.losses import CUSALoss
from cusa.student.backbones import Backbone
from cusa.student.student import NOTHING_FROZEN, Student, build_student
from cusa.teachers.transform import ImageTransform
from cusa.training.batches import TrainingBatch
from cusa.training.checkpointing import checkpoint_towers
from cusa.training.loop import train
from cusa.training.step import TrainingTask, add_gradients
from cusa.training.synthetic import synthetic_pairs

PAIRS = 6
ADAPTERS = {side: {"lora": {"rank": 2, "alpha": 8.0, "dropout": 0.25}} for side in ("image", "text")}


def deep_clip(folder, layers: int):
    """A CLIP of some layers, whose attention drops out, so that random numbers matter."""
    from transformers import CLIPConfig, CLIPModel

    configuration = CLIPConfig.from_pretrained(folder)
    for part in (configuration.text_config, configuration.vision_config):
        part.num_hidden_layers, part.attention_dropout = layers, 0.25
    return CLIPModel(configuration)


def clip_student(run: RunConfiguration, layers: int) -> Student:
    student = build_student(run.student, run.losses)
    student.backbone.model = deep_clip(run.student.name, layers)
    return student


class Stages(Backbone):
    """Two stages of convolutions that normalise over the batch, and an embedding of tokens."""

    dimension = 4
    image_transform = ImageTransform(resize=8, crop=8, mean=(0.5,) * 3, std=(0.5,) * 3)

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(*[self._stage(channels) for channels in (3, 4)])
        self.words = nn.EmbeddingBag(50, 4)

    def _stage(self, channels: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU())

    def image_features(self, images: Tensor) -> Tensor:
        return self.stages(self.image_transform.normalise(images)).mean(dim=(2, 3))

    def text_features(self, texts) -> Tensor:
        return self.words(texts["input_ids"])

    def tokenise(self, captions):
        return [[1 + len(word) for word in caption.split()] for caption in captions], 0

    def pretrained_parameters(self) -> set[Tensor]:
        return set(self.parameters())


def batch_for(task: TrainingTask) -> TrainingBatch:
    teachers = {"image": 30, "text": 7}
    pairs = synthetic_pairs(
        task.student.backbone, task.loss.configuration, NOTHING_FROZEN, teachers, images=PAIRS, words=5
    )
    return pairs[np.arange(PAIRS)]


def outcome(
    student: Student, losses: LossConfiguration, kept: list[int] | None = None, **settings
) -> dict[str, Tensor]:
    """The gradients and running statistics after two batches; `kept` gets the bytes kept for each backward pass."""
    torch.manual_seed(5)
    task = TrainingTask(student, CUSALoss(losses), Train(epochs=1, batch_size=PAIRS, **settings)).train()
    for _ in range(2):
        held: dict[int, int] = {}

        def hold(tensor: Tensor, held: dict[int, int] = held) -> Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            losses_found = task(batch_for(task))
        if kept is not None:
            kept.append(sum(held.values()))
        losses_found.total.backward()
    gradients = {name: each.grad for name, each in task.named_parameters() if each.grad is not None}
    return gradients | dict(task.named_buffers())


def require_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_gradients_are_bit_identical_and_less_is_kept(tiny_configuration):
    run = configured(tiny_configuration)
    found, kept = [], {}
    for checkpointed in (False, True):
        torch.manual_seed(0)
        student = clip_student(run, layers=4)
        kept[checkpointed] = []
        found.append(outcome(student, run.losses, kept[checkpointed], checkpoint_towers=checkpointed))
    require_equal(found[1], found[0])
    assert max(kept[True]) < 0.6 * min(kept[False])


def test_gradients_of_chunks_are_bit_identical_too(tiny_configuration):
    """GradCache computes the towers without a graph first; there, nothing is kept in any case."""
    run = configured(tiny_configuration)
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        settings = Train(epochs=1, batch_size=PAIRS, chunk_size=2, checkpoint_towers=checkpointed)
        task = TrainingTask(clip_student(run, layers=2), CUSALoss(run.losses), settings).train()
        add_gradients(task, task, batch_for(task), last=True)
        found.append({name: each.grad for name, each in task.named_parameters() if each.grad is not None})
    require_equal(found[1], found[0])


def test_adapters_draw_the_same_dropout_twice(tiny_configuration):
    mapping = {**tiny_configuration, "student": tiny_configuration["student"] | {"adapt": ADAPTERS}}
    run = configured(mapping)
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        found.append(outcome(build_student(run.student, run.losses), run.losses, checkpoint_towers=checkpointed))
    require_equal(found[1], found[0])


def test_running_statistics_are_updated_once():
    losses = validate(LossConfiguration, {"contrastive": {}})
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        found.append(outcome(Student(Stages(), losses), losses, checkpoint_towers=checkpointed))
    assert found[0]["student.backbone.stages.0.1.num_batches_tracked"] == 2
    require_equal(found[1], found[0])


def test_a_layer_is_computed_a_second_time_only_in_train_mode(tiny_configuration):
    run = configured(tiny_configuration)
    student = build_student(run.student, run.losses)
    layer = student.backbone.model.vision_model.encoder.layers[0]
    calls = []
    layer.self_attn.register_forward_pre_hook(lambda *_: calls.append(1))
    checkpoint_towers(student)
    calls.clear()
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    student.eval().image_features(images).sum().backward()
    assert len(calls) == 1
    with torch.no_grad():
        student.train().image_features(images)
    assert len(calls) == 2
    student.image_features(images).sum().backward()
    assert len(calls) == 4


def test_a_training_may_be_continued_with_it(tiny_configuration, shapes_data, tmp_path, monkeypatch):
    """It is operational: it changes nothing that is learned, so an upgrade or a change of it trains nothing again."""
    run, data = configured(tiny_configuration), DatasetFolder(shapes_data)
    train(run, data, tmp_path / "whole")
    interrupted_after(11, run, shapes_data, tmp_path / "stopped", monkeypatch)
    train(configured(tiny_configuration, checkpoint_towers=True), data, tmp_path / "stopped")
    assert weights_sha256(tmp_path / "stopped") == weights_sha256(tmp_path / "whole")


def test_a_tower_that_is_not_trained_is_left_as_it_is(tiny_configuration, caplog):
    adapt = {"image": {"frozen": ["*"]}}
    run = configured({**tiny_configuration, "student": tiny_configuration["student"] | {"adapt": adapt}})
    checkpoint_towers(build_student(run.student, run.losses))
    assert "no layers of the image tower are trained" in caplog.text
    assert "text" not in caplog.text


def test_frozen_towers_have_nothing_to_checkpoint(tiny_configuration, tiny_vision, tiny_sentences):
    student = tower_student(tiny_vision, tiny_sentences)
    for side in ("image", "text"):
        student["towers"][side]["trainable"] = False
    with pytest.raises(ConfigurationError, match=r"`train.checkpoint_towers` .* both towers are frozen"):
        configured({**tiny_configuration, "student": student}, checkpoint_towers=True)
