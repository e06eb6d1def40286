"""Nearest neighbours of all rows among themselves, for half the products, against the full search in float64."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from cusa.errors import ConfigurationError
from cusa.metrics import neighbours
from cusa.metrics.labels import nearest_label_recall


@pytest.fixture
def in_small(monkeypatch):
    for name, value in {"FIRST_ROWS": 20, "BLOCK_ROWS": 17, "PIECE_ROWS": 5}.items():
        monkeypatch.setattr(neighbours, name, value)


def unit(rows, dimension, seed):
    found = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 7, 33])
def test_they_are_those_of_the_full_search(count, seed, in_small):
    """Also where more neighbours are wanted (33) than the rows that the search starts from (20)."""
    rows = unit(140, 5, seed)
    scores, found = neighbours.nearest_among(rows, count)
    products = rows.astype(np.float64) @ rows.astype(np.float64).T
    expected = np.sort(products, axis=1)[:, ::-1][:, :count]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(products, found, axis=1), scores, atol=1e-6)
    assert all(len(set(row)) == count for row in found)


def test_rows_that_are_all_equal_hold_no_more_than_others(in_small):
    """A collapsed model: every score ties, and only the first that were seen are kept."""
    scores, found = neighbours.nearest_among(np.tile(unit(1, 5, 0), (90, 1)), 7)
    np.testing.assert_allclose(scores, 1, atol=1e-6)
    assert all(len(set(row)) == 7 for row in found)


@pytest.mark.parametrize("seed", range(3))
def test_the_metrics_are_the_same_by_either_search(seed, monkeypatch, in_small):
    rows, labels = unit(150, 4, seed), np.random.default_rng(seed).integers(0, 30, 150)
    assert neighbours.halves_the_work(150, 20)
    by_halves = nearest_label_recall(rows, labels)
    monkeypatch.setattr(neighbours, "HELD_BYTES", 0)
    assert not neighbours.halves_the_work(150, 20)
    assert nearest_label_recall(rows, labels) == pytest.approx(by_halves, abs=1e-9)


def test_a_missing_faiss_is_a_sentence(monkeypatch):
    """faiss-cpu and faiss-gpu are one module, so no dependency of cusa brings it: an extra does."""
    monkeypatch.setitem(sys.modules, "faiss", None)  # importing it fails, as where it is not installed
    rows = np.eye(3, dtype=np.float32)
    with pytest.raises(
        ConfigurationError, match=r"faiss cannot be imported .*pip install 'cusa\[cpu\]', or pip install"
    ):
        neighbours.nearest(rows, rows, 1)
