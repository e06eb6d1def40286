"""Hits as a table of text."""

from __future__ import annotations

import pytest

from cusa.search.searcher import Hit
from cusa.search.table import columns_of, cut, padded, printable, table_lines

HITS = [
    Hit(row=12, item="a.jpg", score=0.98765, captions=("a red car", "a car")),
    Hit(row=3, item="folder/of/pictures/b.jpg", score=-0.5, captions=(), duplicate_of=12),
]


def test_a_table_has_a_line_for_each_hit():
    assert list(table_lines(HITS)) == [
        "   score row  item                      captions",
        "1  0.988  12  a.jpg                     a red car; a car",
        "2 -0.500   3  folder/of/pictures/b.jpg  (as row 12)",
    ]


def test_a_table_fits_the_width_of_a_terminal():
    lines = list(table_lines(HITS, width=40))
    assert all(columns_of(line) <= 40 for line in lines)
    assert lines[2] == "2 -0.500   3  folder/of/pictu…  (as row…"
    assert all(len(line) > 20 for line in table_lines(HITS, width=21))


def test_the_caption_of_a_text_is_the_text_and_not_shown_twice():
    (_, line) = table_lines([Hit(row=0, item="a red car", score=1.0, captions=("a red car",))])
    assert line == "1 1.000   0  a red car"


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        pytest.param("car", 3, id="latin"),
        pytest.param("紅い車", 6, id="japanese"),
        pytest.param("🚗", 2, id="emoji"),
        pytest.param("cafe\N{COMBINING ACUTE ACCENT}", 4, id="combining accent"),
        pytest.param("", 0, id="nothing"),
    ],
)
def test_columns_are_counted_as_a_terminal_draws_them(text, columns):
    assert columns_of(text) == columns


def test_wide_characters_are_cut_whole():
    assert cut("紅い車です", 6) == "紅い…"
    assert columns_of(padded("紅い車です", 6)) == 6
    assert padded("a", 3) == "a  "


def test_no_control_character_reaches_the_terminal():
    evil = "\x1b]0;title\x07a\nb\tc\x9b31m\u202egpj.exe\u2028"
    shown = printable(evil)
    assert shown == " ]0;title a b c 31m gpj.exe "
    (_, line) = table_lines([Hit(row=0, item=evil, score=1.0, captions=(evil,))])
    assert "\x1b" not in line
    assert "\n" not in line
