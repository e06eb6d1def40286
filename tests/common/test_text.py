"""Text files in every encoding that a mark or a key names, packed or not, and what is said of all others."""

from __future__ import annotations

import gzip
import os
import socket
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cusa.common.text import open_text, refuse_pipe, refuse_stand_in, text_lines, text_of, unstorable
from cusa.errors import DataError

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be-mark", "utf-32-be-mark")


def encoded(text: str, encoding: str) -> bytes:
    if encoding.endswith("-mark"):
        return ("\ufeff" + text).encode(encoding.removesuffix("-mark"))
    return text.encode(encoding)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("text") / "a.csv"


def refused(path, encoding=None) -> str:
    with pytest.raises(DataError) as caught:
        list(text_lines(path, encoding))
    return str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=200),
    encoding=st.sampled_from(ENCODINGS),
    packed=st.booleans(),
)
def test_text_is_read_back_whatever_its_marks_and_packing(file, text, encoding, packed):
    data = encoded(text, encoding)
    file.write_bytes(gzip.compress(data, mtime=0) if packed else data)
    with open_text(file) as opened:
        assert opened.read() == text
    assert text_of(data, "member") == text


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400), packed=st.booleans())
def test_any_bytes_are_text_or_a_sentence(file, data, packed):
    file.write_bytes(gzip.compress(data, mtime=0)[: len(data)] if packed else data)
    try:
        list(text_lines(file))
    except DataError as error:
        assert str(file) in str(error)


def test_the_place_and_the_likely_encoding_of_what_is_not_utf_8(tmp_path):
    path = tmp_path / "old.csv"
    path.write_bytes(b"image,caption\n" * 10_000 + "a.jpg,Собака бежит по улице".encode("cp1251"))
    message = refused(path)
    assert "old.csv, line 10001, byte 140,006: is not UTF-8 text" in message
    assert "it may be cp1251; convert it (iconv -f cp1251 -t UTF-8 old.csv > new-old.csv)" in message
    assert "say dataset.encoding: cp1251" in message
    assert list(text_lines(path, "cp1251"))[-1] == "a.jpg,Собака бежит по улице"


def test_the_place_is_right_where_a_character_is_cut_by_a_block(tmp_path):
    path = tmp_path / "cut.txt"
    path.write_bytes(b"a" * ((1 << 16) - 1) + b"\xc3" + b"(" + b"a" * 100)
    assert "line 1, byte 65,535:" in refused(path)


def test_utf_16_without_a_mark_is_told_and_can_be_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("image,caption\na.jpg,café".encode("utf-16-le"))
    assert "may be UTF-16LE without a byte order mark" in refused(path)
    assert list(text_lines(path, "UTF-16LE")) == ["image,caption", "a.jpg,café"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (gzip.compress(b"a line\n" * 1000, mtime=0)[:-20], "is not a complete gzip file"),
        (b"PK\x03\x04rest", "a ZIP archive .* save the table as CSV"),
        (b"\xfd7zXZ\x00rest", "compressed with xz"),
        ("ab\n".encode("utf-16") + b"\x00\xd8a\x00", "line 2, byte 8: is not UTF-16 text"),
    ],
    ids=["gzip", "zip", "xz", "utf-16"],
)
def test_files_that_are_no_text(tmp_path, data, says):
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(DataError, match=says):
        list(text_lines(tmp_path / "a.csv"))


def test_utf_16_that_has_no_byte_order_mark_is_a_sentence(tmp_path):
    (tmp_path / "a.csv").write_bytes("a line\n".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"is not UTF-16 text .* without a byte order mark is utf-16-le or"):
        list(text_lines(tmp_path / "a.csv", "utf-16"))
    assert list(text_lines(tmp_path / "a.csv", "utf-16-le")) == ["a line"]


def test_a_few_accents_are_taken_for_those_of_western_europe_first(tmp_path):
    (tmp_path / "a.csv").write_bytes("image,caption\n1.jpg,Un niño come una manzana\n".encode("cp1252"))
    assert "iconv -f cp1252 " in refused(tmp_path / "a.csv")


def test_folders_and_missing_files_are_sentences(tmp_path):
    assert "does not exist" in refused(tmp_path / "none")
    assert "cannot be read (Is a directory)" in refused(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a café 🙂", None), ("", None), ("half \ud83d", "the lone surrogate \\ud83d"), ("a\0b", "a NUL character")],
)
def test_text_that_no_file_can_store(text, reason):
    found = unstorable(text)
    assert found is None if reason is None else reason in found


def test_a_member_of_an_archive_that_is_not_utf_8():
    with pytest.raises(DataError, match=r"0001.txt in a.tar, byte 3: is not UTF-8 text"):
        text_of(b"caf\xe9 au lait", "0001.txt in a.tar")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: os.mkfifo(path), "a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)), "a socket"),
    ],
    ids=["pipe", "device", "socket"],
)
def test_what_can_be_read_only_once_is_a_sentence(tmp_path, monkeypatch, make, what):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "t")
    says = f"t is {what}, but is read more than once; write its content into a file, and name that"
    for read in (text_lines, refuse_pipe, refuse_stand_in):
        with pytest.raises(DataError, match=says):
            list(read(tmp_path / "t") or ())


def test_bytes_of_another_process_are_a_pipe():
    reading, writing = os.pipe()
    os.close(writing)
    with pytest.raises(DataError, match="is a pipe"):
        list(text_lines(Path(f"/dev/fd/{reading}")))
    os.close(reading)


@pytest.mark.parametrize(
    ("name", "advice"),
    [("a.txt", "give it the ending .tar, or unpack it"), ("a.tar", "unpack it, and name such a file in it")],
)
def test_a_tar_is_told_by_its_bytes(tmp_path, name, advice):
    with tarfile.open(tmp_path / name, "w") as tar:
        tar.addfile(tarfile.TarInfo("x"))
    with pytest.raises(DataError, match=f"{name} is not text, but a tar; .*{advice}"):
        list(text_lines(tmp_path / name))
