"""Queries from files."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest

from cusa.errors import DataError
from cusa.search.query_files import STANDARD_INPUT, read_queries


def described(path: Path) -> list[dict[str, object]]:
    return [query.described() for query in read_queries(path)]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_one_text_a_line(tmp_path):
    path = write(tmp_path / "queries.txt", "a red car\n\n  a blue, small car \r\nein grünes Auto")
    assert described(path) == [{"text": "a red car"}, {"text": "  a blue, small car "}, {"text": "ein grünes Auto"}]


def test_texts_from_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a red car\n\na blue car\n"))
    assert described(STANDARD_INPUT) == [{"text": "a red car"}, {"text": "a blue car"}]


def test_a_table_with_a_column_for_each_part(tmp_path):
    table = 'text,image,like,weight,not\n"red, small",,,,\n,a.jpg,,,blue\nred,,7,0.25,\n'
    expected = [{"text": "red, small"}, {"image": "a.jpg", "not": ["blue"]}, {"text": "red", "like": 7, "weight": 0.25}]
    assert described(write(tmp_path / "queries.csv", table)) == expected
    assert described(write(tmp_path / "queries.tsv", "text\tnot\nred\tblue\n")) == [{"text": "red", "not": ["blue"]}]


def test_a_table_that_is_gzipped(tmp_path):
    path = tmp_path / "queries.csv.gz"
    path.write_bytes(gzip.compress(b"text\nred\nblue\n"))
    assert described(path) == [{"text": "red"}, {"text": "blue"}]


def test_json_lines_and_a_list(tmp_path):
    lines = '{"text": "red", "not": ["blue", "green"]}\n{"like": 3, "text": null}\n'
    expected = [{"text": "red", "not": ["blue", "green"]}, {"like": 3}]
    assert described(write(tmp_path / "queries.jsonl", lines)) == expected
    assert described(write(tmp_path / "queries.json", '[{"image": "a.jpg", "text": "x", "weight": 1}]')) == [
        {"text": "x", "image": "a.jpg", "weight": 1}
    ]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        pytest.param("a.txt", "\n \n", "has no query; expected one text per line", id="nothing but blanks"),
        pytest.param("a.csv", "text\n", "has no query", id="a heading alone"),
        pytest.param("a.csv", "query\nred\n", "has the column 'query' in its first line", id="heading"),
        pytest.param("a.csv", "text\nred, small\n", "line 2 has 2 cells, but the heading has 1", id="a comma"),
        pytest.param("a.csv", "text,like\nred,seven\n", "line 2: `like` of a query is 'seven'", id="a word as row"),
        pytest.param("a.csv", "text,weight\nred,heavy\n", "line 2: `weight` .* 'heavy'", id="weight"),
        pytest.param("a.csv", "text,not\nred,\n,blue\n", "line 3: A query needs a text", id="an exclusion alone"),
        pytest.param("a.jsonl", '{"text": "red"}\n{"txt": "x"}\n', "line 2 has the key 'txt'; expected text", id="key"),
        pytest.param("a.jsonl", '{"text": "red"}\n{"text": 3}\n', "line 2: `text` of a query is 3", id="a number"),
        pytest.param("a.jsonl", '{"text": "red"}\n{"text": "re\n', "line 2 is no", id="no JSON"),
        pytest.param("a.json", '["red"]', "row 0 is a str; expected an object with the keys", id="a list of texts"),
        pytest.param("a.jsonl", '{"text": "a", "weight": 2}\n{"text": "b"}', "line 1: `weight` .* is 2", id="weight 2"),
    ],
)
def test_a_row_that_is_no_query_is_named(tmp_path, name, text, sentence):
    with pytest.raises(DataError, match=sentence):
        read_queries(write(tmp_path / name, text))


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    for name in ("a.txt", "a.csv", "a.jsonl"):
        with pytest.raises(DataError, match="does not exist"):
            read_queries(tmp_path / name)
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
    with pytest.raises(DataError, match=r"picture\.txt is not text, but a PNG picture; name a file of text"):
        read_queries(tmp_path / "picture.txt")
