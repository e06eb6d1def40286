"""Correlation of similarities with gold scores, against a float64 oracle."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from oracles import naive_correlation, unit

from cusa.metrics import correlation


def test_similarity_correlation_equals_scipy():
    from scipy.stats import pearsonr, spearmanr

    rng = np.random.default_rng(0)
    first, second, gold = rng.standard_normal((50, 6)), rng.standard_normal((50, 6)), rng.random(50)
    cosine = (unit(first) * unit(second)).sum(axis=1)
    found = correlation.similarity_correlation(first, second, gold)
    assert found["spearman"] == pytest.approx(100 * spearmanr(cosine, gold).statistic, abs=1e-9)
    assert found["pearson"] == pytest.approx(100 * pearsonr(cosine, gold).statistic, abs=1e-9)


@pytest.mark.parametrize(("dtype", "dimension"), [(np.float32, 384), (np.float64, 40), (np.float16, 3)])
def test_equal_pairs_tie(dtype, dimension):
    """Pairs of equal sentences have the cosine 1, and pairs that recur, also swapped or scaled, have one cosine."""
    rng = np.random.default_rng(1)
    first = rng.standard_normal((400, dimension)).astype(dtype)
    second = (first + rng.standard_normal((400, dimension))).astype(dtype)
    second[:120] = first[:120]
    first[200:250], second[200:250] = second[150:200], first[150:200]
    first[250:300], second[250:300] = first[150:200] * dtype(2), second[150:200]
    gold = rng.integers(0, 6, 400) + np.r_[np.full(120, 2.0), np.zeros(280)]
    cosine = correlation.pair_cosines(first, second)
    assert (cosine[:120] == 1).all()
    assert (cosine[150:200] == cosine[200:250]).all()
    assert (cosine[150:200] == cosine[250:300]).all()
    assert correlation.similarity_correlation(first, second, gold) == pytest.approx(
        naive_correlation(first, second, gold), abs=1e-9
    )


def test_a_thousand_pairs_of_equal_sentences_among_others_keep_their_ties():
    rng = np.random.default_rng(0)
    first = rng.standard_normal((3000, 384)).astype(np.float32)
    second = (first + rng.standard_normal((3000, 1)) * rng.standard_normal((3000, 384))).astype(np.float32)
    second[:1000] = first[:1000]
    cosine = correlation.pair_cosines(first, second)
    gold = np.round(5 * cosine + rng.standard_normal(3000), 1)
    assert len(set(cosine[:1000])) == 1
    found = correlation.similarity_correlation(first, second, gold)
    assert found == pytest.approx(naive_correlation(first, second, gold), abs=1e-9)


def test_constant_scores_define_no_correlation():
    """Neither a warning of scipy nor a traceback: NaN, and a reason for it."""
    rows = np.random.default_rng(0).standard_normal((5, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(list(correlation.similarity_correlation(rows, rows, np.arange(5)).values())).all()
        assert np.isnan(list(correlation.similarity_correlation(rows, rows[::-1], np.ones(5)).values())).all()
        assert np.isnan(list(correlation.similarity_correlation(rows[:1], rows[:1], np.ones(1)).values())).all()
    reason = correlation.undefined_correlation
    assert reason(np.ones(5), np.arange(5)) == "the model gives all 5 pairs the cosine 1"
    assert reason(np.arange(5), np.full(5, 2.5)) == "all 5 gold scores are 2.5"
    assert reason(np.ones(1), np.ones(1)) == "a correlation needs at least two pairs, and there are 1"
    assert reason(np.arange(5), np.arange(5)) is None


def test_numbers_of_rows_that_differ_are_named():
    with pytest.raises(ValueError, match="as many first \\(3\\) as second \\(2\\)"):
        correlation.similarity_correlation(np.ones((3, 2)), np.ones((2, 2)), np.ones(3))
    with pytest.raises(ValueError, match="as many gold scores \\(1\\) as pairs \\(3\\)"):
        correlation.similarity_correlation(np.ones((3, 2)), np.ones((3, 2)), np.ones(1))
    with pytest.raises(ValueError, match="first embeddings have 2 dimensions, second embeddings 4"):
        correlation.similarity_correlation(np.ones((3, 2)), np.ones((3, 4)), np.ones(3))


def test_gold_scores_that_are_not_numbers_are_counted():
    with pytest.raises(ValueError, match="2 of 3 gold scores are not finite"):
        correlation.similarity_correlation(np.ones((3, 2)), np.ones((3, 2)), np.array([1, np.nan, np.inf]))
