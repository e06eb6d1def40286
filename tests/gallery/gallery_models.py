"""Small models of real pictures and texts, without torch, and a program that embeds with one of them, to be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from cusa.errors import DataError
from cusa.gallery.embedding import Embedding, embed_gallery
from cusa.gallery.sources.opening import open_source
from cusa.model.interface import opened


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class SmallModel:
    """The embedding of a picture is its 2 x 2 thumbnail; that of a text the counts of some letters."""

    dimension = 12
    batch_size = 4

    def __init__(self, folder=".", weights_sha256="ab" * 32, seconds=0.0):
        self.folder, self.weights_sha256, self.seconds = Path(folder).absolute(), weights_sha256, seconds

    def encode_image(self, items, head="cross"):
        found, problems = [], []
        for place, item in enumerate(items):
            try:
                with opened(item) as picture:
                    found.append(np.asarray(picture.resize((2, 2)), dtype=np.float64).reshape(-1) + 1)
            except DataError as error:
                problems.append(f"item {place}: {error}".rstrip("."))
        if problems:
            raise DataError(f"{len(problems)} of {len(items)} pictures cannot be read: {'; '.join(problems)}.")
        return unit(np.array(found) ** (1 if head == "cross" else 2))

    def encode_text(self, texts, head="cross"):
        time.sleep(self.seconds)
        if empty := [text for text in texts if not any(letter.isalnum() for letter in text)]:
            raise DataError(f"{len(empty)} of {len(texts):,} texts have no word after clean-up: 0: {empty[0]!r}.")
        return unit(np.array([[text.count(letter) + 1 for letter in "abcdefghijkl"] for text in texts]))

    def similarity(self, first, second):
        return first @ second.T


class PreparingModel(SmallModel):
    """The same model, with pictures prepared by threads, as models of torch have it."""

    def prepared(self, item, max_pixels):
        with opened(item, max_pixels) as picture:
            return np.asarray(picture.resize((2, 2)), dtype=np.float64).reshape(-1) + 1

    def encode_prepared(self, prepared, head="cross"):
        time.sleep(self.seconds)
        return unit(np.array(prepared) ** (1 if head == "cross" else 2))


if __name__ == "__main__":
    items, output, seconds = sys.argv[1:4]
    embed_gallery(PreparingModel(seconds=float(seconds)), open_source(items), output, Embedding(part_rows=5))
