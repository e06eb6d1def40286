"""Retrieval of the same label against a float64 oracle; ties, duplicates and a separate gallery are included."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import similarity

from cusa.metrics import labels as label_metrics


@pytest.mark.parametrize("seed", range(5))
def test_nearest_label_equals_the_oracle(seed):
    rng = np.random.default_rng(seed)
    labels = np.array(list("aabbbccccd"))[rng.permutation(10)]
    embeddings = rng.standard_normal((10, 3)).astype(np.float32)
    found = label_metrics.nearest_label_recall(embeddings, labels)
    scores = similarity(embeddings, embeddings)
    np.fill_diagonal(scores, -np.inf)
    hits = dict.fromkeys((1, 2, 4, 8), 0)
    precision = []
    for q in range(10):
        order = np.argsort(-scores[q])[:9]
        right = labels[order] == labels[q]
        for k in hits:
            hits[k] += right[:k].any()
        if r := int(right.sum()):
            average = sum(right[: n + 1].mean() for n in range(r) if right[n]) / r
            precision.append((right[:r].sum() / r, average))
    expected = {f"r{k}": 10.0 * count for k, count in hits.items()}
    expected |= dict(zip(("rprecision", "map_at_r"), 100 * np.mean(precision, axis=0), strict=True))
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_nearest_label_equals_the_oracle_in_blocks(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    embeddings, labels = rng.standard_normal((50, 4)), rng.integers(0, 9, 50)
    whole = label_metrics.nearest_label_recall(embeddings, labels)
    monkeypatch.setattr(label_metrics, "NEIGHBOUR_BYTES", 1)  # one query a block
    assert label_metrics.nearest_label_recall(embeddings, labels) == pytest.approx(whole, abs=1e-9)


def test_a_gallery_of_its_own_keeps_the_query():
    query, gallery = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)
    assert label_metrics.nearest_label_recall(query, ["a", "b", "c"], gallery, ["a", "b", "x"])["r1"] == pytest.approx(
        200 / 3
    )


def test_duplicates_do_not_hide_the_query_itself():
    """Identical pictures: the query must not be counted as its own answer, whichever copy faiss lists first."""
    embeddings = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    labels = np.arange(12)  # every label alone: nothing can be right
    assert label_metrics.nearest_label_recall(embeddings, labels)["r8"] == 0


def test_a_collapsed_model_scores_zero():
    constant, labels = np.ones((20, 4), dtype=np.float32), np.repeat(np.arange(2), 10)
    assert label_metrics.nearest_label_recall(constant, labels)["r1"] == 0


def test_a_query_without_a_right_answer_is_a_miss_and_has_no_precision():
    outcomes = label_metrics.label_found(np.eye(3, dtype=np.float32), ["a", "b", "a"])
    assert outcomes["r1"][1] == 0
    assert np.isnan(outcomes["rprecision"]).tolist() == np.isnan(outcomes["map_at_r"]).tolist() == [False, True, False]
    none_right = label_metrics.nearest_label_recall(np.eye(2, dtype=np.float32), ["a", "b"])
    assert none_right["r8"] == 0
    assert np.isnan(none_right["rprecision"])
    assert np.isnan(none_right["map_at_r"])


def test_one_image_alone_has_nothing_to_search():
    assert np.isnan(list(label_metrics.nearest_label_recall(np.ones((1, 3)), ["a"]).values())).all()


def test_one_class_is_found_always():
    """It says nothing about the model, but it is defined."""
    rows = np.random.default_rng(0).standard_normal((9, 4))
    assert set(label_metrics.nearest_label_recall(rows, ["a"] * 9).values()) == {100.0}
