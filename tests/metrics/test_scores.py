"""Cosine scores, their rounding, and means over queries."""

from __future__ import annotations

import numpy as np
from oracles import unit

from cusa.metrics import scores


def test_float32_rounding_stays_inside_the_margin():
    rng = np.random.default_rng(0)
    for sign in (False, True):  # positive vectors round worst: partial sums grow steadily
        x = rng.standard_normal((400, 1024)).astype(np.float32)
        x = np.abs(x) if sign else x
        unit32 = scores.unit_float32(x)
        error = np.abs((unit32 @ unit32.T).astype(np.float64) - unit(x) @ unit(x).T).max()
        low, high = scores.rounding_bounds(np.zeros(1), 1024)
        assert error < (high - low)[0] / 4
