from __future__ import annotations

import sys
import unicodedata

import pytest

from cusa.annotations.captions import clean_caption, clean_captions, sampled_positions
from cusa.config.captions import CaptionCleaning


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("A man, with a Red helmet.", "a man with a red helmet"),
        ("two-way street/road", "two way street road"),
        ('<person> said: "what\'s (up)?" ~#1*;!', "person said what s up 1"),
        ("  many \t spaces\nhere ", "many spaces here"),
        (" ".join(str(n) for n in range(70)), " ".join(str(n) for n in range(64))),
        ("?!.", ""),
        ("Crème brûlée", "crème brûlée"),
    ],
)
def test_clean_up_as_published(caption, cleaned):
    assert clean_caption(caption) == cleaned


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("Bolt M8, steel: AB-12/3 (zinc)", "Bolt M8, steel: AB-12/3 (zinc)"),
        ("  many \t spaces\nhere\u3000and\u00a0there ", "many spaces here and there"),
        ("<person> said: ?!", "<person> said: ?!"),
        ("?!.", ""),
        ("\u3002\u200b\u2026 -", ""),
        ("\u2764 +", "\u2764 +"),
        # Letters stay the code points that they are: é as one and as two.
        ("caf\u00e9 cafe\u0301", "caf\u00e9 cafe\u0301"),
        ("两只狗，在海滩上。", "两只狗，在海滩上。"),
        (" ".join(map(str, range(70))), " ".join(map(str, range(70)))),
        (" \n\u2003", ""),
    ],
)
def test_without_clean_up_only_white_space_changes(caption, cleaned):
    assert clean_caption(caption, CaptionCleaning(clean="none", max_words=None)) == cleaned


@pytest.mark.parametrize(("clean", "cleaned"), [("published", "ab 12"), ("none", "AB-12/3, red")])
def test_both_cut_after_max_words(clean, cleaned):
    assert clean_caption("AB-12/3, red", CaptionCleaning(clean=clean, max_words=2)) == cleaned


def test_a_sample_is_bounded_and_evenly_spread():
    assert sampled_positions(3).tolist() == [0, 1, 2]
    assert sampled_positions(0).tolist() == []
    many = sampled_positions(1_000_000)
    assert len(many) == 5000
    assert (many[0], many[-1]) == (0, 999_999)


@pytest.mark.parametrize("clean", ["published", "none"])
def test_many_captions_are_cleaned_as_each_is(clean):
    """Every character of Unicode, at the start and the end of captions too; the last sigma of a word is another one."""
    marks = [chr(code) for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    captions = ["".join(marks[start : start + 7]) for start in range(0, len(marks), 7)]
    captions += [
        "\u039f\u03a3",
        "\u03a3",
        "a\u03a3.",
        "\u03a3\u0301b",
        "<person>",
        "<per.son>",
        "",
        "?!",
        "a\x1cb",
        " x ",
    ]
    for cleaning in (CaptionCleaning(clean=clean, max_words=3), CaptionCleaning(clean=clean, max_words=None)):
        assert clean_captions(captions, cleaning) == [clean_caption(caption, cleaning) for caption in captions]
    assert clean_captions([]) == []


def test_a_caption_without_clean_up_has_a_word_where_a_letter_mark_number_or_symbol_is():
    none = CaptionCleaning(clean="none", max_words=None)
    for code in range(0x110000):
        mark = chr(code)
        if not mark.isspace():
            assert bool(clean_caption(mark, none)) == (unicodedata.category(mark)[0] in "LMNS"), hex(code)
