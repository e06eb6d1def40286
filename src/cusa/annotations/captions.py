"""Caption clean-up as published: the same words for the tokeniser, the text teacher and the benchmarks."""

from __future__ import annotations

import re

MAX_WORDS = 64
_TO_SPACE = re.compile(r"[,.'!?\"()*#:;~\-/]")


def clean_caption(caption: str) -> str:
    """Lower-case, punctuation to spaces, `<person>` to `person`, runs of white space to one, at most 64 words.

    This is the published clean-up for training, ITR and ECCV Caption; STS sentences have none. The result may be "",
    which the caller has to treat as bad input.
    """
    words = _TO_SPACE.sub(" ", caption.lower()).replace("<person>", "person").split()
    return " ".join(words[:MAX_WORDS])
