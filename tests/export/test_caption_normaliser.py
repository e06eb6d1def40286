"""The clean-up of captions as a normaliser of tokenizers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cusa.annotations.captions import clean_caption
from cusa.config.captions import PUBLISHED, CaptionCleaning
from cusa.export.caption_normaliser import caption_normaliser
from cusa.export.sentence_transformers_check import ODD_TEXTS

NONE = CaptionCleaning(clean="none", max_words=None)
FEW = CaptionCleaning(clean="none", max_words=3)
ONE = CaptionCleaning(clean="published", max_words=1)
CLEANINGS = [PUBLISHED, NONE, FEW, ONE]
IDS = ["published", "none", "none-3-words", "published-1-word"]
ALPHABET = "aBz .,'!?\"()*#:;~-/<>\t\n\x1c\x1f\x85\xa0\u2028\u3000"
ALPHABET += "\u03a3\u03c3\u0130\u1e9e\u00c9\u0301\u00ad\u706b\U0001f9bd"


@pytest.mark.parametrize("cleaning", CLEANINGS, ids=IDS)
@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_odd_captions(cleaning, text):
    assert caption_normaliser(cleaning).normalize_str(text) == clean_caption(text, cleaning)


@pytest.mark.parametrize("cleaning", CLEANINGS, ids=IDS)
@given(text=st.text(alphabet=ALPHABET, max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_caption_with_a_word(cleaning, text):
    if cleaned := clean_caption(text, cleaning):
        assert caption_normaliser(cleaning).normalize_str(text) == cleaned


def test_the_word_limit_is_that_of_the_paper():
    text = "  ".join(f"W{number}" for number in range(100))
    assert len(caption_normaliser(PUBLISHED).normalize_str(text).split(" ")) == 64


def test_a_prompt_is_put_before_the_caption_and_is_not_cleaned():
    assert caption_normaliser(PUBLISHED, "Query: ").normalize_str("A red-CAR.") == "Query: a red car"
