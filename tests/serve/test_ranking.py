"""Ranks of right answers under an index, against a naive computation."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import COLOURS

from cusa.gallery.items import items_table
from cusa.gallery.store import write_gallery
from cusa.index.build import build_index
from cusa.index.folder import SearchIndex
from cusa.serve.ranking import answer_ranks
from cusa.serve.right_answers import RightAnswers

ROWS = 300


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> SearchIndex:
    """Vectors of few different ones, so that many scores are equal."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((40, 8))[random.integers(40, size=ROWS)]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    out = tmp_path_factory.mktemp("ranked") / "out"
    write_gallery(out, vectors, items_table([str(row) for row in range(ROWS)]), out, "a" * 64)
    build_index(out)
    return SearchIndex.open(out)


def naive(vectors: np.ndarray, query: np.ndarray, right: list[int]) -> list[int]:
    """1 + the wrong answers that score at least as high + the right ones before."""
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    scores = unit @ (query.astype(np.float64) / np.linalg.norm(query.astype(np.float64)))
    wrong = [row for row in range(len(vectors)) if row not in right]
    above = sorted(int((scores[wrong] >= scores[row] - 1e-12).sum()) for row in right)
    return [count + place + 1 for place, count in enumerate(above)]


@pytest.mark.parametrize("block", [16, 16_384])
@pytest.mark.parametrize("count", [1, 5])
def test_ranks_equal_the_naive_ones_also_where_scores_are_equal(index, monkeypatch, count, block):
    monkeypatch.setattr("cusa.serve.ranking.BLOCK", block)
    vectors, random = index.vectors(np.arange(ROWS)), np.random.default_rng(1)
    for _ in range(20):
        query = vectors[random.integers(ROWS)] + 0.2 * random.standard_normal(8).astype(np.float32)
        query /= np.linalg.norm(query)
        right = np.sort(random.choice(ROWS, count, replace=False))
        rows, ranks = answer_ranks(index, query.astype(np.float32), right)
        assert sorted(rows.tolist()) == right.tolist()
        assert ranks.tolist() == naive(vectors, query, right.tolist())


def test_a_text_has_the_rows_of_which_it_is_a_caption():
    captions = [["A red car.", "a dog"], [], ["a  RED car"], ["Straße"], ["!!!"], ["a dog", "A dog!"]]
    answers = RightAnswers(items_table([str(row) for row in range(6)], captions=captions)["captions"])
    assert len(answers) == 7
    assert answers.rows("a red car").tolist() == [0, 2]
    assert answers.rows("A dog").tolist() == [0, 5]
    assert answers.rows("straße").tolist() == [3]
    assert answers.rows("a red").tolist() == []
    assert answers.rows("?").tolist() == []


def test_rows_are_right_beyond_the_first_block(monkeypatch):
    monkeypatch.setattr("cusa.serve.right_answers.BLOCK", 4)
    names = [f"{colour} {number}" for number in range(3) for colour in COLOURS]
    answers = RightAnswers(items_table(names, captions=[[name] for name in names])["captions"])
    for row, name in enumerate(names):
        assert answers.rows(name).tolist() == [row]


def test_without_captions_there_are_no_right_answers():
    answers = RightAnswers(items_table(["a", "b"])["captions"])
    assert len(answers) == 0
    assert answers.rows("a").tolist() == []
