"""The published JSON, written many members at once."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from cusa.annotations.published_json import KEYS, PublishedJson, joined_members

MEMBERS = [
    {"image_path": "/a/b.jpg", "caption": "a dog", "image_id": "1"},
    {"image_path": "/a/\u4e2d \U0001f600.jpg", "caption": "".join(map(chr, range(1, 256))), "image_id": '"\\'},
    {"image_path": "/", "caption": "\u2028\u2029\x7f\ufeff", "image_id": ""},
]


def table(members: list[dict[str, str]]) -> pa.Table:
    return pa.table({key: pa.array([member[key] for member in members], pa.string()) for key in KEYS})


@pytest.mark.parametrize("parts", [[MEMBERS], [MEMBERS[:1], [], MEMBERS[1:]], [[], MEMBERS[:2], MEMBERS[2:]]])
def test_the_bytes_are_those_of_python(parts, tmp_path):
    with PublishedJson(tmp_path / "a.json") as published:
        for part in parts:
            published.add(joined_members(table(part)))
    lines = ",\n".join(json.dumps(member, ensure_ascii=False) for member in MEMBERS)
    assert (tmp_path / "a.json").read_bytes() == f"[\n{lines}\n]\n".encode()


def write_half(path: Path) -> None:
    with PublishedJson(path) as published:
        published.add(joined_members(table(MEMBERS)))
        raise KeyError


def test_a_list_that_an_error_ended_is_not_completed(tmp_path):
    with pytest.raises(KeyError):
        write_half(tmp_path / "a.json")
    with pytest.raises(ValueError, match="Expecting"):
        json.loads((tmp_path / "a.json").read_text())
