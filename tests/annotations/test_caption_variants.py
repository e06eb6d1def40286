"""Changed captions: parts and words that are left out or reordered."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cusa.annotations.caption_variants import caption_variant, caption_variants
from cusa.common.draws import hashed
from cusa.config.augmentation import CaptionAugmentation
from cusa.config.captions import PUBLISHED, CaptionCleaning

LIST = "Force cup, plumber; suction, toilet"
CLEANED = "force cup plumber suction toilet"
NOTHING = {"drop_parts": 0.0, "drop_words": 0.0, "reorder": None}


def variants(caption: str, cleaned: str, count: int = 400, cleaning=PUBLISHED, **settings: object) -> list[str]:
    same = [caption] * count, [cleaned] * count
    chosen = CaptionAugmentation(**{**NOTHING, **settings})
    return caption_variants(*same, cleaning, chosen, hashed(np.arange(count)))


def test_parts_stay_whole_when_they_are_reordered():
    found = variants(LIST, CLEANED, reorder="parts")
    assert all(sorted(each.split()) == sorted(CLEANED.split()) for each in found)
    assert all("force cup" in each for each in found)
    assert len(set(found)) == 24
    assert max(Counter(found).values()) < 40  # of 400 in 24 orders


def test_parts_are_left_out_with_their_probability_and_one_stays():
    found = variants(LIST, CLEANED, drop_parts=0.25)
    for part in ("force cup", "plumber", "suction", "toilet"):
        assert 0.68 < np.mean([part in each for each in found]) < 0.82
    assert all(variants(LIST, CLEANED, drop_parts=0.99))
    assert set(variants(LIST, CLEANED, drop_parts=0.99)) >= {"force cup", "plumber", "suction", "toilet"}


def test_words_are_left_out_and_one_stays():
    sentence = "a man rides a wave"
    found = variants(sentence, sentence, drop_words=0.2)
    assert 0.76 < np.mean([len(each.split()) for each in found]) / 5 < 0.84
    assert all(variants(sentence, sentence, drop_words=0.99))
    orders = variants(sentence, sentence, reorder="words")
    assert all(sorted(each.split()) == sorted(sentence.split()) for each in orders)
    assert len(set(orders)) > 40


def test_a_sentence_without_commas_is_not_changed_by_parts():
    settings = {"drop_parts": 0.9, "reorder": "parts"}
    assert set(variants("A man, ...", "a man", 50, **settings)) == {"a man"}
    assert set(variants("A man rides.", "a man rides", 50, **settings)) == {"a man rides"}


def test_a_number_with_a_comma_stays_whole():
    as_they_are = CaptionCleaning(clean="none", max_words=None)
    found = variants("tv, 1,299 euros", "tv, 1,299 euros", cleaning=as_they_are, reorder="parts")
    assert set(found) == {"tv, 1,299 euros", "1,299 euros, tv"}
    assert set(variants("3,5 cm", "3,5 cm", cleaning=as_they_are, drop_parts=0.9, reorder="parts")) == {"3,5 cm"}
    assert len(set(variants("a,,b;,c", "a b c", cleaning=as_they_are, reorder="parts"))) == 6


def test_variants_are_cleaned_as_the_captions_are():
    as_they_are = CaptionCleaning(clean="none", max_words=None)
    found = variants("Red Apple,Green Pear", "Red Apple,Green Pear", cleaning=as_they_are, reorder="parts")
    assert set(found) == {"Red Apple,Green Pear", "Green Pear, Red Apple"}
    two = CaptionCleaning(clean="published", max_words=2)
    assert {len(each.split()) for each in variants(LIST, "force cup", cleaning=two, reorder="parts")} == {2}
    assert set(variants("红苹果，绿梨", "红苹果，绿梨", cleaning=as_they_are, reorder="parts")) == {
        "红苹果，绿梨",
        "绿梨, 红苹果",
    }


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_a_variant_is_a_function_of_its_seed(seed):
    settings = CaptionAugmentation(drop_words=0.3)
    one = caption_variant(LIST, CLEANED, PUBLISHED, settings, seed)
    assert one == caption_variant(LIST, CLEANED, PUBLISHED, settings, seed)
    assert set(one.split()) <= set(CLEANED.split())
