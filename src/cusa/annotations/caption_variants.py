"""Changed captions for training: parts or words of a caption are left out or reordered at random.

Leaving out words at random and swapping them are two of the four operations of EDA (Wei and Zou, 2019, arXiv
1901.11196). A list of keywords has its parts between commas: any choice of them, in any order, is a caption too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import numpy as np

from cusa.annotations.captions import clean_caption
from cusa.config.augmentation import CaptionAugmentation
from cusa.config.captions import CaptionCleaning

# Commas and semicolons of any script, but not the comma of a number such as 1,299.
BETWEEN_PARTS = re.compile(r"\s*(?:[;\uff0c\uff1b\u3001\u060c]|,(?!(?<=\d,)\d))+\s*|\s*\n\s*")


def parts_of(caption: str, cleaning: CaptionCleaning) -> list[str]:
    """The parts of a caption that are not empty after the clean-up."""
    return [part for part in BETWEEN_PARTS.split(caption) if part and clean_caption(part, cleaning)]


def caption_variant(
    caption: str, cleaned: str, cleaning: CaptionCleaning, settings: CaptionAugmentation, seed: int
) -> str:
    """A changed caption, cleaned. `cleaned` is the caption as the tables have it. Equal arguments give equal results.

    It has at least one of the caption's words. If nothing is left out or moved, it is `cleaned`.
    """
    # Only random() is used: Python promises for no other method that a seed gives the same numbers in every version.
    generator = random.Random(seed)
    parts = parts_of(caption, cleaning)
    if len(parts) > 1:
        chosen = _kept(parts, settings.drop_parts, generator)
        if settings.reorder == "parts":
            chosen = _shuffled(chosen, generator)
        if chosen != parts:
            cleaned = clean_caption(", ".join(chosen), cleaning)
    words = cleaned.split()
    words = _kept(words, settings.drop_words, generator)
    if settings.reorder == "words":
        words = _shuffled(words, generator)
    return " ".join(words)


def caption_variants(
    captions: Sequence[str],
    cleaned: Sequence[str],
    cleaning: CaptionCleaning,
    settings: CaptionAugmentation,
    seeds: np.ndarray,
) -> list[str]:
    """`caption_variant` of each caption; `seeds` are whole numbers, uint64 [captions]."""
    each = zip(captions, cleaned, seeds.tolist(), strict=True)
    return [caption_variant(caption, clean, cleaning, settings, seed) for caption, clean, seed in each]


def _kept(parts: list[str], share: float, generator: random.Random) -> list[str]:
    """The parts that are not left out; one of them if all would be left out."""
    if share == 0 or len(parts) < 2:
        return parts
    draws = [generator.random() for _ in parts]
    kept = [part for part, draw in zip(parts, draws, strict=True) if draw >= share]
    return kept or [parts[draws.index(max(draws))]]


def _shuffled(parts: list[str], generator: random.Random) -> list[str]:
    draws = [generator.random() for _ in parts]
    return [parts[place] for place in sorted(range(len(parts)), key=draws.__getitem__)]
