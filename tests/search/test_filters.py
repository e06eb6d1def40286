"""Filters on the columns of the items."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from cusa.errors import ConfigurationError
from cusa.search.filters import Range, choices, parse_where, rows_where

ITEMS = pa.table(
    {
        "item": ["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
        "split": ["train", "test", None, "test"],
        "year": pa.array([1999, 2005, 2010, None], pa.int64()),
        "price": pa.array([1.5, None, 2.5, 3.5], pa.float32()),
        "sold": [True, False, None, True],
        "day": [date(2026, 1, 1), date(2026, 2, 1), None, date(2026, 3, 1)],
        "tags": [["red", "car"], [], None, ["car"]],
        "unknown": pa.nulls(4),
        "height": ["10", "9.5", "", None],
        "taken": ["2026-01-01", "2025-12-31", "2026-05-01", None],
        "kind": pa.array(["x", "y", "x", "y"]).dictionary_encode(),
    }
)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        pytest.param({}, [0, 1, 2, 3], id="no condition"),
        pytest.param({"split": "test"}, [1, 3], id="a text"),
        pytest.param({"split": ["train", "test"]}, [0, 1, 3], id="one of several texts"),
        pytest.param({"split": None}, [2], id="a missing value"),
        pytest.param({"split": ["train", None]}, [0, 2], id="a text or a missing value"),
        pytest.param({"split": "val"}, [], id="a value that no item has"),
        pytest.param({"split": "test", "year": 2005}, [1], id="two columns"),
        pytest.param({"year": "2005"}, [1], id="a number as text"),
        pytest.param({"year": 2005.0}, [1], id="a whole number as float"),
        pytest.param({"price": "2.5"}, [2], id="a float as text"),
        pytest.param({"sold": "true"}, [0, 3], id="a boolean as text"),
        pytest.param({"sold": False}, [1], id="a boolean"),
        pytest.param({"day": "2026-02-01"}, [1], id="a date as text"),
        pytest.param({"kind": "x"}, [0, 2], id="a column of few values"),
        pytest.param({"height": Range(at_least=9.6)}, [0], id="a limit of numbers that are text"),
        pytest.param({"height": Range(below="10")}, [1], id="text that would be sorted otherwise"),
        pytest.param({"taken": Range(above="2025-12-31")}, [0, 2], id="a limit of dates that are text"),
        pytest.param({"height": "10"}, [0], id="a number that is text"),
        pytest.param({"unknown": "x"}, [], id="a column without values"),
        pytest.param({"unknown": [None, 3]}, [0, 1, 2, 3], id="the missing values of a column without others"),
        pytest.param({"unknown": Range(above=3)}, [], id="a limit of a column without values"),
        pytest.param({"tags": "car"}, [0, 3], id="one of a list"),
        pytest.param({"tags": ["red", "blue"]}, [0], id="one of several of a list"),
        pytest.param({"year": Range(at_least=2000)}, [1, 2], id="from a number on"),
        pytest.param({"year": Range(above=1999, below="2010")}, [1], id="between two numbers, both left out"),
        pytest.param({"year": Range(at_least=1999, at_most=2005)}, [0, 1], id="between two numbers, both included"),
        pytest.param({"year": Range(at_least="2004.5")}, [1, 2], id="from between two whole numbers on"),
        pytest.param({"price": Range(at_most=2.5)}, [0, 2], id="up to a float"),
        pytest.param({"day": Range(above=date(2026, 1, 1))}, [1, 3], id="after a date"),
    ],
)
@pytest.mark.parametrize("chunks", [1, 2])
def test_a_filter_finds_the_rows_that_satisfy_it(where, rows, chunks):
    items = ITEMS if chunks == 1 else pa.concat_tables([ITEMS.slice(0, 1), ITEMS.slice(1)])
    allowed = rows_where(items, where)
    assert allowed.dtype == bool
    assert np.flatnonzero(allowed).tolist() == rows


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ({"splitt": "x"}, "names the column 'splitt', but the items have the columns item, split, .*mean 'split'"),
        ({"year": "many"}, "compares the column 'year' with 'many', but it holds whole numbers"),
        ({"year": 2.5}, "'year' with 2.5, but it holds whole numbers"),
        ({"price": "cheap"}, "'price' with 'cheap', but it holds numbers"),
        ({"sold": "perhaps"}, "it holds true or false"),
        ({"day": "tomorrow"}, "it holds dates or times"),
        ({"split": Range(above="a")}, "limits the column 'split', which holds text; limits are for numbers and dates"),
        ({"year": Range(above="old")}, "'year' with 'old'"),
    ],
)
def test_a_filter_that_does_not_fit_is_a_sentence(where, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        rows_where(ITEMS, where)


def test_conditions_of_a_command_line():
    assert parse_where([]) == {}
    assert parse_where(["split=test", "split=val"]) == {"split": ["test", "val"]}
    assert parse_where(["year>=2000", " year < 2010 "]) == {"year": Range(at_least="2000", below="2010")}
    assert parse_where(["a<=1", "b>0"]) == {"a": Range(at_most="1"), "b": Range(above="0")}
    assert parse_where(["formula=a=b"]) == {"formula": ["a=b"]}
    assert parse_where(["split="]) == {"split": [""]}


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["split"], "'split' is not a condition; expected column=value"),
        (["=test"], "'=test' is not a condition"),
        (["year=2000", "year>1990"], "a value and a limit for the column 'year'"),
        (["year>1990", "year=2000"], "a value and a limit for the column 'year'"),
    ],
)
def test_a_condition_that_is_none_is_a_sentence(texts, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        parse_where(texts)


def test_columns_with_few_values_are_offered_as_choices():
    assert choices(ITEMS) == {
        "split": ["test", "train"],
        "year": [1999, 2005, 2010],
        "price": [1.5, 2.5, 3.5],
        "sold": [False, True],
        "day": [date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)],
        "height": ["", "10", "9.5"],
        "taken": ["2025-12-31", "2026-01-01", "2026-05-01"],
        "kind": ["x", "y"],
    }
    assert set(choices(ITEMS, most=2)) == {"split", "sold", "kind"}
