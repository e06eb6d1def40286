"""Exact, seeded sampling without replacement for any number of processes, resumable at any step."""

from __future__ import annotations

import numpy as np
import pytest

from cusa.errors import ConfigurationError
from cusa.training.sampling import PairSampler


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize(("pairs", "batch_size"), [(96, 8), (101, 5), (64, 16)])
def test_every_pair_once_an_epoch(pairs, batch_size, processes):
    samplers = [PairSampler(pairs, batch_size, 23, rank, processes) for rank in range(processes)]
    drawn = np.concatenate([np.concatenate(sampler.epoch(0)) for sampler in samplers])
    assert len(np.unique(drawn)) == len(drawn) == samplers[0].steps_per_epoch * batch_size * processes
    assert pairs - len(drawn) < batch_size * processes


def test_the_global_batch_does_not_depend_on_the_number_of_processes():
    alone = PairSampler(96, 12, seed=1)
    for processes in (2, 3, 4):
        parts = [PairSampler(96, 12 // processes, 1, rank, processes) for rank in range(processes)]
        for step in range(alone.steps_per_epoch):
            together = np.concatenate([part.batch(3, step) for part in parts])
            assert np.array_equal(together, alone.batch(3, step))


def test_the_order_is_a_function_of_seed_and_epoch():
    first = PairSampler(50, 10, seed=7).epoch(2)
    assert np.array_equal(first, PairSampler(50, 10, seed=7).epoch(2))
    assert not np.array_equal(first, PairSampler(50, 10, seed=7).epoch(3))
    assert not np.array_equal(first, PairSampler(50, 10, seed=8).epoch(2))


def test_the_order_is_pinned():
    """A change here changes every run: it needs a new state version and a line in CHANGELOG.md."""
    assert PairSampler(10, 5, seed=23).batch(0, 0).tolist() == [3, 6, 2, 5, 8]


def test_an_epoch_can_be_entered_anywhere():
    sampler = PairSampler(100, 8, seed=0)
    assert np.array_equal(sampler.epoch(1)[5:], sampler.epoch(1, first_step=5))


def test_accumulated_batches_are_those_of_more_processes():
    """Step for step the same pairs; what fills no step is dropped, so no process waits for another."""
    accumulating = PairSampler(61, 4, seed=0, accumulate=3)
    three = [PairSampler(61, 4, seed=0, rank=rank, world_size=3) for rank in range(3)]
    assert accumulating.steps_per_epoch == three[0].steps_per_epoch == 5
    batches = accumulating.epoch(2, first_step=1)
    assert len(batches) == 4 * 3
    for step in range(1, 5):
        for part in range(3):
            assert np.array_equal(batches[(step - 1) * 3 + part], three[part].batch(2, step))


def test_too_large_a_batch_is_refused():
    with pytest.raises(ConfigurationError, match="64 x 2 processes x train.accumulate 1 is more than"):
        PairSampler(100, 64, 0, 0, 2)


def test_steps_outside_an_epoch_are_refused():
    with pytest.raises(IndexError, match="step 10 is outside an epoch of 10 steps"):
        PairSampler(100, 10, 0).batch(0, 10)
