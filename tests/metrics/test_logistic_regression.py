"""The classifier of the linear probe, against a plain minimisation in float64."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from cusa.metrics.classification import class_weights, label_ranks
from cusa.metrics.logistic_regression import STRENGTHS, class_scores


def naive(rows: np.ndarray, labels: np.ndarray, test: np.ndarray, strength: float) -> np.ndarray:
    """Probabilities of a multinomial logistic regression: C times the summed loss, and half the squared weights."""
    classes, dimension = labels.max() + 1, rows.shape[1]

    def objective(flat: np.ndarray) -> float:
        weights = flat.reshape(classes, dimension + 1)
        logits = rows @ weights[:, :-1].T + weights[:, -1]
        logits -= logits.max(axis=1, keepdims=True)
        loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
        return strength * loss.sum() + 0.5 * (weights[:, :-1] ** 2).sum()

    weights = minimize(objective, np.zeros(classes * (dimension + 1)), method="BFGS", options={"gtol": 1e-6}).x
    weights = weights.reshape(classes, dimension + 1)
    logits = test @ weights[:, :-1].T + weights[:, -1]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_scores_are_those_of_a_plain_minimisation():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 10)
    rows = np.eye(3)[labels] + 0.5 * generator.standard_normal((30, 3))
    test = generator.standard_normal((5, 3))
    scores, chosen = class_scores(rows, labels, test)
    unit, unit_test = (part / np.linalg.norm(part, axis=1, keepdims=True) * np.sqrt(3) for part in (rows, test))
    expected = naive(unit, labels, unit_test, chosen)
    found = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert chosen in STRENGTHS
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_two_classes_have_two_scores():
    rows, labels = np.array([[1.0, 0], [0, 1], [1, 0.1], [0.1, 1]]), np.array([0, 1, 0, 1])
    scores, _ = class_scores(rows, labels, np.array([[1.0, 0], [0, 1]]))
    assert scores.shape == (2, 2)
    assert scores.argmax(axis=1).tolist() == [0, 1]


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="at least two classes"):
        class_scores(np.eye(2), np.zeros(2, dtype=np.int64), np.eye(2))


def test_ties_count_against_the_model_and_unknown_classes_come_last():
    scores = np.array([[3.0, 2, 1], [2, 2, 1], [1, 1, 1], [3, 2, 1]])
    assert label_ranks(scores, np.array([0, 0, 2, -1])).tolist() == [1, 2, 3, 4]


def test_weights_make_classes_count_the_same():
    labels = np.array(["a", "a", "a", "b"])
    correct = np.array([1.0, 1, 0, 0])
    assert np.mean(class_weights(labels) * correct) == pytest.approx((2 / 3 + 0) / 2)
    assert class_weights(labels).mean() == pytest.approx(1)
