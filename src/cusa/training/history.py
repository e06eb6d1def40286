"""The report of a training: the rows of history.parquet, and its lines in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cusa.config.experiments import RunConfiguration
from cusa.config.losses import LOSS_TERMS
from cusa.losses import CUSALoss
from cusa.training.costs import Spent, peak_of, speeds
from cusa.training.distributed import Group
from cusa.training.host_copy import HostCopy
from cusa.training.state import Progress
from cusa.training.step import StepResult

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 30.0
LEFT_OUT = "left_out_share"  # of the negatives; see false_negatives.py
LOSSES = ("loss", *(f"loss_{name}" for name in LOSS_TERMS))


class History:
    """The rows of history.parquet so far, one dictionary each, and the log of one training.

    It measures three times, in seconds of `clock`: since the last row of a step (speeds, and the share of the
    time spent waiting for data), since the last line in the log, and since the epoch started. The losses of a step are
    read from the device at the next step, or by `settle`, so that no step waits for the device.
    """

    def __init__(
        self,
        *,
        configuration: RunConfiguration,
        loss: CUSALoss,
        group: Group,
        pairs: int,
        steps_per_epoch: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pairs` are all training pairs; `loss` gives the temperatures of each row."""
        self.rows: list[dict[str, Any]] = []
        # Called with each new row, in the process that writes the files.
        self.on_row: Callable[[dict[str, Any]], None] = lambda row: None
        self.configuration, self.settings = configuration, configuration.train
        self.loss, self.group = loss, group
        self.pairs, self.steps_per_epoch = pairs, steps_per_epoch
        self.pairs_a_step = self.settings.pairs_per_batch * group.world_size * self.settings.accumulate
        self._clock = clock
        self._epoch_started = self._row_started = self._last_line = clock()
        self._first_step = self._row_step = 0
        self._spent = Spent()
        self._peak = peak_of(group.device, self.settings.precision)
        self._unread: list[tuple[HostCopy, Callable[[list[float]], None]]] = []

    def announce(self, progress: Progress) -> None:
        """Log the run, its size, and the step at which it continues."""
        if not self.group.is_main:
            return
        if progress.epoch or progress.step:
            log.info("continuing at epoch %d, step %d", progress.epoch + 1, progress.step + 1)
        log.info(
            "training %s, seed %d, on %d x %s: %d pairs, %d steps an epoch, %d of %d epochs to go",
            self.configuration.experiment,
            self.configuration.seed,
            self.group.world_size,
            self.group.device.type,
            self.pairs,
            self.steps_per_epoch,
            self.settings.epochs - progress.epoch,
            self.settings.epochs,
        )

    def start_epoch(self, progress: Progress) -> None:
        """Start measuring, before the first step of an epoch that is still to be taken."""
        self._epoch_started = self._row_started = self._last_line = self._clock()
        self._first_step = self._row_step = progress.step

    def after_step(self, progress: Progress, result: StepResult, spent: Spent) -> None:
        """Add a row every `train.log_every` steps, and a line to the log every SECONDS_BETWEEN_LINES, a step later.

        `progress.step` counts the step that was just taken. `spent` is what this process has spent on batches since it
        started.
        """
        self.settle()
        now = self._clock()
        if progress.step % self.settings.log_every == 0 or progress.step == self.steps_per_epoch:
            measured = _gpu(self.group.device) | self._speed(progress, now, spent)
            row = {"kind": "step", "epoch": progress.epoch, "step": progress.step, "lr": result.rate}
            self._unread.append((HostCopy(self._values(result)), partial(self._add_step, row, measured)))
            self._row_started, self._row_step, self._spent = now, progress.step, spent
        if self.group.is_main and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            line = partial(self._log_step, *self._pace(progress, now), progress.epoch, progress.step)
            self._unread.append((HostCopy(result.losses[-1].total.reshape(1)), line))

    def settle(self) -> None:
        """Read the last step's losses from the device, and add its row; waits for that step."""
        unread, self._unread = self._unread, []
        for copy, take in unread:
            take(copy.read())

    def after_epoch(self, progress: Progress, metrics: dict[str, float]) -> None:
        """Add the row of the epoch `progress.epoch`, with its validation `metrics`, and log it."""
        self.settle()
        seconds = self._clock() - self._epoch_started
        self._add(
            metrics | {"kind": "epoch", "epoch": progress.epoch, "step": self.steps_per_epoch, "seconds": seconds}
        )
        if self.group.is_main:
            self._log_epoch(progress, metrics["r_mean"])

    def log_early_stop(self, progress: Progress) -> None:
        """Log that training ends because `train.early_stop` epochs were no better."""
        if self.group.is_main:
            log.info("early stop: %d epochs without a better r_mean", progress.epochs_without_better())

    def _add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.on_row(row)

    def _values(self, result: StepResult) -> Tensor:
        """The losses and the share of negatives left out, if negatives are judged (means over the step's batches and
        all processes), and the loss's scalars: float32 [n]."""
        terms = torch.stack([torch.stack(part.numbers()) for part in result.losses])
        scalars = [value.detach().reshape(1) for value in self.loss.scalars().values()]
        return torch.cat([self.group.mean(terms.mean(dim=0)), *scalars])

    def _add_step(self, row: dict[str, Any], measured: dict[str, Any], numbers: list[float]) -> None:
        """Add the row of a step: its epoch and step, the numbers of `_values`, and the measurements."""
        contrastive = self.configuration.losses.contrastive
        judged = [LEFT_OUT] if contrastive is not None and contrastive.false_negatives is not None else []
        names = [*LOSSES, *judged]
        means, scalars = numbers[: len(names)], numbers[len(names) :]
        self._add(row | dict(zip(names, means, strict=True)) | self.loss.named_values(scalars) | measured)

    def _speed(self, progress: Progress, now: float, spent: Spent) -> dict[str, float | None]:
        """Speeds and memory since the last row, see `speeds`."""
        pairs = (progress.step - self._row_step) * self.pairs_a_step
        return speeds(pairs, now - self._row_started, spent - self._spent, self.group.world_size, self._peak)

    def _pace(self, progress: Progress, now: float) -> tuple[float, float]:
        """Pairs a second of all processes since the epoch started, and the seconds to its end."""
        pace = (progress.step - self._first_step) * self.pairs_a_step / max(now - self._epoch_started, 1e-9)
        return pace, (self.steps_per_epoch - progress.step) * self.pairs_a_step / pace

    def _log_step(self, pace: float, seconds_left: float, epoch: int, step: int, loss: list[float]) -> None:
        log.info(
            "epoch %d/%d, step %d/%d: loss %.4f, %.0f pairs/s, %.0f s to the end of the epoch",
            epoch + 1,
            self.settings.epochs,
            step,
            self.steps_per_epoch,
            loss[0],
            pace,
            seconds_left,
        )

    def _log_epoch(self, progress: Progress, r_mean: float) -> None:
        last_step = next((row for row in reversed(self.rows) if row["kind"] == "step"), None)
        speed = ""
        if last_step is not None:
            speed = (
                f", loss {last_step['loss']:.4f}, {last_step['samples_per_second']:.0f} pairs/s, "
                f"{100 * last_step['data_wait_share']:.0f} % of it waiting for data"
            )
        log.info("epoch %d/%d: r_mean %.2f%s", progress.epoch + 1, self.settings.epochs, r_mean, speed)


def _gpu(device: torch.device) -> dict[str, Any]:
    """The GPU's peak memory in GiB and its load in per cent; nothing on the CPU."""
    if device.type != "cuda":
        return {}
    row: dict[str, Any] = {"gpu_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30}
    try:
        row["gpu_utilisation"] = torch.cuda.utilization(device)
    except ModuleNotFoundError:  # nvidia-ml-py is in the extra `gpu`
        row["gpu_utilisation"] = None
    return row
