"""Random numbers that are a function of whole numbers, such as (seed, epoch, pair), alone.

Any of them can be computed alone, in any process and in any order, without a generator that has a state. The numbers
are hashed by the finaliser of SplitMix64 (Steele, Lea and Flood, 2014, https://doi.org/10.1145/2660193.2660195).
"""

from __future__ import annotations

import numpy as np

STEP = np.uint64(0x9E3779B97F4A7C15)
FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def hashed(*keys: int | np.ndarray) -> np.ndarray:
    """A hash of keys, uint64 [n]. Each key is a whole number that is not negative, or an array [n] of them."""
    value = np.zeros(1, dtype=np.uint64)
    for key in keys:
        value = _mixed((value ^ np.atleast_1d(np.asarray(key)).astype(np.uint64)) + STEP)
    return value


def uniform(hashes: np.ndarray, columns: int) -> np.ndarray:
    """Random numbers from 0 to below 1, float64 [n, columns], of hashes, uint64 [n]."""
    numbers = np.arange(1, columns + 1, dtype=np.uint64)
    return (_mixed(hashes[:, None] + numbers * STEP) >> np.uint64(11)) * 2.0**-53


def _mixed(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * FACTORS[0]
    value = (value ^ (value >> np.uint64(27))) * FACTORS[1]
    mixed: np.ndarray = value ^ (value >> np.uint64(31))
    return mixed
