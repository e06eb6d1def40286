"""Queries: what makes one, and its vector."""

from __future__ import annotations

import numpy as np
import pytest

from cusa.errors import ConfigurationError
from cusa.search.query import EXCLUDED, Query

NOTHING = np.empty((0, 4), dtype=np.float32)
RIGHT, UP, AWAY = np.eye(4, dtype=np.float32)[:3]


def test_the_vector_of_one_part_is_that_part():
    assert np.allclose(Query(text="a").vector(RIGHT, None, NOTHING), RIGHT)
    assert np.allclose(Query(image="a.jpg").vector(None, UP, NOTHING), UP)


@pytest.mark.parametrize("weight", [0, 0.25, 0.5, 1])
def test_text_and_picture_are_summed_by_their_weights_and_normalised(weight):
    vector = Query(text="a", image="a.jpg", weight=weight).vector(RIGHT, UP, NOTHING)
    expected = weight * UP + (1 - weight) * RIGHT
    assert np.allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)
    assert vector.dtype == np.float32


def test_half_of_the_direction_of_excluded_texts_is_subtracted():
    one = Query(text="a", exclude=["b"]).vector(RIGHT, None, UP[None])
    assert np.allclose(one, (RIGHT - EXCLUDED * UP) / np.hypot(1, EXCLUDED), atol=1e-6)
    two = Query(text="a", exclude=["b", "c"]).vector(RIGHT, None, np.stack([UP, AWAY]))
    assert np.linalg.norm(two) == pytest.approx(1)
    assert np.allclose(two[1], two[2])
    assert two[0] == pytest.approx(one[0]), "two excluded texts weigh as much as one"


def test_a_query_that_excludes_its_own_text_stays_what_it_is():
    assert np.allclose(Query(text="a", exclude=["a"]).vector(RIGHT, None, RIGHT[None]), RIGHT)


def test_one_text_to_exclude_needs_no_list():
    assert Query(text="a", exclude="black cat").exclude == ("black cat",)
    assert Query(text="a", exclude="black cat").texts == ["a", "black cat"]


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        pytest.param({}, "needs a text, a picture, or the row", id="nothing"),
        pytest.param({"exclude": ["a"]}, "texts to exclude alone are not a query", id="only an exclusion"),
        pytest.param({"image": "a.jpg", "like": 3}, "a picture and the row of an item", id="two pictures"),
        pytest.param({"text": " "}, "`text` of a query is empty", id="a blank text"),
        pytest.param({"text": 3}, "`text` of a query is 3; expected a text", id="a number as text"),
        pytest.param(
            {"text": "a", "exclude": [""]},
            r"`not` \(in Python: `exclude`\) of a query is empty",
            id="an empty exclusion",
        ),
        pytest.param({"text": "a", "weight": 1.1}, "`weight` of a query is 1.1; expected", id="a weight of 1.1"),
        pytest.param({"text": "a", "weight": float("nan")}, "`weight` of a query is nan", id="a weight of NaN"),
        pytest.param({"text": "a", "weight": "half"}, "`weight` of a query is 'half'", id="a word as weight"),
        pytest.param({"like": "a.jpg"}, "`like` of a query is 'a.jpg'; expected the number", id="a name as row"),
        pytest.param({"like": True}, "`like` of a query is True", id="a boolean as row"),
    ],
)
def test_what_is_no_query_is_a_sentence(parts, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        Query(**parts)


def test_a_query_describes_itself():
    assert Query(text="a").described() == {"text": "a"}
    whole = Query(text="a", image="b.jpg", weight=0.3, exclude=["c"])
    assert whole.described() == {"text": "a", "image": "b.jpg", "weight": 0.3, "not": ["c"]}
    assert Query(image=b"\xff\xd8", exclude=["c"]).described() == {"image": "picture", "not": ["c"]}
    assert Query(like=3).described() == {"like": 3}
