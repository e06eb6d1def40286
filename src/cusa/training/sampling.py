"""Which pairs each process sees at each step: a pure function of seed, epoch and step.

Every (image, caption) pair is drawn once an epoch, without replacement, in an order that depends on the seed and
the epoch alone. Because any step can be asked for directly, resuming in the middle of an epoch is exact, and the
number of loader workers cannot change the order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cusa.errors import ConfigurationError


@dataclass(frozen=True)
class PairSampler:
    """Batches of pair numbers for one of `processes` processes.

    A global batch of `batch_size * processes` pairs is cut into contiguous parts, one a process; a step takes
    `accumulate` global batches. What is left of an epoch and fills no step is dropped, as published, so all processes
    take the same steps.
    """

    pairs: int
    batch_size: int
    seed: int
    process: int = 0
    processes: int = 1
    accumulate: int = 1

    def __post_init__(self) -> None:
        if self.steps_per_epoch == 0:
            raise ConfigurationError(
                f"train.batch_size {self.batch_size} x {self.processes} processes x train.accumulate "
                f"{self.accumulate} is more than the {self.pairs} training pairs there are; lower train.batch_size."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps an epoch, the same in every process."""
        return self.pairs // (self.batch_size * self.processes * self.accumulate)

    def batch(self, epoch: int, step: int, part: int = 0) -> np.ndarray:
        """Pair numbers, int64 [batch_size], of step `step` (from 0) of epoch `epoch` (from 0).

        `part` (from 0) is which of the `accumulate` batches of the step.
        """
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step {step} is outside an epoch of {self.steps_per_epoch} steps")
        start = ((step * self.accumulate + part) * self.processes + self.process) * self.batch_size
        return _order(self.pairs, self.seed, epoch)[start : start + self.batch_size]

    def epoch(self, epoch: int, first_step: int = 0) -> list[np.ndarray]:
        """The batches of an epoch from `first_step` on, `accumulate` a step."""
        steps = range(first_step, self.steps_per_epoch)
        return [self.batch(epoch, step, part) for step in steps for part in range(self.accumulate)]


@lru_cache(maxsize=2)
def _order(pairs: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng([seed, epoch]).permutation(pairs)
    order.flags.writeable = False
    return order
