"""The optimiser step that is guarded on the device, with a loss of float32 and with a scaled one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cusa.config.losses import LossConfiguration
from cusa.config.section import validate
from cusa.config.training import Train
from cusa.errors import TrainingError
from cusa.losses import CUSALoss, Losses
from cusa.training.guard import Guard, clip_gradients

IMAGES = torch.arange(8, 16)
CPU = torch.device("cpu")


class Fitting:
    """A weight that is fitted to a number, by a guard."""

    def __init__(self, **settings: object) -> None:
        self.loss = CUSALoss(validate(LossConfiguration, {"contrastive": {}}))
        self.weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        module = torch.nn.ParameterList([self.weight])
        optimiser = torch.optim.AdamW(module.parameters(), lr=0.1, fused=True)
        self.guard = Guard(module, self.loss, optimiser, Train(epochs=1, **settings), CPU)
        self.number = 0

    def step(self, factor: float = 1.0, loss: float | None = None) -> list[float]:
        """Take a step with gradients that are multiplied by `factor`; the weights after it."""
        self.guard.optimiser.zero_grad()
        total = (self.weight**2).sum()
        self.guard.scaled(total).backward()
        assert self.weight.grad is not None
        self.weight.grad *= factor
        zero = torch.zeros(())
        losses = Losses(total.detach() if loss is None else torch.tensor(loss), zero, zero)
        self.guard.step([losses], [IMAGES], epoch=3, step=self.number)
        self.number += 1
        return self.weight.tolist()


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


def test_a_loss_that_is_not_finite_is_an_error_that_names_its_term_and_its_batch():
    fitting = Fitting(accumulate=2)
    good, bad = (Losses(torch.ones(()), torch.ones(()), torch.tensor(value)) for value in (0.5, float("inf")))
    fitting.guard.step([good, bad], [torch.arange(8), IMAGES], epoch=3, step=7)
    with pytest.raises(
        TrainingError, match=r"not finite at epoch 4, step 8: contrastive 1, cross 1, uni inf; .*\[8, 9"
    ):
        fitting.guard.check()


def test_after_a_loss_that_is_not_finite_no_step_is_taken():
    fitting = Fitting()
    before = fitting.step()
    assert fitting.step(loss=float("nan")) == before
    fitting.guard._report = None  # as if the host had not come to reading it
    assert fitting.step() == before


def test_gradients_that_overflow_in_float16_are_left_out_and_halve_the_scale():
    fitting = Fitting(precision="fp16")
    first = fitting.step()
    assert first != [1.0, 2.0]
    assert fitting.guard.state()["scale"] == 65536
    assert fitting.step(float("inf")) == first
    assert fitting.guard.state()["scale"] == 32768
    assert fitting.step() != first
    fitting.guard.check()


def test_the_scale_changes_no_gradient():
    plain, scaled = Fitting(gradient_clip=0.5), Fitting(gradient_clip=0.5, precision="fp16")
    for _ in range(5):
        assert plain.step() == scaled.step()


def test_a_scale_that_falls_for_ever_is_an_error():
    fitting = Fitting(precision="fp16")
    with pytest.raises(TrainingError, match=r"overflow at epoch 4, step [23]\d, .* multiplied by 0\.000\d+ only"):
        for _ in range(40):
            fitting.step(float("nan"))


def test_a_loss_that_is_not_finite_is_an_error_in_float16_too():
    fitting = Fitting(precision="fp16")
    before = fitting.step()
    assert fitting.step(loss=float("nan")) == before
    with pytest.raises(TrainingError, match="loss is not finite at epoch 4, step 2"):
        fitting.guard.check()


def test_the_scale_goes_on_where_it_was_saved():
    fitting, other = Fitting(precision="fp16"), Fitting(precision="fp16")
    fitting.step(float("inf"))
    other.guard.load(fitting.guard.state())
    other.step()
    assert other.guard.state()["scale"] == 32768
    assert other.guard.state()["_growth_tracker"] == 1
    assert Fitting().guard.state() == {}


def test_the_host_reads_nothing_but_the_report_of_the_step_before(monkeypatch):
    """What a step does on the device needs no number of it: on a GPU, nothing waits."""
    fitting, read = Fitting(gradient_clip=1.0), []
    monkeypatch.setattr(Tensor, "item", lambda tensor: read.append(tensor))
    monkeypatch.setattr(Tensor, "__bool__", lambda tensor: read.append(tensor))
    monkeypatch.setattr(Tensor, "__float__", lambda tensor: read.append(tensor))
    losses = Losses(torch.ones(()), torch.ones(()), torch.ones(()))
    fitting.weight.grad = torch.ones(2)
    fitting.guard.guarded([losses])
    assert not read
