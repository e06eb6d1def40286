from __future__ import annotations

import pytest

from cusa.annotations.captions import clean_caption


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
