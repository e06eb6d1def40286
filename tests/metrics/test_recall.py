"""Recall and ranks of image-text retrieval against float64 oracles in loops; ties and wrong inputs are included."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import naive_recall, similarity

from cusa.metrics import recall, scores


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


def test_the_k_of_a_protocol_have_slashes_between_them():
    assert recall.with_slashes((1, 5, 10)) == "1/5/10"
    assert recall.with_slashes([1]) == "1"


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


@pytest.mark.parametrize("folds", [0, -2])
def test_no_folds_are_refused(folds):
    with pytest.raises(ValueError, match=f"{folds} folds were asked for; expected at least one"):
        recall.fold_recall(np.eye(4), np.eye(4), np.arange(4), folds)


def test_a_right_answer_that_is_not_in_the_gallery_is_never_found():
    """A query that has only such ones comes after everything; it is not a query without a right answer."""
    of_image = np.array([[0, 0], [0, -1], [1, -1]])
    found = recall.positive_ranks(np.eye(3), np.eye(3), of_image, np.array([[-1, 0], [1, 1]]))
    assert found[0].tolist() == [1, 4, 0]
    assert found[1].tolist() == [4, 1, 0]


@pytest.mark.parametrize(
    ("image", "text", "text_to_image", "says"),
    [
        (np.ones((2, 3)), np.ones((2, 3)), [0, 0], "image 1 has no caption"),
        (np.ones((2, 3)), np.ones((2, 3)), [0, 2], "outside the 2 images"),
        (np.ones((2, 3)), np.ones((2, 4)), [0, 1], "3 dimensions, text embeddings 4"),
        (np.ones((2, 3)), np.ones((3, 3)), [0, 1], "expected \\(3,\\)"),
        (np.full((2, 3), np.nan), np.ones((2, 3)), [0, 1], "not finite, in 2 of 2 rows"),
        (np.array([[1, 2], [1, np.inf]]), np.ones((2, 2)), [0, 1], r"in 1 of 2 rows \(the first is row 1\)"),
        (np.ones((2, 0)), np.ones((2, 0)), [0, 1], "at least one of each"),
        (np.ones((0, 3)), np.ones((0, 3)), [], "at least one of each"),
        (np.ones(3), np.ones((2, 3)), [0, 1], "expected \\[rows, dimensions\\]"),
    ],
)
def test_shapes_that_do_not_fit_are_named(image, text, text_to_image, says):
    with pytest.raises(ValueError, match=says):
        recall.image_text_recall(image, text, np.array(text_to_image))


def test_a_query_without_a_right_answer_is_in_no_mean():
    outcomes = recall.recalled(np.array([1, 0, 3]), np.array([12, 5, 0, 0]))
    np.testing.assert_array_equal(outcomes["i2t_r1"], [1, np.nan, 0])
    np.testing.assert_array_equal(outcomes["t2i_r5"], [0, 1, np.nan, np.nan])
    assert scores.percent(outcomes)["i2t_r5"] == 100
    assert scores.percent(outcomes)["t2i_r10"] == 50
