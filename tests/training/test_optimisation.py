"""Learning rates and parameter groups."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from training_runs import configured

from cusa.config.training import Train
from cusa.losses import CUSALoss
from cusa.student.student import build_student
from cusa.training.optimisation import build_optimiser, learning_rate, set_learning_rate
from cusa.training.step import TrainingTask


def test_cosine_by_epoch_is_the_published_one():
    settings = Train(epochs=30)
    for epoch in range(30):
        expected = 1e-6 + (1e-5 - 1e-6) / 2 * (1 + math.cos(math.pi * epoch / 30))
        assert learning_rate(settings, epoch, 17, 100) == pytest.approx(expected, rel=1e-12)


def test_cosine_by_step_with_warm_up():
    settings = Train(epochs=2, lr=1.0, min_lr=0.1, schedule="step", warmup_steps=4)
    rates = [learning_rate(settings, epoch, step, 10) for epoch in range(2) for step in range(10)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert all(later < earlier for earlier, later in pairwise(rates[4:]))
    assert rates[12] == pytest.approx(0.55)


def test_optimiser_groups_are_as_published(tiny_configuration):
    run = configured(tiny_configuration, weight_decay=0.5, tower_lr=0.0001)
    task = TrainingTask(build_student(run.student, run.losses), CUSALoss(run.losses), run.train)
    optimiser = build_optimiser(task, run.train)
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["weight_decay"] == (0.0 if parameter.ndim == 1 else 0.5), name
            assert group["scale"] == (pytest.approx(0.1) if "backbone.model" in name else 1.0), name
    members = {names[id(parameter)] for group in optimiser.param_groups for parameter in group["params"]}
    assert "loss.temperatures.cross" in members
    assert "loss.temperatures.cross_teacher" not in members
    assert "student.backbone.model.logit_scale" not in members


def test_a_group_has_its_own_share_of_the_learning_rate():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "scale": scale} for scale in (1.0, 0.1)]
    optimiser = torch.optim.AdamW(groups, lr=1.0)
    set_learning_rate(optimiser, 0.5)
    assert [group["lr"] for group in optimiser.param_groups] == [0.5, 0.05]
