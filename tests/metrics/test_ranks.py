"""Ties and scores that float32 cannot tell apart, in every metric, against float64 oracles in loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import naive_labels, naive_precision, naive_recall, similarity

from cusa.metrics import extended_recall, image_text_recall, nearest_label_recall, precision, scores
from cusa.metrics import labels as label_metrics
from cusa.metrics.ranks import Candidates, right_ranks

KINDS = ("random", "few directions", "repeated", "nearly one direction", "one", "zeros among them")


def rows_of(kind: str, rng: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    """Embeddings float32 [count, dimension]; all kinds but the first have scores that are equal or nearly so."""
    rows = rng.standard_normal((count, dimension))
    match kind:
        case "few directions":
            rows = rng.integers(-1, 2, (count, dimension)) + 0.5
        case "repeated":
            rows = rows[rng.integers(0, max(1, count // 3), count)]
        case "nearly one direction":
            rows = rows[:1] + 0.003 * rng.standard_normal((count, dimension))
        case "one":
            rows = np.repeat(rows[:1], count, axis=0)
        case "zeros among them":
            rows[rng.random(count) < 0.4] = 0
    return rows.astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(1, 25), st.integers(1, 40)),
    dimension=st.sampled_from((2, 7, 64)),
    share=st.sampled_from((0.05, 0.4)),
)
def test_every_metric_equals_its_oracle(kind, seed, sizes, dimension, share):
    rng = np.random.default_rng(seed)
    both = rows_of(kind, rng, sum(sizes), dimension)
    image, text = both[: sizes[0]], both[sizes[0] :]
    positives = np.argwhere(rng.random(sizes) < share)
    if len(positives):
        by_image = {i: {int(t) for a, t in positives if a == i} for i in positives[:, 0].tolist()}
        by_text = {t: {int(a) for a, b in positives if b == t} for t in positives[:, 1].tolist()}
        expected = {f"i2t_{k}": v for k, v in naive_precision(image, text, by_image).items()}
        expected |= {f"t2i_{k}": v for k, v in naive_precision(text, image, by_text).items()}
        assert extended_recall(image, text, positives) == pytest.approx(expected, abs=1e-9)
    labels = rng.integers(0, 5, len(both))
    assert nearest_label_recall(both, labels) == pytest.approx(naive_labels(both, labels), abs=1e-9, nan_ok=True)
    sides = (image, labels[: sizes[0]], text, labels[sizes[0] :])
    assert nearest_label_recall(*sides) == pytest.approx(naive_labels(*sides), abs=1e-9, nan_ok=True)
    if sizes[1] >= sizes[0]:
        owner = np.arange(sizes[1]) % sizes[0]
        assert image_text_recall(image, text, owner) == pytest.approx(naive_recall(image, text, owner), abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_large_galleries_are_searched_by_candidates(kind):
    """So large that only a few candidates of each query are looked at, and for labels a few neighbours."""
    rng = np.random.default_rng(3)
    gallery = rows_of(kind, rng, 1500, 48)
    image = gallery[:30] + (0.001 * rng.standard_normal((30, 48))).astype(np.float32)
    right = {i: {i, *rng.integers(0, 1500, 2).tolist()} for i in range(30)}
    pairs = np.array([(i, g) for i, answers in right.items() for g in answers])
    found = scores.percent(precision.precision_of_queries(image, gallery, pairs))
    assert found == pytest.approx(naive_precision(image, gallery, right), abs=1e-9)
    classes = rng.integers(0, 120, 1500)
    sides = image, classes[:30], gallery, classes
    assert nearest_label_recall(*sides) == pytest.approx(naive_labels(*sides), abs=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_a_gallery_that_is_there_twice_once_right_and_once_wrong_is_never_first(seed):
    """The two copies are in different places, where a product of matrices may round differently."""
    rng = np.random.default_rng(seed)
    gallery = rng.standard_normal((6, 512)).astype(np.float32)
    query = gallery + 0.1 * rng.standard_normal((6, 512)).astype(np.float32)
    own = np.stack([np.arange(6), np.arange(6)], axis=1)
    found = extended_recall(query, np.concatenate([gallery, gallery]), own)
    assert found["i2t_r1"] == found["i2t_rprecision"] == 0
    gallery = rng.standard_normal((501, 768)).astype(np.float32)
    query = gallery + 0.1 * rng.standard_normal((501, 768)).astype(np.float32)
    labels = np.concatenate([np.arange(501), -1 - np.arange(501)])
    found = nearest_label_recall(query, labels[:501], np.concatenate([gallery, gallery]), labels)
    assert (found["r1"], found["r2"]) == (0, 100)


@pytest.mark.parametrize(("images", "classes"), [(1000, 10), (600, 2)])
def test_a_collapsed_model_finds_nothing_in_large_classes(images, classes):
    """More right answers than neighbours that are asked for beyond them."""
    constant = np.repeat(np.random.default_rng(0).standard_normal((1, 512)), images, axis=0).astype(np.float32)
    assert set(nearest_label_recall(constant, np.arange(images) % classes).values()) == {0.0}


def test_nearly_equal_embeddings_are_decided_in_float64():
    """Differences of scores are about float32's rounding; the first answers by float32 and by float64 differ."""
    rng = np.random.default_rng(0)
    image, text = (rows_of("one", np.random.default_rng(9), 100, 512) for _ in range(2))
    image = image + (3e-4 * rng.standard_normal(image.shape)).astype(np.float32)
    text = text + (3e-4 * rng.standard_normal(text.shape)).astype(np.float32) + 0.1 * (image - text)
    own = np.stack([np.arange(100), np.arange(100)], axis=1)
    exact = similarity(image, text)
    by_float32 = scores.unit_float32(image) @ scores.unit_float32(text).T
    assert (exact.argmax(axis=1) != by_float32.argmax(axis=1)).any()
    expected = 100 * np.mean([row.argmax() == i and (row >= row[i]).sum() == 1 for i, row in enumerate(exact)])
    assert 0 < expected < 100
    assert extended_recall(image, text, own)["i2t_r1"] == pytest.approx(expected)
    assert nearest_label_recall(image, np.arange(100), text, np.arange(100))["r1"] == pytest.approx(expected)
    assert image_text_recall(image, text, np.arange(100))["i2t_r1"] == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1e-13, 1e20, 1e160, 1e300])
def test_the_length_of_an_embedding_changes_no_metric(scale):
    """Squares of very long rows are infinite, those of very short ones 0."""
    rng = np.random.default_rng(0)
    text = rng.standard_normal((40, 6))
    image = text[:20] + 0.7 * rng.standard_normal((20, 6))
    lengths = np.where(rng.random(40) < 0.5, scale, 1.0)[:, None]
    owner = np.arange(40) % 20
    assert image_text_recall(image * lengths[:20], text * lengths, owner) == image_text_recall(image, text, owner)
    own = np.stack([owner, np.arange(40)], axis=1)
    assert extended_recall(image, text * lengths, own) == extended_recall(image, text, own)
    assert nearest_label_recall(text * lengths, owner) == nearest_label_recall(text, owner)
    if scale in (1e-40, 1e20):
        short = (text * lengths).astype(np.float32)
        assert image_text_recall(image, short, owner)["rsum"] == pytest.approx(
            naive_recall(image, short, owner)["rsum"]
        )


def test_a_right_answer_that_is_not_in_the_gallery_counts_and_is_never_found():
    rows = np.eye(4, dtype=np.float32)
    outcomes = precision.precision_of_queries(rows, rows, np.array([[0, 0], [0, -1], [0, -2], [1, -1], [2, 2]]))
    np.testing.assert_allclose(outcomes["r1"], [1, 0, 1, np.nan])
    np.testing.assert_allclose(outcomes["rprecision"], [1 / 3, 0, 1, np.nan])
    np.testing.assert_allclose(outcomes["map_at_r"], [1 / 3, 0, 1, np.nan])


@pytest.mark.parametrize("pair", [(-1, 0), (4, 0), (0, 4)])
def test_pairs_outside_the_rows_are_refused(pair):
    with pytest.raises(ValueError, match="positives point outside the 4 queries and 4 rows of the gallery"):
        precision.precision_of_queries(np.eye(4), np.eye(4), np.array([(0, 0), pair]))


def test_embeddings_of_different_dimensions_are_named():
    with pytest.raises(ValueError, match="query embeddings have 4 dimensions, gallery embeddings 3"):
        precision.precision_of_queries(np.eye(4), np.eye(3), np.array([(0, 0)]))
    with pytest.raises(ValueError, match="query embeddings have 4 dimensions, gallery embeddings 3"):
        label_metrics.nearest_label_recall(np.eye(4), list("abcd"), np.eye(3), list("abc"))


def test_a_right_answer_below_many_close_ones_keeps_its_place():
    """The second right answer has `limit` answers before it for certain, so its exact score is not asked for."""
    vectors = np.array([[1.0, 0.0], [1.0, 1e-4], [1.0, 1.0], [1.0, 1.0 + 1e-7], [0.0, 1.0]])
    exact = scores.ExactScores(*(scores.checked_embeddings("", rows) for rows in (vectors[:1], vectors)))
    values = (scores.unit_float32(vectors[:1]) @ scores.unit_float32(vectors).T)[0]
    right = np.array([True, False, False, True, False])
    candidates = Candidates(np.zeros(5, dtype=np.int64), np.arange(5), values, right)
    ranks = right_ranks(candidates, exact, np.array([0]), np.array([2]))
    assert ranks.ranks[0] == 1
    assert ranks.ranks[1] > 2
