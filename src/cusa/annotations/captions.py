"""Caption clean-up: the same words for the tokeniser, the text teacher and the benchmarks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from cusa.config.captions import PUBLISHED, CaptionCleaning

_PUNCTUATION = ",.'!?\"()*#:;~-/"
_TO_SPACE = re.compile(f"[{re.escape(_PUNCTUATION)}]")
_LETTER_OR_NUMBER = re.compile(r"[^\W_]")  # a search for these characters is much faster than one for a category
SAMPLED_CAPTIONS = 5000  # that reports look at
_OF_WORDS = "LMNS"  # Unicode's letters, marks, numbers and symbols, emoji among them


def clean_caption(caption: str, cleaning: CaptionCleaning = PUBLISHED) -> str:
    """A caption as the tokeniser reads it. The result may be "", which the caller has to treat as bad input.

    `published` is the clean-up of the paper for training, ITR and ECCV Caption; STS sentences have none: lower case,
    punctuation to spaces, `<person>` to `person`. `none` keeps every character but white space; a caption of nothing
    but punctuation has no word and becomes "". With both, runs of white space become one blank, and only the first
    `cleaning.max_words` words are kept.
    """
    if cleaning.clean == "published":
        caption = _TO_SPACE.sub(" ", caption.lower()).replace("<person>", "person")
    elif not _has_a_word(caption):
        return ""
    return " ".join(caption.split()[: cleaning.max_words])


def clean_captions(captions: Sequence[str], cleaning: CaptionCleaning = PUBLISHED) -> list[str]:
    """`clean_caption` of many captions, which is several times as fast. None of them may have a NUL."""
    if not captions or cleaning.clean != "published":
        return [clean_caption(caption, cleaning) for caption in captions]
    # Letters do not become others because of a NUL beside them, as the sigma at the end of a Greek word does.
    joined = "\0".join(captions).lower()
    for mark in _PUNCTUATION:
        joined = joined.replace(mark, " ")
    texts = joined.replace("<person>", "person").split("\0")
    return [" ".join(text.split()[: cleaning.max_words]) for text in texts]


def _has_a_word(caption: str) -> bool:
    if _LETTER_OR_NUMBER.search(caption):
        return True
    return any(unicodedata.category(character)[0] in _OF_WORDS for character in caption)


def sampled_positions(captions: int) -> np.ndarray:
    """Positions of at most SAMPLED_CAPTIONS of `captions` captions, evenly spread, ascending int64."""
    return np.unique(np.linspace(0, captions - 1, min(captions, SAMPLED_CAPTIONS)).astype(np.int64))
