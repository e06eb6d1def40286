"""Delimited text in every dialect is read back; text that breaks the rules loses no row without a word."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cusa.annotations.delimited import Dialect, delimited_rows, rows_of_lines, sniffed

NO_NUL = st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")
ALPHABET = st.sampled_from("ab\"' ,;\t|é日")


def lines_of(text: str) -> list[str]:
    return list(io.StringIO(text, newline=""))


def cells_of(text: str, separator: str = ",", quotes: bool | None = None) -> list:
    return [row.cells for row in rows_of_lines(lines_of(text), Dialect(separator, quotes))]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("delimited") / "t.csv"


@settings(max_examples=80, deadline=None)
@given(
    captions=st.lists(st.text(NO_NUL, max_size=30).filter(lambda text: "\r" not in text), min_size=1, max_size=6),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_tables_that_python_writes_are_read_back(file, captions, separator, quoting, end, encoding):
    written = [["image", "caption", "split"], *([f"pics/{n}.jpg", text, "train"] for n, text in enumerate(captions))]
    with file.open("w", newline="", encoding=encoding) as opened:
        csv.writer(opened, delimiter=separator, quoting=quoting, lineterminator=end).writerows(written)
    dialect = sniffed(file, ["image", "caption"])
    assert dialect.separator == separator
    assert [row.cells for row in delimited_rows(file, dialect)] == written


@settings(max_examples=150, deadline=None)
@given(
    captions=st.lists(st.text(ALPHABET, max_size=12), min_size=1, max_size=8),
    separator=st.sampled_from([",", "\t"]),
)
def test_no_quotation_mark_swallows_a_row(captions, separator):
    """Rows written without any quoting: each is read, or is a row that cannot be read; none is in another's cell."""
    text = "".join(f"{n}.jpg{separator}{caption}{separator}train\n" for n, caption in enumerate(captions))
    found = list(rows_of_lines(lines_of(f"image{separator}caption{separator}split\n{text}"), Dialect(separator)))
    assert [row.line for row in found] == list(range(1, len(captions) + 2))
    for row, caption in zip(found[1:], captions, strict=True):
        if separator == "\t" and "\t" not in caption and row.reason is None and '"' not in caption:
            assert row.cells[1] == caption


def test_a_mark_that_opens_in_one_row_and_closes_in_another():
    rows = [f"pics/{n}.jpg,picture {n},train" for n in range(8)]
    rows[3], rows[6] = 'pics/3.jpg,"Hello,train', 'pics/6.jpg,and bye",train'
    found = list(rows_of_lines(lines_of("image,caption,split\n" + "\n".join(rows)), Dialect(",")))
    assert len(found) == 9
    (odd,) = (row for row in found if row.reason)
    assert odd.line == 5
    assert "has a quotation mark that line 8 closes, over lines that look like rows" in odd.reason
    assert found[7].cells == ["pics/6.jpg", 'and bye"', "train"]
    tabs = [row.replace(",", "\t") for row in ["image,caption,split", *rows]]
    assert cells_of("\n".join(tabs), "\t")[4] == ["pics/3.jpg", '"Hello', "train"]


def test_cells_over_several_lines_are_cells():
    text = 'image,caption,split\na.jpg,"one line,\nand, another",train\nb.jpg,"x ""y""",val\n'
    assert cells_of(text)[1:] == [["a.jpg", "one line,\nand, another", "train"], ["b.jpg", 'x "y"', "val"]]
    assert cells_of(text.replace(",", "\t"), "\t")[1][0] == "a.jpg"


def test_quotes_can_be_said():
    text = 'image,caption\na.jpg,"open\nb.jpg,close"\n'
    assert cells_of(text, quotes=True)[1] == ["a.jpg", "open\nb.jpg,close"]
    assert cells_of(text, quotes=False)[1:] == [["a.jpg", '"open'], ["b.jpg", 'close"']]
    assert [bool(row.reason) for row in rows_of_lines(lines_of(text), Dialect(","))] == [False, True, False]


@pytest.mark.parametrize(
    ("text", "name", "separator", "first"),
    [
        ("image;caption\na.jpg;x, y\n", "t.csv", ";", ["image", "caption"]),
        ("image\tcaption\na.jpg\tx, y\n", "t.csv", "\t", ["image", "caption"]),
        ("a.jpg|x, y and z\nb.jpg|no comma\n", "t.txt", "|", ["a.jpg", "x, y and z"]),
        ("sep=;\nimage;caption\na.jpg;x\n", "t.csv", ";", ["image", "caption"]),
        ('image, caption\na.jpg, "x, y"\n', "t.csv", ",", ["image", "caption"]),
        ("image | caption\na.jpg | x\n", "t.csv", "|", ["image", "caption"]),
        ("image\ncaption\n", "t.csv", ",", ["image"]),
        ("image,caption\ra.jpg,b\r", "t.csv", ",", ["image", "caption"]),
    ],
)
def test_the_separator_is_found(tmp_path, text, name, separator, first):
    (tmp_path / name).write_text(text, newline="")
    dialect = sniffed(tmp_path / name)
    assert dialect.separator == separator
    assert next(delimited_rows(tmp_path / name, dialect)).cells == first


def test_blanks_after_the_separators_of_all_rows_but_the_heading_are_no_part_of_the_cells(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('image,caption\n 0.jpg , a dog \n 1.jpg , "a cat, a hat"\n')
    assert [row.cells for row in delimited_rows(path, sniffed(path))][1:] == [
        ["0.jpg", "a dog"],
        ["1.jpg", "a cat, a hat"],
    ]
    path.write_text("image,caption\n0.jpg, a dog\n 1.jpg,a cat\n")
    assert [row.cells for row in delimited_rows(path, sniffed(path))][1:] == [["0.jpg", " a dog"], [" 1.jpg", "a cat"]]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_byte_order_marks_within_a_file_that_joins_files_are_no_part_of_a_cell(tmp_path, separator):
    parts = [f'image{separator}caption\n"a.jpg"{separator}a dog\n', f'"b.jpg"{separator}"a \ufeffcat"\n']
    (tmp_path / "joined.csv").write_bytes(b"".join(part.encode("utf-8-sig") for part in ["", "\n", *parts]))
    rows = delimited_rows(tmp_path / "joined.csv", sniffed(tmp_path / "joined.csv"))
    assert [row.cells for row in rows] == [["image", "caption"], ["a.jpg", "a dog"], ["b.jpg", "a \ufeffcat"]]


def test_the_end_of_a_file_of_dos_is_no_row(tmp_path):
    (tmp_path / "t.csv").write_text("image,caption\r\n0.jpg,a dog\r\n\x1a", newline="")
    assert [row.cells for row in delimited_rows(tmp_path / "t.csv", Dialect(","))] == [
        ["image", "caption"],
        ["0.jpg", "a dog"],
    ]
