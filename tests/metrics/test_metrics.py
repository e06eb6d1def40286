"""Metrics against naive float64 oracles in loops, ties and unhappy inputs included."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from cusa.metrics import correlation, precision, recall, scores
from cusa.metrics import labels as label_metrics
from cusa.report import statistics


def unit(x):
    x = np.asarray(x, dtype=np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def similarity(a, b):
    """float64 cosines; rounded, so that what is equal on paper is equal here."""
    return np.round(unit(a) @ unit(b).T, 12)


def naive_recall(image, text, text_to_image):
    scores = similarity(image, text)
    i2t, t2i = [], []
    for i in range(len(image)):
        best = max(scores[i, j] for j in range(len(text)) if text_to_image[j] == i)
        i2t.append(1 + sum(scores[i, j] >= best for j in range(len(text)) if text_to_image[j] != i))
    for j in range(len(text)):
        own = scores[text_to_image[j], j]
        t2i.append(1 + sum(scores[i, j] >= own for i in range(len(image)) if i != text_to_image[j]))
    out = {f"i2t_r{k}": 100 * np.mean([r <= k for r in i2t]) for k in (1, 5, 10)}
    out |= {f"t2i_r{k}": 100 * np.mean([r <= k for r in t2i]) for k in (1, 5, 10)}
    total = sum(out.values())
    return out | {
        "rsum": total,
        "r_mean": total / 6,
        "i2t_median_rank": np.median(i2t),
        "t2i_median_rank": np.median(t2i),
    }


def naive_precision(query, gallery, relevant):
    """`relevant[q]` is the set of right answers; wrong answers come first where scores are equal."""
    scores, out = similarity(query, gallery), []
    for q, right in relevant.items():
        order = sorted(range(len(gallery)), key=lambda g: (-scores[q, g], g in right))
        hits = [g in right for g in order]
        r = len(right)
        out.append((hits[0], sum(hits[:r]) / r, sum(sum(hits[: n + 1]) / (n + 1) for n in range(r) if hits[n]) / r))
    return dict(zip(("r1", "rprecision", "map_at_r"), 100 * np.mean(out, axis=0), strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_recall_equals_the_oracle_with_uneven_captions(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    captions = rng.integers(1, 5, size=30)
    text_to_image = rng.permutation(np.repeat(np.arange(30), captions))
    image = rng.standard_normal((30, 8)).astype(np.float32)
    text = (image[text_to_image] + rng.standard_normal((len(text_to_image), 8))).astype(np.float32)
    monkeypatch.setattr(scores, "BLOCK_BYTES", 4 * len(text) * 7)  # seven rows a block
    assert recall.image_text_recall(image, text, text_to_image) == pytest.approx(
        naive_recall(image, text, text_to_image), abs=1e-9
    )


@pytest.mark.parametrize("seed", range(30))
def test_ties_count_against_the_model(seed):
    """Small integers and repeated rows make many exact ties, also between vectors of different length."""
    rng = np.random.default_rng(seed)
    text_to_image = np.repeat(np.arange(8), 2)
    image = rng.integers(-1, 3, size=(8, 3)).astype(np.float32)
    text = rng.integers(-1, 3, size=(16, 3)).astype(np.float32)
    image[1] = 2 * image[0]
    text[5] = text[2]
    assert recall.image_text_recall(image, text, text_to_image) == pytest.approx(
        naive_recall(image, text, text_to_image), abs=1e-9
    )


def test_a_collapsed_model_scores_zero():
    constant = np.ones((20, 4), dtype=np.float32)
    found = recall.image_text_recall(constant, constant, np.arange(20))
    assert found["rsum"] == 0
    labels = np.repeat(np.arange(2), 10)
    assert label_metrics.nearest_label_recall(constant, labels)["r1"] == 0


def test_a_perfect_model_scores_hundred():
    embeddings = np.eye(12, dtype=np.float32)
    found = recall.image_text_recall(embeddings, embeddings, np.arange(12))
    assert found["rsum"] == 600
    assert found["r_mean"] == 100
    assert found["i2t_median_rank"] == 1


def test_near_ties_are_decided_in_float64():
    """Two captions that float32 cannot tell apart; float64 says which is nearer."""
    image = np.array([[1.0, 0.0], [0.0, 1.0]])
    text = np.array([[1.0, 1e-5], [1.0, 1.1e-5]])
    found = recall.image_text_ranks(image, text, np.array([0, 1]))
    assert found[0].tolist() == [1, 1]
    # Now the other caption is the nearer one of each image, by 1e-11 for the first.
    assert recall.image_text_ranks(image, text[::-1], np.array([0, 1]))[0].tolist() == [2, 2]


def test_float32_rounding_stays_inside_the_margin():
    rng = np.random.default_rng(0)
    for sign in (False, True):  # positive vectors round worst: partial sums grow steadily
        x = rng.standard_normal((400, 1024)).astype(np.float32)
        x = np.abs(x) if sign else x
        unit32 = scores.unit_float32(x)
        error = np.abs((unit32 @ unit32.T).astype(np.float64) - unit(x) @ unit(x).T).max()
        low, high = scores.rounding_bounds(np.zeros(1), 1024)
        assert error < (high - low)[0] / 4


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


@pytest.mark.parametrize("seed", range(4))
def test_nearest_label_equals_the_oracle_in_blocks(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    embeddings, labels = rng.standard_normal((50, 4)), rng.integers(0, 9, 50)
    whole = label_metrics.nearest_label_recall(embeddings, labels)
    monkeypatch.setattr(label_metrics, "NEIGHBOUR_BYTES", 1)  # one query a block
    assert label_metrics.nearest_label_recall(embeddings, labels) == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_best_rank_of_several_positives(seed):
    """Each direction has ground truth of its own, as CxC's does; queries without any have the rank 0."""
    rng = np.random.default_rng(seed)
    image, text = rng.integers(-1, 3, (9, 3)) + 0.25, rng.integers(-1, 3, (14, 3)) + 0.25
    of_image, of_text = rng.random((9, 14)) < 0.15, rng.random((9, 14)) < 0.15
    found = recall.positive_ranks(image, text, np.argwhere(of_image), np.argwhere(of_text))
    scores = similarity(image, text)
    for ranks, matrix, right in ((found[0], scores, of_image), (found[1], scores.T, of_text.T)):
        for rank, row, positives in zip(ranks, matrix, right, strict=True):
            best = row[positives].max(initial=-np.inf)
            assert rank == (1 + (row[~positives] >= best - 1e-12).sum() if positives.any() else 0)


def test_folds_are_the_mean_of_each_part():
    rng = np.random.default_rng(0)
    image, text_to_image = rng.standard_normal((20, 6)), rng.permutation(np.repeat(np.arange(20), 3))
    text = image[text_to_image] + rng.standard_normal((60, 6))
    found = recall.fold_recall(image, text, text_to_image, 4)
    parts = []
    for start in range(0, 20, 5):
        mine = (text_to_image >= start) & (text_to_image < start + 5)
        parts.append(naive_recall(image[start : start + 5], text[mine], text_to_image[mine] - start))
    assert found == pytest.approx({name: np.mean([part[name] for part in parts]) for name in parts[0]}, abs=1e-9)


def test_the_paired_interval_is_the_bootstrap_s():
    """Against drawing queries one by one; and a difference that every query shares has no spread."""
    rng = np.random.default_rng(0)
    first = (rng.random(400) < 0.4).astype(float)
    second = np.where(rng.random(400) < 0.2, 1 - first, first)
    difference, low, high = statistics.paired_interval(first, second)
    assert difference == pytest.approx(100 * (second - first).mean())
    means = [100 * (second - first)[rng.integers(0, 400, 400)].mean() for _ in range(4000)]
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.4)
    assert statistics.paired_interval(first, first + 0.5) == pytest.approx((50, 50, 50))
    with pytest.raises(ValueError, match="not of the same queries"):
        statistics.paired_interval(first, second[:-1])


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


def test_similarity_correlation_equals_scipy():
    from scipy.stats import pearsonr, spearmanr

    rng = np.random.default_rng(0)
    first, second, gold = rng.standard_normal((50, 6)), rng.standard_normal((50, 6)), rng.random(50)
    cosine = (unit(first) * unit(second)).sum(axis=1)
    found = correlation.similarity_correlation(first, second, gold)
    assert found["spearman"] == pytest.approx(100 * spearmanr(cosine, gold).statistic, abs=1e-9)
    assert found["pearson"] == pytest.approx(100 * pearsonr(cosine, gold).statistic, abs=1e-9)


@pytest.mark.parametrize(
    ("image", "text", "text_to_image", "says"),
    [
        (np.ones((2, 3)), np.ones((2, 3)), [0, 0], "image 1 has no caption"),
        (np.ones((2, 3)), np.ones((2, 3)), [0, 2], "outside the 2 images"),
        (np.ones((2, 3)), np.ones((2, 4)), [0, 1], "3 dimensions, text embeddings 4"),
        (np.ones((2, 3)), np.ones((3, 3)), [0, 1], "expected \\(3,\\)"),
        (np.full((2, 3), np.nan), np.ones((2, 3)), [0, 1], "not finite"),
        (np.ones(3), np.ones((2, 3)), [0, 1], "expected \\[rows, dimensions\\]"),
    ],
)
def test_shapes_that_do_not_fit_are_named(image, text, text_to_image, says):
    with pytest.raises(ValueError, match=says):
        recall.image_text_recall(image, text, np.array(text_to_image))


def test_metrics_and_benchmarks_start_without_torch():
    code = (
        "import sys, cusa.metrics, cusa.benchmarks.registry as b\n"
        "[b.data_of(name, frozenset(), b.settings_of(name)()) for name in b.names()]\n"
        "import cusa.report.summary, cusa.report.page, cusa.shards.writing, cusa.annotations.convert, cusa.config\n"
        "assert not {'torch', 'transformers', 'webdataset'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
