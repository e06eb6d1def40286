"""Caption clean-up: the same words for the tokeniser, the text teacher and the benchmarks."""

from __future__ import annotations

import re
import unicodedata

import numpy as np

from cusa.config.captions import PUBLISHED, CaptionCleaning

_TO_SPACE = re.compile(r"[,.'!?\"()*#:;~\-/]")
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
    elif not any(unicodedata.category(character)[0] in _OF_WORDS for character in caption):
        return ""
    return " ".join(caption.split()[: cleaning.max_words])


def sampled_positions(captions: int) -> np.ndarray:
    """Positions of at most SAMPLED_CAPTIONS of so many captions, evenly spread, ascending int64."""
    return np.unique(np.linspace(0, captions - 1, min(captions, SAMPLED_CAPTIONS)).astype(np.int64))
