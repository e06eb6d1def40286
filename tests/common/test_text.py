"""Text files in every encoding that a mark or a key names, packed or not, and what is said of all others."""

from __future__ import annotations

import gzip
import os
import re
import socket
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc, orc

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


@pytest.mark.parametrize("name", ["arrow", "stream", "orc", "gzip"])
def test_tables_of_other_programs_are_named(tmp_path, name):
    table, path = pa.table({"image": ["a.jpg"] * 9, "caption": ["a dog"] * 9}), tmp_path / "a.csv"
    if name == "orc":
        orc.write_table(table, path)
    elif name == "gzip":
        path.write_bytes(gzip.compress(gzip.compress(b"image,caption\n")))
    else:
        with (ipc.new_file if name == "arrow" else ipc.new_stream)(path, table.schema) as writer:
            writer.write_table(table)
    says = {
        "arrow": "an Arrow file",
        "stream": "an Arrow stream",
        "orc": "an ORC file",
        "gzip": "compressed with gzip twice",
    }[name]
    advice = "unpack it once" if name == "gzip" else r"write it as Parquet \(datasets: Dataset.to_parquet"
    assert re.search(f"is not text, but {says}[^;]*; {advice}", refused(path))


def test_a_heading_that_begins_like_an_orc_file_is_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"ORC,image\nan orc,1.jpg\n")
    assert list(text_lines(tmp_path / "a.csv")) == ["ORC,image", "an orc,1.jpg"]


@pytest.mark.parametrize("encoding", ["ISO-2022-JP", "ISO-2022-KR"])
def test_encodings_of_seven_bits_are_named_and_can_be_given(tmp_path, encoding):
    text = {"ISO-2022-JP": "犬が走る", "ISO-2022-KR": "개가 달린다"}[encoding]
    (tmp_path / "a.csv").write_bytes(f"image,caption\n1.jpg,{text}\n".encode(encoding))
    assert f"is not UTF-8 text but {encoding}, by its escapes; convert it (iconv -f {encoding} " in refused(
        tmp_path / "a.csv"
    )
    assert list(text_lines(tmp_path / "a.csv", encoding))[1] == f"1.jpg,{text}"
    with pytest.raises(DataError, match=f"1.txt is not UTF-8 text but {encoding}"):
        text_of(text.encode(encoding), "1.txt")


def test_one_escape_that_is_left_in_utf_8_changes_nothing(tmp_path):
    text = "a.jpg,café 日本語\nb.jpg,raw mail \x1b$B%F\x1b(B title\n"
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    assert "\n".join(text_lines(tmp_path / "a.csv")) + "\n" == text


@pytest.mark.parametrize("data", [b"image,caption\n1.jpg,a dog\n" + bytes(600), bytes(4096)], ids=["end", "all"])
def test_nuls_that_a_copy_leaves_are_not_taken_for_utf_16(tmp_path, data):
    (tmp_path / "a.csv").write_bytes(data)
    assert re.search(r"has [\d,]+ NULs after one another from byte \d+ on.*copy it again", refused(tmp_path / "a.csv"))


def test_halves_of_characters_in_utf_8_are_named_with_what_mends_them(tmp_path):
    emoji = "🐕".encode("utf-16-be")
    halves = b"".join(chr(int.from_bytes(emoji[at : at + 2])).encode("utf-8", "surrogatepass") for at in (0, 2))
    data = b"1.jpg,a dog " + halves + b"\n"
    (tmp_path / "a.csv").write_bytes(data)
    said = refused(tmp_path / "a.csv")
    assert "line 1, byte 12: is not UTF-8 text (invalid continuation byte), but CESU-8" in said
    assert eval(f"data.{said.split('Python: ')[1].rstrip('.')}") == "1.jpg,a dog 🐕\n"  # noqa: S307
    with pytest.raises(DataError, match="1.txt, byte 12: is not UTF-8 text, but CESU-8"):
        text_of(data, "1.txt")


def test_utf_16_that_has_no_byte_order_mark_is_a_sentence(tmp_path):
    (tmp_path / "a.csv").write_bytes("a line\n".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"is not UTF-16 text .* without a byte order mark is utf-16-le or"):
        list(text_lines(tmp_path / "a.csv", "utf-16"))
    assert list(text_lines(tmp_path / "a.csv", "utf-16-le")) == ["a line"]


def test_a_few_accents_are_taken_for_those_of_western_europe_first(tmp_path):
    (tmp_path / "a.csv").write_bytes("image,caption\n1.jpg,Un niño come una manzana\n".encode("cp1252"))
    assert "iconv -f cp1252 " in refused(tmp_path / "a.csv")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_of_files_that_were_joined_are_no_text(tmp_path, encoding):
    (tmp_path / "all.txt").write_bytes(
        b"".join(part.encode(encoding) for part in ("", "a.jpg\n", "b.jpg\nc\ufeff.jpg"))
    )
    assert list(text_lines(tmp_path / "all.txt")) == ["a.jpg", "b.jpg", "c\ufeff.jpg"]


def test_a_table_in_html_that_is_called_an_excel_file_is_named(tmp_path):
    (tmp_path / "a.xls").write_text('\n<table border="1"><tr><td>image</td></tr></table>')
    assert refused(tmp_path / "a.xls").endswith(
        "a.xls is a table in HTML, which some programs call an Excel file; write it as CSV."
    )


def test_folders_and_missing_files_are_sentences(tmp_path):
    assert "does not exist" in refused(tmp_path / "none")
    assert "cannot be read (Is a directory)" in refused(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a café 🙂", None),
        ("", None),
        ("half \ud83d", "the lone surrogate \\ud83d)"),
        ("caf\udce9", "or the byte 0xe9, which is not UTF-8)"),
        ("a\0b", "a NUL character"),
    ],
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
