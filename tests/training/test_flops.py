"""The operations of a batch, compared with formulas and with those of a real step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from training_runs import configured

from cusa.config.losses import LossConfiguration
from cusa.config.models import StudentSettings
from cusa.config.section import validate
from cusa.layout import DatasetFolder
from cusa.losses import CUSALoss
from cusa.student.backbones import FrozenDimensions
from cusa.student.student import build_student
from cusa.training.distributed import Group
from cusa.training.flops import BatchFlops, count_flops
from cusa.training.interruption import Stop
from cusa.training.loop import Trainer
from cusa.training.step import TrainingTask
from cusa.training.synthetic import synthetic_pairs

CUSA = {"contrastive": {}, "cross_softlabel": {}, "uni_softlabel": {}}
TEACHERS = {"image": 24, "text": 20}


def losses(**families) -> LossConfiguration:
    return validate(LossConfiguration, families or CUSA)


def frozen_towers(dimension: int = 12):
    image = {"name": "efficientnet-lite0", "trainable": False}
    text = {"name": "all-MiniLM-L6-v2", "trainable": False}
    student = {"name": None, "towers": {"image": image, "text": text, "dimension": dimension}}
    return validate(StudentSettings, student)


def test_projections_and_heads_cost_what_their_formulas_say():
    """A product of [1, a] and [a, b] has 2ab operations; a gradient with respect to each factor has as many."""
    frozen, configuration = FrozenDimensions(image=40, text=30), losses()
    student = build_student(frozen_towers(), configuration, frozen)
    flops = count_flops(student, configuration, frozen, TEACHERS)
    heads = 2 * 3 * (2 * 12 * 12)  # cross and uni, forward and both gradients
    assert flops.image == 2 * (2 * 40 * 12) + heads  # the inputs of a projection need no gradient
    assert flops.caption == 2 * (2 * 30 * 12) + heads
    assert (flops.token, flops.token_squared) == (0.0, 0.0)
    similarities = 2 * (24 + 20) + 3 * 3 * (2 * 12)  # of the teachers; image-text, image-image, text-text
    assert flops.comparison == pytest.approx(similarities)


def test_without_soft_labels_no_teacher_counts():
    frozen, configuration = FrozenDimensions(image=40, text=30), losses(contrastive={})
    student = build_student(frozen_towers(), configuration, frozen)
    flops = count_flops(student, configuration, frozen, {})
    assert flops.comparison == 3 * 2 * 12
    assert flops.image == 2 * (2 * 40 * 12) + 3 * 2 * 12 * 12


@pytest.mark.parametrize("words", [3, 6, 14, 25])
@pytest.mark.parametrize("student", ["tiny_clip", "tiny_siglip"])
def test_a_batch_costs_what_its_real_step_counts(student, words, request, tiny_configuration):
    """Captions have other lengths than those that were counted; SigLIP pads all to one."""
    name = str(request.getfixturevalue(student))
    run = configured(tiny_configuration | {"student": {"name": name, "towers": None}})
    model, loss = build_student(run.student, run.losses), CUSALoss(run.losses)
    flops = count_flops(model, run.losses, FrozenDimensions(), TEACHERS)
    pairs = synthetic_pairs(model.backbone, run.losses, FrozenDimensions(), TEACHERS, images=6, words=words)
    batch = pairs[np.arange(6)]
    task = TrainingTask(model, loss, run.train)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        task(batch).total.backward()
    assert flops.of(batch) == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_counting_changes_nothing(tiny_configuration):
    run = configured(tiny_configuration, feature_dropout=0.5)
    torch.manual_seed(1)
    student, loss = build_student(run.student, run.losses).train(), CUSALoss(run.losses)
    before = {name: value.clone() for name, value in (student.state_dict() | loss.state_dict()).items()}
    state = torch.get_rng_state()
    count_flops(student, run.losses, FrozenDimensions(), TEACHERS)
    assert torch.equal(torch.get_rng_state(), state)
    after = student.state_dict() | loss.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in [*student.parameters(), *loss.parameters()])
    assert student.training


def test_frozen_weights_have_no_gradient_to_count(tiny_configuration, tiny_clip):
    whole, part = (
        configured(tiny_configuration | {"student": {"name": str(tiny_clip), "towers": None} | adapt})
        for adapt in ({}, {"adapt": {"image": {"last_layers": 0}, "text": {"last_layers": 0}}})
    )
    costs = []
    for run in (whole, part):
        student = build_student(run.student, run.losses)
        costs.append(count_flops(student, run.losses, FrozenDimensions(), TEACHERS))
    assert costs[1].image < 0.6 * costs[0].image
    assert costs[1].token < 0.6 * costs[0].token


def test_a_batch_is_the_sum_of_its_parts():
    flops = BatchFlops(image=1000.0, caption=10.0, token=5.0, token_squared=1.0, comparison=0.5)
    frozen, configuration = FrozenDimensions(image=40, text=30), losses()
    backbone = build_student(frozen_towers(), configuration, frozen).backbone
    batch = synthetic_pairs(backbone, configuration, frozen, TEACHERS, images=4, words=3)[np.arange(4)]
    assert flops.of(batch) == 4 * 1000.0 + 4 * 10.0 + 4 * 4 * 0.5
    assert flops.of(batch, compared_with=8) == 4 * 1000.0 + 4 * 10.0 + 4 * 8 * 0.5


def test_a_trainer_counts_its_batches(tiny_configuration, shapes_data, tmp_path):
    run = configured(tiny_configuration, epochs=1)
    trainer = Trainer(run, DatasetFolder(shapes_data), tmp_path / "run", Group(), Stop())
    batches = [batch for _, batches in trainer.data.steps(trainer.progress) for batch in batches]
    assert trainer.data.spent.images == sum(len(batch.images) for batch in batches)
    assert trainer.data.spent.flops == pytest.approx(sum(trainer.data.flops.of(batch) for batch in batches))
    assert trainer.data.spent.flops > 0
