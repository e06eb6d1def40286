"""Students whose weights are divided among processes, tested with gloo against one process that has all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import in_processes
from safetensors.torch import load_file
from test_step import GLOBAL_BATCH, assert_same, configured, global_batches, once_each, some_pairs
from torch import nn
from training_runs import configured as configured_run
from training_runs import stopped_after_a_save, tower_student, weights_sha256

from cusa.common.files import read_json
from cusa.config.configuration import load
from cusa.config.experiments import RunConfiguration
from cusa.errors import ConfigurationError, TrainingError
from cusa.layout import DatasetFolder
from cusa.losses import CUSALoss
from cusa.student.sides import lists_of_layers
from cusa.student.student import build_student
from cusa.training.averaging import WeightAverage
from cusa.training.batches import TrainingBatch
from cusa.training.distributed import Group, join, leave
from cusa.training.guard import Guard, clip_gradients
from cusa.training.loop import Trainer, train
from cusa.training.optimisation import build_optimiser
from cusa.training.sharding import (
    divided_like,
    gathered,
    is_sharded,
    own_share,
    require_shardable,
    shard_student,
    total_norm,
)
from cusa.training.step import TrainingTask, add_gradients, parallel
from cusa.training.validation import equal_share

STEPS = 3
LORA = {"rank": 2, "alpha": 8.0}
ADAPTED = {"image": {"lora": LORA}, "text": {"last_layers": 1}}


def batches_of(global_batch: TrainingBatch, run: RunConfiguration, rank: int, ranks: int) -> list[TrainingBatch]:
    """A process's batches of a step, with each distinct image and text once: not as many in every process."""
    own, size = GLOBAL_BATCH // ranks, run.train.batch_size
    return [
        once_each(some_pairs(global_batch, slice(start, start + size)))
        for start in range(rank * own, (rank + 1) * own, size)
    ]


def outcome(run: RunConfiguration, rank: int = 0, ranks: int = 1) -> dict[str, torch.Tensor]:
    """Norms, whole weights and their average after some steps, and this process's share of the weights."""
    group = join(gpu=False)
    torch.manual_seed(0)
    student = build_student(run.student, run.losses)
    task = TrainingTask(student, CUSALoss(run.losses), run.train, group).train()
    if run.train.shard_student:
        shard_student(student, run.train, group)
    model, optimiser = parallel(task), torch.optim.SGD(build_optimiser(task, run.train).param_groups, lr=0.05)
    average = WeightAverage(task, 0.5)
    values = {}
    for step, global_batch in enumerate(global_batches(STEPS)):
        optimiser.zero_grad()
        for group_of_parameters in optimiser.param_groups:
            group_of_parameters.update(lr=0.05, weight_decay=0.0, fused=False)
        own_batches = batches_of(global_batch, run, rank, ranks)
        for number, batch in enumerate(own_batches):
            add_gradients(model, task, batch, number + 1 == len(own_batches))
        values[f"norm{step}"] = clip_gradients(task.parameters(), 0.05).log()  # to compare them relatively
        optimiser.step()
        average.update(step + 1)
        with average.in_place(), torch.no_grad():
            task.eval()
            values[f"embeddings{step}"] = gathered(
                task.heads(global_batch, task.towers(task.inputs(global_batch)))["cross_image"]
            )
            task.train()
    values |= {name: gathered(value).clone() for name, value in task.trained_state().items()}
    values |= {f"average.{name}": gathered(value).clone() for name, value in average.state().items()}
    held = sum(own_share(weight).numel() for weight in student.backbone.parameters())
    return values | {"held": torch.tensor(float(held))}


def save_outcome(run: RunConfiguration, ranks: int, folder: Path) -> None:
    rank = int(os.environ["RANK"])
    torch.save(outcome(run, rank, ranks), folder / f"{rank}.pt")
    leave()


def assert_as_one_process(run: RunConfiguration, alone: RunConfiguration, ranks: int, folder: Path) -> None:
    """Sharded processes end with the weights of one process that has all, and hold a share of them each."""
    folder.mkdir(exist_ok=True)
    in_processes(ranks, save_outcome, run, ranks, folder)
    expected = outcome(alone)
    whole = expected.pop("held").item()
    held = []
    for rank in range(ranks):
        found = torch.load(folder / f"{rank}.pt", weights_only=True)
        held.append(found.pop("held").item())
        assert_same(found, expected)
    # The unused scale of a CLIP's logits is a scalar, which every process has.
    assert sum(held) == whole + ranks - 1
    assert max(held) < 1.2 * whole / ranks


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_with_a_share_each_learn_what_one_process_learns(tiny_configuration, tmp_path, ranks):
    """Losses over all processes, clipping, and the average of the weights, which is put in their place and back."""
    torch.set_num_threads(1)
    run = configured(
        tiny_configuration,
        gather="global",
        cpu_processes=ranks,
        batch_size=GLOBAL_BATCH // ranks,
        shard_student=True,
    )
    assert_as_one_process(run, configured(tiny_configuration), ranks, tmp_path)


def test_chunks_and_accumulated_batches_of_shares_are_those_of_one_process(tiny_configuration, tmp_path):
    torch.set_num_threads(1)
    sharded = {"cpu_processes": 2, "shard_student": True}
    run = configured(tiny_configuration, gather="global", batch_size=4, chunk_size=3, **sharded)
    assert_as_one_process(run, configured(tiny_configuration), 2, tmp_path / "chunks")
    run = configured(tiny_configuration, batch_size=2, accumulate=2, **sharded)
    alone = configured(tiny_configuration, batch_size=2, accumulate=4)
    assert_as_one_process(run, alone, 2, tmp_path / "accumulated")


def test_layers_that_are_computed_again_are_gathered_again(tiny_configuration, tmp_path):
    """Layers that are divided each by itself, with checkpoint_towers."""
    torch.set_num_threads(1)
    deeper = two_layers(tiny_configuration, tmp_path)
    settings = {"cpu_processes": 2, "batch_size": 4, "gather": "global", "shard_student": True}
    run = configured(deeper, checkpoint_towers=True, **settings)
    assert_as_one_process(run, configured(deeper), 2, tmp_path / "checkpointed")


def test_adapters_beside_divided_frozen_weights(tiny_configuration, tmp_path):
    """What is saved are the trained weights only, by the names that they have without sharding."""
    torch.set_num_threads(1)
    adapted = {**tiny_configuration, "student": tiny_configuration["student"] | {"adapt": ADAPTED}}
    run = configured(adapted, gather="global", cpu_processes=2, batch_size=4, shard_student=True)
    alone = configured(adapted)
    in_processes(2, save_outcome, run, 2, tmp_path)
    expected = outcome(alone)
    expected.pop("held")
    found = torch.load(tmp_path / "0.pt", weights_only=True)
    found.pop("held")
    assert_same(found, expected)
    assert any(".lora_" in name for name in found)
    assert not any("base_layer" in name for name in found)


def check_guard(run: RunConfiguration) -> None:
    """A good step changes all shares; one whose loss is NaN in one process changes none, and ends all of them."""
    group = join(gpu=False)
    torch.manual_seed(0)
    student = build_student(run.student, run.losses)
    task = TrainingTask(student, CUSALoss(run.losses), run.train, group).train()
    shard_student(student, run.train, group)
    model, optimiser = parallel(task), build_optimiser(task, run.train)
    guard = Guard(task, task.loss, optimiser, run.train, group.device)
    before = [own_share(weight).clone() for weight in task.parameters()]
    for step, global_batch in enumerate(global_batches(2)):
        (batch,) = batches_of(global_batch, run, group.rank, 2)
        if step == 1 and group.rank == 1:
            batch.teacher_text.fill_(torch.nan)
        optimiser.zero_grad()
        losses = add_gradients(model, task, batch, True)
        guard.step([losses], [batch.image_ids], 0, step)
        now = [own_share(weight).clone() for weight in task.parameters()]
        changed = [not torch.equal(*both) for both in zip(before, now, strict=True)]
        assert any(changed) is (step == 0)
        before = now
    assert all(weight.isfinite().all() for weight in before)
    # The loss is of its own batch in each process, so one has a sound loss, whose gradients are not.
    with pytest.raises(TrainingError, match="loss is not finite" if group.rank == 1 else "gradients are not finite"):
        guard.check()
    leave()


def test_a_loss_that_is_not_finite_in_one_process_changes_no_share(tiny_configuration):
    run = configured(tiny_configuration, cpu_processes=2, batch_size=4, shard_student=True, gradient_clip=1.0)
    in_processes(2, check_guard, run)


def check_shares() -> None:
    """What is cut is put together again, also where there are fewer rows than processes."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    group = join(gpu=False)
    mesh = init_device_mesh("cpu", (group.world_size,))
    for rows in (1, 4, 7):
        whole = torch.arange(3.0 * rows).reshape(rows, 3)
        cut = distribute_tensor(whole, mesh, [Shard(0)])
        assert is_sharded(cut)
        assert not is_sharded(whole)
        again = divided_like(whole + 1, cut)
        assert torch.equal(own_share(again), own_share(cut) + 1)
        assert torch.equal(gathered(again), whole + 1)
        own_share(again).zero_()
        assert torch.equal(gathered(again), torch.zeros_like(whole))
        norm = total_norm([cut, whole])
        torch.testing.assert_close(norm, 2**0.5 * whole.norm())
    leave()


def test_tensors_are_cut_and_put_together(tiny_configuration):
    in_processes(3, check_shares)


def test_every_process_encodes_as_many_rows():
    for rows, shares in ((10, 3), (8, 4), (2, 4)):
        parts = [equal_share(rows, rank, shares) for rank in range(shares)]
        assert len({len(part) for part in parts}) == 1
        assert np.array_equal(np.concatenate(parts)[:rows], np.arange(rows))


def test_layers_are_the_lists_of_modules_of_one_class(tiny_configuration):
    run = configured(tiny_configuration)
    backbone = build_student(run.student, run.losses).backbone
    assert list(lists_of_layers(backbone)) == []  # its towers have one layer each
    layer = type(backbone.model.vision_model.encoder.layers[0])
    backbone.model.vision_model.encoder.layers.append(layer(backbone.model.config.vision_config))
    (layers,) = lists_of_layers(backbone)
    assert [layer for _, layer in layers] == list(backbone.model.vision_model.encoder.layers)


def test_a_student_that_normalises_over_the_batch_is_refused(tiny_configuration):
    run = configured(tiny_configuration)
    backbone = build_student(run.student, run.losses).backbone
    require_shardable(backbone)
    backbone.add_module("normalisation", nn.BatchNorm1d(3))
    with pytest.raises(ConfigurationError, match=r"train.shard_student.*normalises over the batch"):
        require_shardable(backbone)


def test_one_process_cannot_share(tiny_configuration):
    mapping = {**tiny_configuration, "train": tiny_configuration["train"] | {"shard_student": True}}
    with pytest.raises(ConfigurationError, match=r"shard_student is true, but there is one process.*gpus to 2 or more"):
        load(mapping)


def test_a_group_of_one_process_cannot_share(tiny_configuration):
    """As `cusa profile` starts it for two nodes with a GPU each."""
    run = configured(tiny_configuration, nodes=2, shard_student=True)
    student = build_student(run.student, run.losses)
    with pytest.raises(ConfigurationError, match=r"train.shard_student.*this is one process"):
        shard_student(student, run.train, Group())


@pytest.mark.parametrize(("key", "value"), [("precision", "fp16"), ("batch_size", "auto"), ("compile", True)])
def test_what_cannot_be_shared_is_refused(tiny_configuration, key, value):
    sharded = {"shard_student": True, "gpus": 2, key: value}
    with pytest.raises(ConfigurationError, match=rf"shard_student .*{key} (is|are) "):
        load({**tiny_configuration, "train": tiny_configuration["train"] | sharded})


def two_layers(tiny_configuration: dict, tmp_path: Path) -> dict:
    """The tiny configuration with a CLIP of two layers a tower, which are divided layer by layer."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    source, folder = Path(tiny_configuration["student"]["name"]), tmp_path / "two-layers"
    config = CLIPConfig.from_pretrained(source)
    config.text_config.num_hidden_layers = config.vision_config.num_hidden_layers = 2
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor.from_pretrained(source).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    return {**tiny_configuration, "student": {"name": str(folder), "towers": None}}


def interrupt(run: RunConfiguration, data: Path, folder: Path) -> None:
    """Stop after the third step, when the state is saved."""
    taken = []
    original = Trainer.save_or_stop

    def save_and_stop(trainer: Trainer) -> None:
        original(trainer)
        taken.append(1)
        if len(taken) == 3:
            trainer.save()
            trainer.state.wait()
            raise KeyboardInterrupt

    Trainer.save_or_stop = save_and_stop
    with pytest.raises(KeyboardInterrupt):
        train(run, DatasetFolder(data), folder)


@pytest.mark.slow
def test_a_sharded_training_that_is_interrupted_ends_bit_identical(tiny_configuration, shapes_data, tmp_path):
    """With the average of the weights, clipping and chunks; the files are as without sharding."""
    tiny_configuration = two_layers(tiny_configuration, tmp_path)
    settings = {"cpu_processes": 2, "batch_size": 4, "gather": "global", "ema_decay": 0.9, "gradient_clip": 1.0}
    run = configured_run(tiny_configuration, shard_student=True, chunk_size=3, **settings)
    in_processes(2, train, run, DatasetFolder(shapes_data), tmp_path / "undisturbed", 2)
    in_processes(2, interrupt, run, shapes_data, tmp_path / "interrupted")
    assert (tmp_path / "interrupted/state/last.pt").is_file()
    in_processes(2, train, run, DatasetFolder(shapes_data), tmp_path / "interrupted", 2)
    assert weights_sha256(tmp_path / "undisturbed") == weights_sha256(tmp_path / "interrupted")
    whole = configured_run(tiny_configuration, chunk_size=3, **settings)
    in_processes(2, train, whole, DatasetFolder(shapes_data), tmp_path / "whole", 2)
    sharded, plain = (load_file(tmp_path / name / "best.safetensors") for name in ("undisturbed", "whole"))
    assert sharded.keys() == plain.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(sharded[name], tensor, atol=2e-4, rtol=1e-3)
    metrics = [read_json(tmp_path / name / "run.json")["selection_metrics"] for name in ("undisturbed", "whole")]
    assert metrics[0]["r_mean"] == pytest.approx(metrics[1]["r_mean"], abs=5)


@pytest.mark.slow
def test_sharded_processes_that_are_stopped_by_sigterm_end_bit_identical(
    tiny_configuration, tiny_vision, tiny_sentences, shapes_data, tmp_path
):
    """Towers with dropout, in bf16."""
    towers = {**tiny_configuration, "student": tower_student(tiny_vision, tiny_sentences)}
    run = configured_run(
        towers, cpu_processes=2, batch_size=4, epochs=12, shard_student=True, precision="bf16", head_dropout=0.1
    )
    stopped_after_a_save(run, shapes_data, tmp_path / "stopped", 2)
    for folder in ("stopped", "undisturbed"):
        in_processes(2, train, run, DatasetFolder(shapes_data), tmp_path / folder, 2)
    assert weights_sha256(tmp_path / "stopped") == weights_sha256(tmp_path / "undisturbed")
