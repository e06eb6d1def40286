"""Random numbers that are a function of whole numbers."""

from __future__ import annotations

import numpy as np

from cusa.common.draws import hashed, uniform


def test_the_finaliser_is_that_of_splitmix64():
    """The first numbers of SplitMix64 with the seed 0, as Vigna's splitmix64.c prints them."""
    first = [int(hashed(0)[0]), 0xE220A8397B1DCDAF]
    assert first[0] == first[1]
    step = 0x9E3779B97F4A7C15
    assert int(hashed(step)[0]) != first[0]
    second = (uniform(np.zeros(1, np.uint64), 2) * 2**53).astype(np.uint64)[0]
    assert second.tolist() == [0xE220A8397B1DCDAF >> 11, 0x6E789E6AA1B965F4 >> 11]


def test_numbers_do_not_depend_on_which_others_are_computed():
    everything = uniform(hashed(3, 23, 7, np.arange(100)), 4)
    chosen = np.array([50, 3, 99])
    assert np.array_equal(uniform(hashed(3, 23, 7, chosen), 4), everything[chosen])
    assert np.array_equal(uniform(hashed(3, 23, 7, chosen), 2), everything[chosen, :2])


def test_numbers_are_uniform_and_differ_with_each_key():
    tables = [uniform(hashed(purpose, seed, np.arange(20000)), 3) for purpose in (1, 2) for seed in (0, 1)]
    for table in tables:
        assert table.min() >= 0
        assert table.max() < 1
        assert np.abs(table.mean(axis=0) - 0.5).max() < 0.01
        assert np.abs(np.histogram(table, bins=20, range=(0, 1))[0] / 3000 - 1).max() < 0.1
    columns = np.concatenate(tables, axis=1)
    assert np.abs(np.corrcoef(columns.T) - np.eye(12)).max() < 0.03
