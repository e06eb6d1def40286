"""The optimiser step, guarded on the device: no step is taken with a loss or a gradient that is not finite.

Whether they are finite is a number on the device, and the fused AdamW reads it there (`found_inf`, as GradScaler
gives it). The host reads it a step later, when the device has the next step to do, and raises an error then. Until it
reads it, no further step is taken, so the weights stay those of the last good step.

With `train.precision: fp16`, the loss is multiplied by a scale, so that small gradients are no zeros in float16
(Micikevicius et al., ICLR 2018, arXiv 1710.03740). Gradients that overflow are then no error: the step is skipped and
the scale is halved. A scale that has become too small is an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cusa.config.losses import LOSS_TERMS
from cusa.config.training import Train
from cusa.errors import TrainingError
from cusa.losses import CUSALoss, Losses
from cusa.training.host_copy import HostCopy
from cusa.training.sharding import multiply, total_norm

SHOWN_IMAGES = 5
FIRST_SCALE = 2.0**16
SMALLEST_SCALE = 2.0**-10  # if gradients overflow even with this scale, the model has diverged


@dataclass(frozen=True)
class Report:
    """The values of a step that the host reads while the next step is computed.

    `values` are, of each of its batches, the total, contrastive, cross and uni loss; then the norm of the gradients,
    and the scale of the loss. `images` are the first images of each batch, int64 [n].
    """

    epoch: int
    step: int
    values: HostCopy
    images: Sequence[Tensor]

    @property
    def place(self) -> str:
        """The epoch and the step, counted from 1 as in the log."""
        return f"epoch {self.epoch + 1}, step {self.step + 1}"


class Guard:
    """Takes the optimiser's steps for a module; `device` is that of its weights."""

    def __init__(
        self, module: nn.Module, loss: CUSALoss, optimiser: torch.optim.AdamW, settings: Train, device: torch.device
    ) -> None:
        """`optimiser` is fused. `loss` gives the temperatures for messages."""
        self.module, self.loss, self.optimiser, self.settings = module, loss, optimiser, settings
        self.scaler = torch.amp.GradScaler(device.type, FIRST_SCALE, enabled=settings.precision == "fp16")
        self._failed = torch.zeros((), dtype=torch.bool, device=device)
        self._report: Report | None = None

    def scaled(self, loss: Tensor) -> Tensor:
        """A loss, multiplied by the scale of `train.precision: fp16`; the same loss otherwise."""
        scaled: Tensor = self.scaler.scale(loss)
        return scaled

    def step(self, losses: Sequence[Losses], images: Sequence[Tensor], epoch: int, step: int) -> None:
        """Take an optimiser step with the gradients of the parameters, if they and the losses are finite.

        `losses` and `images` (their positions, int64 [B]) are those of each batch of the step. Raises TrainingError if
        the losses or the gradients of the step before were not finite.
        """
        values = self.guarded(losses)
        report = Report(epoch, step, HostCopy(values), [each[:SHOWN_IMAGES] for each in images])
        self.check()
        self._report = report

    def guarded(self, losses: Sequence[Losses]) -> Tensor:
        """Take the step on the device. Returns its values (see Report), float32 [n], without waiting for them."""
        terms = torch.stack([term for each in losses for term in each.terms()]).float()
        scale = self._scale()
        self.scaler.unscale_(self.optimiser)
        norm = clip_gradients(self.module.parameters(), self.settings.gradient_clip)
        sound = norm.isfinite()
        self._failed |= ~terms.isfinite().all()
        if not self.scaler.is_enabled():
            self._failed |= ~sound
        self.optimiser.found_inf = (self._failed | ~sound).float()  # type: ignore[attr-defined]
        self.optimiser.step()
        self.scaler.update()
        return torch.cat([terms, torch.stack([norm.float(), scale])])

    def _scale(self) -> Tensor:
        if self.scaler.is_enabled():
            return self.scaled(torch.ones((), device=self._failed.device))
        return torch.ones((), device=self._failed.device)

    def check(self) -> None:
        """Raise TrainingError if the losses or gradients of the last step were not finite; waits for that step."""
        report, self._report = self._report, None
        if report is None:
            return
        *terms, norm, scale = report.values.read()
        for number, images in enumerate(report.images):
            width = 1 + len(LOSS_TERMS)  # the total, then each term
            total, *parts = terms[width * number : width * (number + 1)]
            if not math.isfinite(total):
                raise self._loss_error(report, parts, images)
        if self.scaler.is_enabled():
            if scale < SMALLEST_SCALE:
                raise TrainingError(
                    f"the gradients of float16 overflow at {report.place}, although the loss "
                    f"is multiplied by {scale:g} only: the model has diverged. Nothing was saved since. Lower "
                    "train.lr, set train.gradient_clip, or use train.precision: bf16."
                )
        elif not math.isfinite(norm):
            raise TrainingError(
                f"the gradients are not finite at {report.place} (norm {norm:g}), but the "
                f"loss is; temperatures {self._scalars()}. No optimiser step was taken with them. Lower train.lr, "
                "raise the lower bounds of learned temperatures, or use train.precision: fp32."
            )

    def _loss_error(self, report: Report, parts: Sequence[float], images: Tensor) -> TrainingError:
        terms = ", ".join(f"{name} {value:g}" for name, value in zip(LOSS_TERMS, parts, strict=True))
        return TrainingError(
            f"the loss is not finite at {report.place}: {terms}; temperatures "
            f"{self._scalars()}; first images of the batch (positions in train): {images.tolist()}. No optimiser step "
            "was taken with it. Lower train.lr, set train.gradient_clip, or use train.precision: fp32."
        )

    def _scalars(self) -> dict[str, float]:
        return self.loss.temperature_values() | self.loss.bias_values()

    def state(self) -> dict[str, Any]:
        """The state that a training needs to continue: the scale of the loss; empty without one."""
        return dict(self.scaler.state_dict())

    def load(self, state: dict[str, Any]) -> None:
        """Continue with a saved state."""
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state)


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float | None) -> Tensor:
    """The norm of all gradients together, a scalar. Gradients are scaled to the norm `largest` if theirs is greater.

    A norm that is not finite scales nothing. Nothing waits for a GPU. If weights are divided among processes, each
    process calls this.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = total_norm(gradients)
    if largest is not None:
        multiply(gradients, torch.clamp(largest / (torch.where(norm.isfinite(), norm, 0.0) + 1e-6), max=1.0))
    return norm
