"""JSON larger than memory, read a member at a time: as Python's own decoder reads it whole, or a sentence."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cusa.common import json_stream
from cusa.common.json_stream import open_json
from cusa.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(autouse=True, scope="module")
def small_window():
    """Every boundary of a window falls somewhere into the small files of these tests."""
    before, json_stream.WINDOW = json_stream.WINDOW, 7
    yield
    json_stream.WINDOW = before


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("json") / "a.json"


def members(path) -> list:
    with open_json(path) as stream:
        found = list(stream.members())
        stream.end()
    return found


@settings(max_examples=80, deadline=None)
@given(content=st.lists(VALUES, max_size=6), indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_members_are_those_of_the_whole(file, content, indent, ascii_only):
    file.write_bytes(json.dumps(content, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))
    assert members(file) == content


@settings(max_examples=100, deadline=None)
@given(content=st.dictionaries(st.text(max_size=5), VALUES, max_size=5), indent=st.sampled_from([None, 2]))
def test_entries_of_an_object_are_read_or_skipped_one_by_one(file, content, indent):
    file.write_text(json.dumps(content, indent=indent))
    with open_json(file) as stream:
        read = {key: stream.value() for key in stream.entries()}
        stream.end()
    assert read == content
    with open_json(file) as stream:
        for _ in stream.entries():
            stream.skip()
        stream.end()


@settings(max_examples=80, deadline=None)
@given(content=st.lists(VALUES, min_size=1, max_size=4), data=st.data())
def test_text_that_is_cut_or_mangled_is_read_as_json_does_or_a_sentence(file, content, data):
    text = json.dumps(content)
    at = data.draw(st.integers(0, len(text)))
    mangled = text[:at] + data.draw(st.text(st.characters(codec="utf-8"), max_size=2)) + text[at + 1 :]
    for damaged in (mangled, text[:at]):
        file.write_text(damaged)
        try:
            expected = json.loads(damaged)
        except ValueError:
            with pytest.raises(DataError, match="is not valid JSON"):
                members(file)
            continue
        if isinstance(expected, list):
            assert str(members(file)) == str(expected)


def test_what_cannot_be_written_elsewhere_is_kept_for_the_caller_to_judge(file):
    file.write_text('[NaN, -Infinity, "half \\ud83d", 123456789012345678901234567890]')
    found = members(file)
    assert math.isnan(found[0])
    assert found[1:] == [-math.inf, "half \ud83d", 123456789012345678901234567890]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"a": 1}, {"a": ', r"line 1: .*; it may have been cut off"),
        ('[{"a": 1},\n{"a": "no end', r"line 2: Unterminated string.*; it may have been cut off"),
        ('[{"a": 1}\n{"a": 2}]', "line 2: expected `,` or `]`.; correct it there"),
        ("[1] [2]", "something follows after the end"),
        ("[" * 100_000, "too deep"),
        ("", "expected `\\[`"),
        ("[" + "9" * 5000 + "]", "line 1: Exceeds the limit"),
    ],
)
def test_damaged_json_is_told_by_line(file, text, says):
    file.write_text(text)
    with pytest.raises(DataError, match=says):
        members(file)


def test_a_long_file_with_an_error_at_its_start_is_not_read_to_its_end(file):
    file.write_text('[{"a": tru },' + " " * 10_000 + "]")
    with open_json(file) as stream, pytest.raises(DataError, match="line 1"):
        list(stream.members())
    assert len(stream.text) < 1000


def test_a_key_twice_with_two_values_is_a_sentence(file):
    file.write_text('[{"a": 1, "a": 1}, {"a": 1}]')
    assert members(file) == [{"a": 1}, {"a": 1}]
    file.write_text('[{"a": 1},\n {"caption": "a dog", "caption": "a cat"}]')
    with pytest.raises(DataError, match=r"line 2: the key `caption` is there twice in one object, with two values"):
        members(file)
