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
    # Several products, the last of fewer queries, each searched in parts.
    monkeypatch.setattr(precision, "PRODUCT_BYTES", 4 * 25 * 4)
    monkeypatch.setattr(precision, "COUNTED_BYTES", 4 * 25 * 2)
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


def test_both_directions_check_and_divide_the_embeddings_once(monkeypatch):
    rng = np.random.default_rng(0)
    lengths = []
    measured = scores._lengths
    monkeypatch.setattr(scores, "_lengths", lambda rows: lengths.append(len(rows)) or measured(rows))
    image, text = rng.standard_normal((30, 8)), rng.standard_normal((50, 8))
    precision.extended_recall(image, text, np.stack([np.arange(50) % 30, np.arange(50)], axis=1))
    assert lengths == [30, 50]


@pytest.mark.parametrize("seed", range(5))
def test_recall_at_other_numbers_is_that_of_the_sorted_gallery(seed):
    rng = np.random.default_rng(seed)
    image, text = rng.standard_normal((15, 4)), rng.standard_normal((25, 4))
    right = rng.random((15, 25)) < 0.1
    found = scores.percent(precision.extended_outcomes(image, text, np.argwhere(right), recall_at=(1, 3, 7)))
    similarities = scores.unit_float32(image) @ scores.unit_float32(text).T
    for way, relevant, values in (("i2t", right, similarities), ("t2i", right.T, similarities.T)):
        best = np.take_along_axis(relevant, np.argsort(-values, axis=1), axis=1)[relevant.any(axis=1)]
        for k in (1, 3, 7):
            assert found[f"{way}_r{k}"] == pytest.approx(100 * best[:, :k].any(axis=1).mean())
    assert precision.extended_outcomes(image, text, np.argwhere(right)).keys() == {
        f"{way}_{name}" for way in ("i2t", "t2i") for name in ("r1", "rprecision", "map_at_r")
    }


def test_a_pair_that_is_listed_twice_counts_once():
    rows = np.eye(4)
    pairs = np.array([[3, 3], [0, 1], [0, 0], [3, 3], [0, 0], [0, -7], [0, -7], [0, -(2**62)]])
    once = np.unique(pairs, axis=0)
    for name, values in precision.precision_of_queries(rows, rows, pairs).items():
        np.testing.assert_array_equal(values, precision.precision_of_queries(rows, rows, once)[name])
    # Right are 0, 1 and two that are not there; the first three answers are 0, then 2 and 3, which tie with 1.
    assert precision.precision_of_queries(rows, rows, pairs)["rprecision"][0] == 2 / 4


def test_no_positive_pair_at_all_defines_nothing():
    with pytest.raises(ValueError, match="no positive pair"):
        precision.extended_recall(np.eye(3), np.eye(3), np.empty((0, 2), dtype=int))
    outcomes = precision.extended_outcomes(np.eye(3), np.eye(3), np.empty((0, 2)), np.array([[0, 0]]))
    assert np.isnan(outcomes["i2t_r1"]).all()
    assert outcomes["t2i_r1"][0] == 1
