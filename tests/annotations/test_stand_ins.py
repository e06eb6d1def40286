"""What a download or another program has left in the place of data is called what it is; odd JSON is told rightly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cusa.annotations.sources.source import MalformedRow
from cusa.annotations.table_rows import table_rows
from cusa.commands.starting_configuration import look_at
from cusa.common.json_stream import open_json
from cusa.errors import CusaError, DataError

ROWS = [{"image": f"{number}.jpg", "caption": f"picture {number}"} for number in range(3)]


@pytest.mark.parametrize("name", ["data.csv", "data.json", "data.jsonl", "data.parquet", "data.tar"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "is a pointer of Git LFS"),
        (b"\n<!DOCTYPE html>\n<html><body>Please log in, or register</body></html>\n", "is an HTML page"),
        (b"<?xml version='1.0'?>\n<annotation/>\n", "is XML; write the table as CSV, JSON or Parquet"),
    ],
    ids=["lfs", "html", "xml"],
)
def test_a_file_in_the_place_of_data_is_called_what_it_is(name, content, says, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CusaError, match=f"{name} {says}"):
        look_at(tmp_path / name)


def test_a_comma_at_the_end_of_lines_is_told_for_each_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(",\n".join(map(json.dumps, ROWS)))
    first, second, last = (row for _, row in table_rows(path))
    assert isinstance(first, MalformedRow) and isinstance(second, MalformedRow)
    assert first.reason.startswith("ends with a comma") and second.place == f"{path}, line 2"
    assert last == ROWS[-1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (json.dumps(ROWS)[:-1] + ",]", r"line 1: a comma stands before the `\]`, and no member follows it\); correct"),
        (json.dumps(ROWS, indent=1)[:-2] + ",\n]", r"line 14: a comma stands before the `\]`"),
        (json.dumps(ROWS)[:-2], "it may have been cut off"),
        (f"// rows\n{json.dumps(ROWS)}", "line 1: nothing of JSON starts with '/'"),
        ("NaN", "holds a JSON number; expected a list"),
    ],
    ids=["comma", "comma on a line", "cut off", "comment", "NaN"],
)
def test_what_is_wrong_with_json_is_told_rightly(text, says, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        list(table_rows(path))


def test_what_json_starts_with_is_known(tmp_path):
    kinds = {"[1]": "list", "-1": "number", "Infinity": "number", "'a'": "no JSON", "": "nothing"}
    for text, kind in kinds.items():
        Path(tmp_path / "a.json").write_text(text)
        with open_json(tmp_path / "a.json") as stream:
            assert stream.kind == kind
