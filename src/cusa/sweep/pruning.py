"""Stopping hopeless trials: the median stopping rule of Golovin et al., Google Vizier (KDD 2017), with one difference.

Trials are compared at the same share of their epochs, because a sweep may vary the number of epochs. They are compared
by the best r_mean so far, because this is the score of a training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median

from cusa.config.sweep import Pruning
from cusa.sweep.study import TrialResult


def reason_to_stop(
    curve: Sequence[float], epochs: int, position: int, others: Iterable[TrialResult], pruning: Pruning
) -> str | None:
    """A sentence why a training is hopeless; None if it is not, or if too few trials can be compared.

    `curve` is its r_mean after each epoch so far, of `epochs`, and `position` that of its seed among the seeds.
    `others` are the trials that have ended; those count that have come as far.
    """
    share = len(curve) / epochs
    if not curve or len(curve) >= epochs or share < pruning.warmup:
        return None
    best = max(curve)
    reached = [value for other in others if (value := best_at(other, position, share)) is not None]
    if len(reached) < pruning.startup_trials or best >= (middle := median(reached)):
        return None
    return (
        f"After {len(curve)} of {epochs} epochs its best r_mean was {best:.2f}, below {middle:.2f}, the median of "
        f"{len(reached)} trials at this point."
    )


def best_at(result: TrialResult, position: int, share: float) -> float | None:
    """The best r_mean of a trial until a share of its epochs; None if it has not come as far.

    A training that ended early because it did not get better, by `train.early_stop`, counts with what it had reached.
    """
    if position >= len(result.seeds) or result.same_as is not None:
        return None
    curve = result.seeds[position].curve
    needed = max(1, math.ceil(share * result.epochs - 1e-9))
    if len(curve) < needed and result.state == "stopped":
        return None
    return max(curve[:needed])
