"""Correlation of similarities with gold scores."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import unit

from cusa.metrics import correlation


def test_similarity_correlation_equals_scipy():
    from scipy.stats import pearsonr, spearmanr

    rng = np.random.default_rng(0)
    first, second, gold = rng.standard_normal((50, 6)), rng.standard_normal((50, 6)), rng.random(50)
    cosine = (unit(first) * unit(second)).sum(axis=1)
    found = correlation.similarity_correlation(first, second, gold)
    assert found["spearman"] == pytest.approx(100 * spearmanr(cosine, gold).statistic, abs=1e-9)
    assert found["pearson"] == pytest.approx(100 * pearsonr(cosine, gold).statistic, abs=1e-9)


def test_numbers_of_rows_that_differ_are_named():
    with pytest.raises(ValueError, match="as many first \\(3\\) as second \\(2\\)"):
        correlation.similarity_correlation(np.ones((3, 2)), np.ones((2, 2)), np.ones(3))
    with pytest.raises(ValueError, match="as many gold scores \\(1\\) as pairs \\(3\\)"):
        correlation.similarity_correlation(np.ones((3, 2)), np.ones((3, 2)), np.ones(1))
