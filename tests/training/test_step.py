"""One global batch gives the same step in processes, in chunks and in accumulated batches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from conftest import in_processes

from cusa.config.configuration import Configuration, load
from cusa.config.experiments import RunConfiguration
from cusa.config.losses import Contrastive, FalseNegatives, SigmoidBias
from cusa.errors import ConfigurationError
from cusa.losses import CUSALoss
from cusa.student.student import build_student
from cusa.training.batches import TrainingBatch
from cusa.training.distributed import join, leave
from cusa.training.optimisation import build_optimiser
from cusa.training.step import (
    TrainingTask,
    add_gradients,
    clip_gradients,
    parallel,
    require_chunkable,
    require_finite,
)

GLOBAL_BATCH = 8
STEPS = 2


def configured(tiny_configuration, **settings) -> RunConfiguration:
    def pair(image: float, text: float, **more: bool) -> dict:
        bounds = {"min": 0.02, "max": 1.5}
        return {"image": {"start": image, **bounds}, "text": {"start": text, **bounds}, **more}

    cross = {"temperature": pair(0.4, 0.5, learned=True), "rate": 0.3}
    cross["teacher_temperature"] = pair(0.9, 0.3, learned=True, tied=False)
    uni = {"temperature": pair(0.6, 0.2, learned=True, tied=False)}
    experiment = {"contrastive": {}, "cross_softlabel": cross, "uni_softlabel": uni}
    mapping = {**tiny_configuration, "experiments": {"cusa": experiment, "contrastive": None}}
    mapping["train"] = {**tiny_configuration["train"], "batch_size": GLOBAL_BATCH, "lr": 0.01, **settings}
    configuration: Configuration = load(mapping)
    return configuration.run("cusa", 23)


def global_batches(steps: int) -> list[TrainingBatch]:
    """Pixels, token numbers and teachers' features of made-up pairs; some captions share an image."""
    generator = torch.Generator().manual_seed(0)

    def batch() -> TrainingBatch:
        tokens = torch.randint(3, 20, (GLOBAL_BATCH, 6), generator=generator)
        tokens[:, -1] = 1
        return TrainingBatch(
            images=torch.randint(0, 255, (GLOBAL_BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator),
            texts={"input_ids": tokens, "attention_mask": torch.ones_like(tokens)},
            teacher_image=torch.randn(GLOBAL_BATCH, 5000, generator=generator),
            teacher_text=torch.randn(GLOBAL_BATCH, 7, generator=generator),
            image_ids=torch.tensor([0, 0, 1, 2, 3, 3, 3, 4]),
            positive_text=torch.linspace(-0.5, 0.5, GLOBAL_BATCH),
        )

    return [batch() for _ in range(steps)]


def outcome(run: RunConfiguration, rank: int = 0, ranks: int = 1) -> dict[str, torch.Tensor]:
    """Losses of the global batch and all weights, after some steps by one of `ranks` processes."""
    group = join(gpu=False)
    torch.manual_seed(0)
    task = TrainingTask(build_student(run.student, run.losses), CUSALoss(run.losses), run.train, group).train()
    model, optimiser = parallel(task), torch.optim.SGD(task.parameters(), lr=0.05)
    values = {}
    for step, global_batch in enumerate(global_batches(STEPS)):
        optimiser.zero_grad()
        own_batches = global_batch.split(GLOBAL_BATCH // ranks)[rank].split(run.train.batch_size)
        terms = []
        for number, batch in enumerate(own_batches):
            losses = add_gradients(model, task, batch, number + 1 == len(own_batches))
            terms.append(torch.stack([losses.contrastive, losses.cross, losses.uni]))
        optimiser.step()
        values[f"losses{step}"] = group.mean(torch.stack(terms).mean(dim=0))
    return values | {name: value.clone() for name, value in task.state_dict().items()}


def save_outcome(run: RunConfiguration, ranks: int, folder: Path) -> None:
    rank = int(os.environ["RANK"])
    torch.save(outcome(run, rank, ranks), folder / f"{rank}.pt")
    leave()


def by_processes(run: RunConfiguration, ranks: int, folder: Path) -> dict[str, torch.Tensor]:
    """The same with several processes, as torchrun would start them; all must end with the same weights."""
    folder.mkdir()
    in_processes(ranks, save_outcome, run, ranks, folder)
    ends = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(ranks)]
    for other in ends[1:]:
        assert all(torch.equal(other[name], ends[0][name]) for name in ends[0])
    return ends[0]


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        difference = (found[name].double() - expected[name].double()).abs().max().item()
        assert difference <= tolerance, f"{name} differs by {difference}"


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_loss_over_all_processes_is_that_of_one(tiny_configuration, tmp_path, ranks):
    """Losses, weights and learned temperatures are equal; each process computes some rows of the loss."""
    torch.set_num_threads(1)
    alone = outcome(configured(tiny_configuration))
    run = configured(tiny_configuration, gather="global", cpu_processes=ranks, batch_size=GLOBAL_BATCH // ranks)
    assert_same(by_processes(run, ranks, tmp_path / "run"), alone)


def test_chunks_change_nothing(tiny_configuration, tmp_path):
    """GradCache, with one process and with two, also if the last chunk is smaller."""
    torch.set_num_threads(1)
    alone = outcome(configured(tiny_configuration))
    for size in (1, 3, 4, 100):
        assert_same(outcome(configured(tiny_configuration, chunk_size=size)), alone)
    run = configured(tiny_configuration, gather="global", cpu_processes=2, batch_size=4, chunk_size=3)
    assert_same(by_processes(run, 2, tmp_path / "run"), alone)


def test_the_sigmoid_loss_and_its_bias_are_the_same_over_processes_and_in_chunks(tiny_configuration, tmp_path):
    torch.set_num_threads(1)

    def sigmoid(**settings) -> RunConfiguration:
        run = configured(tiny_configuration, **settings)
        contrastive = Contrastive(kind="sigmoid", bias=SigmoidBias(start=-3.0), reduction="sum")
        return run.model_copy(update={"losses": run.losses.model_copy(update={"contrastive": contrastive})})

    alone = outcome(sigmoid())
    assert abs(alone["loss.bias"].item() + 3.0) > 1e-3  # it is learned
    assert_same(outcome(sigmoid(chunk_size=3)), alone, tolerance=1e-5)  # the loss is about 5, in float32
    run = sigmoid(gather="global", cpu_processes=2, batch_size=4, chunk_size=3)
    assert_same(by_processes(run, 2, tmp_path / "run"), alone, tolerance=1e-5)


def test_false_negatives_are_the_same_over_processes_and_in_chunks(tiny_configuration, tmp_path):
    torch.set_num_threads(1)

    def masked(**settings) -> RunConfiguration:
        run = configured(tiny_configuration, **settings)
        contrastive = Contrastive(false_negatives=FalseNegatives(teacher="either"), reduction="sum")
        return run.model_copy(update={"losses": run.losses.model_copy(update={"contrastive": contrastive})})

    alone, unmasked = outcome(masked()), outcome(configured(tiny_configuration))
    assert (alone["losses0"] - unmasked["losses0"] * GLOBAL_BATCH)[0].abs() > 1e-3
    assert_same(outcome(masked(chunk_size=3)), alone, tolerance=1e-5)
    run = masked(gather="global", cpu_processes=2, batch_size=4, chunk_size=3)
    assert_same(by_processes(run, 2, tmp_path / "run"), alone, tolerance=1e-5)


def test_accumulated_batches_equal_as_many_processes_with_a_loss_each(tiny_configuration, tmp_path):
    torch.set_num_threads(1)
    alone = outcome(configured(tiny_configuration, batch_size=4, accumulate=2))
    run = configured(tiny_configuration, cpu_processes=2, batch_size=4)
    assert_same(by_processes(run, 2, tmp_path / "run"), alone)
    both = configured(tiny_configuration, cpu_processes=2, batch_size=2, accumulate=2, chunk_size=1)
    four = configured(tiny_configuration, batch_size=2, accumulate=4)
    assert_same(by_processes(both, 2, tmp_path / "both"), outcome(four))


def test_without_gathering_the_loss_is_a_different_one(tiny_configuration, tmp_path):
    """This shows that the tests above can fail."""
    run = configured(tiny_configuration, cpu_processes=2, batch_size=4)
    with pytest.raises(AssertionError, match="differs by"):
        assert_same(by_processes(run, 2, tmp_path / "run"), outcome(configured(tiny_configuration)))


def test_dropout_is_the_same_both_times_a_chunk_is_computed(tiny_configuration, tiny_vision, tiny_sentences):
    """BERT has dropout: with other masks in the second pass, the gradients would belong to another loss."""
    towers = {"image": {"name": str(tiny_vision)}, "text": {"name": str(tiny_sentences)}, "dimension": 12}
    tiny_configuration = {**tiny_configuration, "student": {"name": None, "towers": towers}}
    gradients = []
    for chunk_size in (None, GLOBAL_BATCH - 1):
        run = configured(tiny_configuration, chunk_size=chunk_size)
        torch.manual_seed(0)
        task = TrainingTask(build_student(run.student, run.losses), CUSALoss(run.losses), run.train).train()
        batch = global_batches(1)[0]
        if chunk_size is None:  # the heads chunk by chunk, but all in one graph
            torch.manual_seed(1)
            parts = [task.heads(part) for part in batch.split(GLOBAL_BATCH - 1)]
            heads = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            task.losses(heads, batch).total.backward()
        else:
            torch.manual_seed(1)
            add_gradients(task, task, batch, True)
        gradients.append({name: value.grad for name, value in task.named_parameters() if value.grad is not None})
    assert_same(gradients[1], gradients[0])


def test_a_student_that_normalises_over_the_batch_takes_no_chunks(tiny_configuration):
    run = configured(tiny_configuration, chunk_size=2)
    student = build_student(run.student, run.losses)
    require_chunkable(student, run.train)
    student.add_module("normalisation", torch.nn.BatchNorm1d(3))
    with pytest.raises(ConfigurationError, match=r"train.chunk_size.*normalises over the batch"):
        require_chunkable(student, run.train)


def test_a_norm_that_is_not_finite_scales_no_gradient():
    """One spoiled gradient must not spoil the others; a finite norm scales them as torch does."""
    parameters = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(()))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0, 4.0]), torch.tensor(12.0)
    assert clip_gradients(parameters, None).item() == 13
    assert parameters[1].grad == 12
    assert clip_gradients(parameters, 6.5).item() == 13
    torch.testing.assert_close(parameters[0].grad, torch.tensor([1.5, 0.0, 2.0]))
    parameters[1].grad = torch.tensor(float("nan"))
    assert torch.isnan(clip_gradients(parameters, 0.1))
    torch.testing.assert_close(parameters[0].grad, torch.tensor([1.5, 0.0, 2.0]))


def test_a_loss_that_is_not_finite_is_an_error_that_names_its_term(tiny_configuration):
    run = configured(tiny_configuration, chunk_size=2)
    task = TrainingTask(build_student(run.student, run.losses), CUSALoss(run.losses), run.train)
    batch = global_batches(1)[0]
    losses = task.losses(task.heads(batch), batch)
    require_finite(losses, batch, loss=task.loss, epoch=0, step=0)
    losses.uni = losses.uni * float("inf")
    with pytest.raises(Exception, match=r"not finite at epoch 3, step 7: .*uni inf"):
        require_finite(losses, batch, loss=task.loss, epoch=3, step=7)
    assert build_optimiser(task, run.train).param_groups
