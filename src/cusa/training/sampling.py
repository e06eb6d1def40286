"""Selects the pairs of each process and step, as a function of seed, epoch and step alone.

An epoch has every (image, caption) pair at most once. Its order depends on the seed and the epoch alone (and with
`train.hard_negatives` on a teacher's features, see hard_negatives.py, and with `train.captions_per_image` on which
captions are of one image, see caption_groups.py). The pairs of
any step can be computed directly, so a run resumes exactly in the middle of an epoch, and the number of loader workers
does not change the order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from cusa.errors import ConfigurationError

# The numbers of all pairs in the order of an epoch, int64 [pairs].
Order = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class PairSampler:
    """Batches of pair numbers for one process.

    A global batch of `batch_size * world_size` pairs is cut into contiguous parts, one a process. A step takes
    `accumulate` global batches. The last pairs of an epoch, too few for a step, are dropped, as in the published code,
    so all processes take the same number of steps. `order` gives the order of an epoch, int64 [pairs]; None draws it at
    random. Raises ConfigurationError if one step needs more than `pairs` pairs.
    """

    pairs: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1
    order: Order | None = None

    def __post_init__(self) -> None:
        if self.steps_per_epoch == 0:
            raise ConfigurationError(
                f"train.batch_size {self.batch_size} x {self.world_size} processes x train.accumulate "
                f"{self.accumulate} is more than the {self.pairs} training pairs there are; lower train.batch_size."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps an epoch, the same in every process."""
        return self.pairs // (self.batch_size * self.world_size * self.accumulate)

    def batch(self, epoch: int, step: int, part: int = 0) -> np.ndarray:
        """Pair numbers, int64 [batch_size], of one batch.

        `epoch`, `step` and `part` count from 0; `part` is below `accumulate`. Raises IndexError if the epoch has no
        such step.
        """
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step {step} is outside an epoch of {self.steps_per_epoch} steps")
        start = ((step * self.accumulate + part) * self.world_size + self.rank) * self.batch_size
        return self._order_of(epoch)[start : start + self.batch_size]

    def epoch(self, epoch: int, first_step: int = 0) -> list[np.ndarray]:
        """The batches of an epoch from `first_step` on, `accumulate` for each step: int64 [batch_size] each."""
        steps = range(first_step, self.steps_per_epoch)
        return [self.batch(epoch, step, part) for step in steps for part in range(self.accumulate)]

    @cached_property
    def _order_of(self) -> Order:
        """The order of an epoch; that of the last epoch is kept."""

        def read_only(epoch: int) -> np.ndarray:
            order = self._random_order(epoch) if self.order is None else self.order(epoch)
            order.flags.writeable = False
            return order

        return lru_cache(maxsize=1)(read_only)

    def _random_order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(self.pairs)
