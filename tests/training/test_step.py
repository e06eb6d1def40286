"""One global batch gives the same step in processes, in chunks and in accumulated batches."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import in_processes

from cusa.common.distinct import distinct_rows
from cusa.config.configuration import Configuration, load
from cusa.config.experiments import RunConfiguration
from cusa.config.losses import Contrastive, FalseNegatives, LossConfiguration, SigmoidBias
from cusa.config.models import StudentSettings
from cusa.errors import ConfigurationError
from cusa.losses import CUSALoss
from cusa.student.backbones import FrozenDimensions, TextInput
from cusa.student.dual_encoder import DualEncoder
from cusa.student.student import Student, build_student
from cusa.training.batches import TrainingBatch, distinct_texts
from cusa.training.distributed import join, leave
from cusa.training.gradient_cache import chunks_of, rows_of
from cusa.training.step import (
    TrainingTask,
    add_gradients,
    parallel,
    require_chunkable,
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
    """Pixels, token numbers and teachers' features of made-up pairs; some captions share an image, two are the same."""
    generator = torch.Generator().manual_seed(0)
    image_ids = torch.tensor([0, 0, 1, 2, 3, 3, 3, 4])

    def batch() -> TrainingBatch:
        tokens = torch.randint(3, 20, (GLOBAL_BATCH, 6), generator=generator)
        tokens[:, -1] = 1
        tokens[5] = tokens[0]
        images = torch.randint(0, 255, (5, 3, 32, 32), dtype=torch.uint8, generator=generator)
        return TrainingBatch(
            images=images[image_ids],
            texts={"input_ids": tokens, "attention_mask": torch.ones_like(tokens)},
            teacher_image=torch.randn(5, 5000, generator=generator)[image_ids],
            teacher_text=torch.randn(GLOBAL_BATCH, 7, generator=generator),
            image_ids=image_ids,
            positive_text=torch.linspace(-0.5, 0.5, GLOBAL_BATCH),
        )

    return [batch() for _ in range(steps)]


def some_pairs(batch: TrainingBatch, pairs: slice) -> TrainingBatch:
    """Some pairs of a batch that has a row of everything for each pair."""
    texts = {key: value[pairs] for key, value in batch.texts.items()}
    teachers = batch.teacher_image[pairs], batch.teacher_text[pairs]
    return TrainingBatch(batch.images[pairs], texts, *teachers, batch.image_ids[pairs], batch.positive_text[pairs])


def once_each(batch: TrainingBatch) -> TrainingBatch:
    """The same batch with each distinct image and text once, as the loader makes it."""
    first, rows = distinct_rows(batch.image_ids.numpy())
    texts, text_rows = distinct_texts(batch.texts)
    rows = None if rows is None else torch.from_numpy(rows)
    return replace(
        batch,
        images=batch.images[first],
        texts=texts,
        teacher_image=batch.teacher_image[first],
        image_rows=rows,
        text_rows=text_rows,
        teacher_image_rows=rows,
    )


def outcome(run: RunConfiguration, rank: int = 0, ranks: int = 1, pair_by_pair: bool = False) -> dict:
    """Losses of the global batch and all weights, after some steps by one of `ranks` processes."""
    group = join(gpu=False)
    torch.manual_seed(0)
    task = TrainingTask(build_student(run.student, run.losses), CUSALoss(run.losses), run.train, group).train()
    model, optimiser = parallel(task), torch.optim.SGD(task.parameters(), lr=0.05)
    values = {}
    own, size = GLOBAL_BATCH // ranks, run.train.batch_size
    for step, global_batch in enumerate(global_batches(STEPS)):
        optimiser.zero_grad()
        starts = range(rank * own, (rank + 1) * own, size)
        own_batches = [some_pairs(global_batch, slice(start, start + size)) for start in starts]
        terms = []
        for number, batch in enumerate(own_batches):
            given = batch if pair_by_pair else once_each(batch)
            losses = add_gradients(model, task, given, number + 1 == len(own_batches))
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
    alone = outcome(configured(tiny_configuration), pair_by_pair=True)
    run = configured(tiny_configuration, gather="global", cpu_processes=ranks, batch_size=GLOBAL_BATCH // ranks)
    assert_same(by_processes(run, ranks, tmp_path / "run"), alone)


def test_chunks_change_nothing(tiny_configuration, tmp_path):
    """GradCache, with one process and with two, also if the last chunk is smaller."""
    torch.set_num_threads(1)
    alone = outcome(configured(tiny_configuration), pair_by_pair=True)
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

    alone = outcome(sigmoid(), pair_by_pair=True)
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

    alone, unmasked = outcome(masked(), pair_by_pair=True), outcome(configured(tiny_configuration))
    assert (alone["losses0"] - unmasked["losses0"] * GLOBAL_BATCH)[0].abs() > 1e-3
    assert_same(outcome(masked(chunk_size=3)), alone, tolerance=1e-5)
    run = masked(gather="global", cpu_processes=2, batch_size=4, chunk_size=3)
    assert_same(by_processes(run, 2, tmp_path / "run"), alone, tolerance=1e-5)


def test_accumulated_batches_equal_as_many_processes_with_a_loss_each(tiny_configuration, tmp_path):
    torch.set_num_threads(1)
    alone = outcome(configured(tiny_configuration, batch_size=4, accumulate=2), pair_by_pair=True)
    run = configured(tiny_configuration, cpu_processes=2, batch_size=4)
    assert_same(by_processes(run, 2, tmp_path / "run"), alone)
    both = configured(tiny_configuration, cpu_processes=2, batch_size=2, accumulate=2, chunk_size=1)
    four = configured(tiny_configuration, batch_size=2, accumulate=4)
    assert_same(by_processes(both, 2, tmp_path / "both"), outcome(four, pair_by_pair=True))


def test_without_gathering_the_loss_is_a_different_one(tiny_configuration, tmp_path):
    """This shows that the tests above can fail."""
    run = configured(tiny_configuration, cpu_processes=2, batch_size=4)
    with pytest.raises(AssertionError, match="differs by"):
        assert_same(by_processes(run, 2, tmp_path / "run"), outcome(configured(tiny_configuration)))


def gradients_of(run: RunConfiguration, batch: TrainingBatch, dtype: torch.dtype = torch.float32) -> dict:
    """The gradients of a batch by parameter."""
    batch = replace(batch, teacher_image=batch.teacher_image.to(dtype), teacher_text=batch.teacher_text.to(dtype))
    torch.manual_seed(0)
    task = TrainingTask(build_student(run.student, run.losses), CUSALoss(run.losses), run.train).to(dtype).train()
    torch.manual_seed(1)
    add_gradients(task, task, batch, True)
    return {name: value.grad for name, value in task.named_parameters() if value.grad is not None}


def test_each_distinct_image_and_text_is_encoded_once(tiny_configuration, monkeypatch):
    """In float64 the gradients are those of a step that encodes an image for each of its captions."""
    run = configured(tiny_configuration)
    encoded = []
    original = DualEncoder.tower_features

    def counting(backbone: DualEncoder, side: str, inputs: TextInput) -> torch.Tensor:
        features = original(backbone, side, inputs)
        encoded.append((side, len(features)))
        return features

    monkeypatch.setattr(DualEncoder, "tower_features", counting)
    batch = global_batches(1)[0]
    pair_by_pair = gradients_of(run, batch, torch.float64)
    once = gradients_of(run, once_each(batch), torch.float64)
    assert encoded == [("image", 8), ("text", 8), ("image", 5), ("text", 7)]
    assert_same(once, pair_by_pair, tolerance=1e-12)
    chunked = configured(tiny_configuration, chunk_size=3)
    encoded.clear()
    assert_same(gradients_of(chunked, once_each(batch), torch.float64), pair_by_pair, tolerance=1e-12)
    assert [count for side, count in encoded if side == "image"] == [1, 2, 2] * 2
    assert [count for side, count in encoded if side == "text"] == [2, 2, 3] * 2


@pytest.mark.parametrize(
    "settings",
    [{"feature_dropout": 0.5}, {"head_dropout": 0.5}, {"feature_noise": 0.5, "feature_dropout": 0.2}],
    ids=["features", "heads", "noise"],
)
def test_what_is_drawn_after_the_towers_is_drawn_for_each_pair(tiny_configuration, settings):
    """The same draws as when an image is encoded for each of its captions, at once and in chunks."""
    batch = global_batches(1)[0]
    run, chunked = configured(tiny_configuration, **settings), configured(tiny_configuration, chunk_size=3, **settings)
    pair_by_pair = gradients_of(run, batch, torch.float64)
    assert_same(gradients_of(run, once_each(batch), torch.float64), pair_by_pair, tolerance=1e-12)
    assert_same(gradients_of(chunked, once_each(batch), torch.float64), pair_by_pair, tolerance=1e-12)
    with pytest.raises(AssertionError, match="differs by"):
        assert_same(gradients_of(configured(tiny_configuration), batch, torch.float64), pair_by_pair, tolerance=1e-4)


def test_a_student_that_normalises_over_the_batch_encodes_each_pair(tiny_configuration, monkeypatch):
    """The statistics of BatchNorm would be others over distinct images."""

    class Normalising(DualEncoder):
        def image_features(self, images: torch.Tensor) -> torch.Tensor:
            return self.normalisation(super().image_features(images))

    original = build_student

    def build(student_settings: StudentSettings, losses: LossConfiguration) -> Student:
        student = original(student_settings, losses)
        student.backbone.normalisation = torch.nn.BatchNorm1d(16)
        student.backbone.__class__ = Normalising
        return student

    monkeypatch.setattr("test_step.build_student", build)
    run, batch = configured(tiny_configuration), global_batches(1)[0]
    once, pair_by_pair = (gradients_of(run, each, torch.float64) for each in (once_each(batch), batch))
    assert_same(once, pair_by_pair, tolerance=1e-12)


@pytest.mark.parametrize("frozen", ["image", "text", "both"])
def test_cached_features_of_frozen_towers_are_projected_once(
    tiny_configuration, tiny_vision, tiny_sentences, frozen, monkeypatch
):
    towers = {"image": {"name": str(tiny_vision)}, "text": {"name": str(tiny_sentences)}, "dimension": 12}
    for side in ("image", "text") if frozen == "both" else (frozen,):
        towers[side]["trainable"] = False
    tiny_configuration = {**tiny_configuration, "student": {"name": None, "towers": towers}}

    original = build_student

    def build(student_settings: StudentSettings, losses: LossConfiguration) -> Student:
        student = original(student_settings, losses, FrozenDimensions(image=6, text=5))
        for module in student.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # BERT's; captions of the same words would share their mask
        return student

    monkeypatch.setattr("test_step.build_student", build)
    batch = global_batches(1)[0]
    if frozen != "text":
        batch.images = torch.randn(5, 6)[batch.image_ids]
    if frozen != "image":
        batch.texts = torch.randn(GLOBAL_BATCH, 5)
    for chunk_size in (None, 3):
        run = configured(tiny_configuration, chunk_size=chunk_size)
        assert_same(gradients_of(run, once_each(batch)), gradients_of(run, batch))


def test_dropout_is_the_same_both_times_a_chunk_is_computed(tiny_configuration, tiny_vision, tiny_sentences):
    """BERT has dropout: with other masks in the second pass, the gradients would belong to another loss."""
    towers = {"image": {"name": str(tiny_vision)}, "text": {"name": str(tiny_sentences)}, "dimension": 12}
    tiny_configuration = {**tiny_configuration, "student": {"name": None, "towers": towers}}
    run, batch = configured(tiny_configuration, chunk_size=GLOBAL_BATCH - 1, feature_dropout=0.3), global_batches(1)[0]
    torch.manual_seed(0)
    task = TrainingTask(build_student(run.student, run.losses), CUSALoss(run.losses), run.train).train()
    torch.manual_seed(1)  # the towers chunk by chunk, but all in one graph
    inputs = task.inputs(batch)
    parts = [task.towers(rows_of(inputs, chunk)) for chunk in chunks_of(inputs, GLOBAL_BATCH - 1)]
    assert len(parts) == 2
    features = {side: torch.cat([part[side] for part in parts]) for side in inputs}
    task.losses(task.heads(batch, features), batch).total.backward()
    expected = {name: value.grad for name, value in task.named_parameters() if value.grad is not None}
    next_draw = torch.rand(())
    assert_same(gradients_of(run, batch), expected)
    assert torch.equal(torch.rand(()), next_draw)  # a chunk that is computed again does not draw again


def test_a_student_that_normalises_over_the_batch_takes_no_chunks(tiny_configuration):
    run = configured(tiny_configuration, chunk_size=2)
    student = build_student(run.student, run.losses)
    require_chunkable(student, run.train)
    student.add_module("normalisation", torch.nn.BatchNorm1d(3))
    with pytest.raises(ConfigurationError, match=r"train.chunk_size.*normalises over the batch"):
        require_chunkable(student, run.train)
