"""R@1, R-Precision and mAP@R against float64 oracles that sort everything."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import naive_precision

from cusa.metrics import precision, scores


@pytest.mark.parametrize("seed", range(20))
def test_extended_positives_equal_the_oracle(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    image = rng.integers(-3, 4, size=(15, 4)).astype(np.float64)
    text = rng.standard_normal((25, 4))
    positives = np.argwhere(rng.random((15, 25)) < 0.15)
    monkeypatch.setattr(scores, "BLOCK_BYTES", 4 * 25 * 4)
    found = precision.extended_recall(image, text, positives)
    by_image = {i: {int(t) for a, t in positives if a == i} for i in {int(a) for a, _ in positives}}
    by_text = {t: {int(a) for a, b in positives if b == t} for t in {int(b) for _, b in positives}}
    expected = {f"i2t_{k}": v for k, v in naive_precision(image, text, by_image).items()}
    expected |= {f"t2i_{k}": v for k, v in naive_precision(text, image, by_text).items()}
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_a_large_gallery_is_not_sorted_whole(seed):
    """Only what reaches a floor is sorted; the oracle sorts everything. Rounded scores make ties on every rank."""
    rng = np.random.default_rng(seed)
    query, gallery = rng.standard_normal((6, 3)), rng.standard_normal((900, 3))
    if seed % 2:
        query, gallery = rng.integers(-2, 3, (6, 3)) + 0.5, rng.integers(-2, 3, (900, 3)) + 0.5
    relevant = rng.random((6, 900)) < 0.004
    relevant[np.arange(6), rng.integers(0, 900, 6)] = True
    found = scores.percent(precision.precision_of_queries(query, gallery, np.argwhere(relevant)))
    similarities = scores.unit_float32(query) @ scores.unit_float32(gallery).T
    expected = np.zeros(3)
    for row, right in zip(similarities, relevant, strict=True):
        order = np.lexsort((right, -row))  # wrong answers first where scores are equal
        hits = right[order][: right.sum()]
        at_hits = np.where(hits, np.cumsum(hits) / np.arange(1, len(hits) + 1), 0)
        expected += hits[0], hits.mean(), at_hits.mean()
    assert list(found.values()) == pytest.approx(100 * expected / 6, abs=1e-9)


def test_no_positive_pair_at_all_defines_nothing():
    with pytest.raises(ValueError, match="no positive pair"):
        precision.extended_recall(np.eye(3), np.eye(3), np.empty((0, 2), dtype=int))
    outcomes = precision.extended_outcomes(np.eye(3), np.eye(3), np.empty((0, 2)), np.array([[0, 0]]))
    assert np.isnan(outcomes["i2t_r1"]).all()
    assert outcomes["t2i_r1"][0] == 1
