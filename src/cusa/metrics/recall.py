"""Recall at K and ranks of image-text retrieval.

Ties count against the model: an item that scores exactly as high as the right answer is ranked before it. Scores are
compared in float32 blocks. If two scores are too close for float32, they are compared in float64, so the results equal
those of a naive float64 computation.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from cusa.metrics.scores import (
    BLOCK_BYTES,
    COUNTED_BYTES,
    TIE,
    Embeddings,
    ExactScores,
    check_same_dimension,
    checked_embeddings,
    percent,
    rounding_bounds,
)

RECALL_AT = (1, 5, 10)


def with_slashes(recall_at: Sequence[int]) -> str:
    """The K of several R@K in a sentence: 1, 5 and 10 are `1/5/10`."""
    return "/".join(map(str, recall_at))


def image_text_recall(image: np.ndarray, text: np.ndarray, text_to_image: np.ndarray) -> dict[str, float]:
    """Recall of image-to-text and text-to-image retrieval.

    `image` [n, D] and `text` [m, D] are embeddings, which are normalised here. `text_to_image` int [m] is the image of
    each caption. The image-to-text rank is the best rank among an image's captions. Returns i2t_r1, i2t_r5, i2t_r10,
    t2i_r1, t2i_r5, t2i_r10, rsum (their sum) and r_mean (their mean) in percent, and the median ranks i2t_median_rank
    and t2i_median_rank, where 1 is best. Raises ValueError if an image has no caption or shapes do not fit.
    """
    return summary_of_ranks(*image_text_ranks(image, text, text_to_image))


def summary_of_ranks(i2t: np.ndarray, t2i: np.ndarray) -> dict[str, float]:
    """The metrics of `image_text_recall` from the ranks of images [n] and of texts [m]."""
    metrics = percent(recalled(i2t, t2i))
    rsum = sum(metrics.values())
    return metrics | {
        "rsum": rsum,
        "r_mean": rsum / len(metrics),
        "i2t_median_rank": float(np.median(i2t)),
        "t2i_median_rank": float(np.median(t2i)),
    }


def image_text_ranks(
    image: np.ndarray | Embeddings, text: np.ndarray | Embeddings, text_to_image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The best rank of each image's captions, int64 [n], and the rank of each caption's image, int64 [m], from 1.

    Raises ValueError if an image has no caption or shapes do not fit.
    """
    image, text = checked_embeddings("image", image), checked_embeddings("text", text)
    text_to_image = np.asarray(text_to_image)
    if text_to_image.shape != (len(text),):
        raise ValueError(
            f"text_to_image has shape {text_to_image.shape}; expected ({len(text)},), one image for each text"
        )
    if len(text_to_image) and not 0 <= text_to_image.min() <= text_to_image.max() < len(image):
        raise ValueError(f"text_to_image points outside the {len(image)} images")
    captions_of_image = np.bincount(text_to_image, minlength=len(image))
    if not captions_of_image.all():
        raise ValueError(f"image {int(captions_of_image.argmin())} has no caption, so it has no rank")
    return positive_ranks(image, text, np.stack([text_to_image, np.arange(len(text))], axis=1))


def positive_ranks(
    image: np.ndarray | Embeddings,
    text: np.ndarray | Embeddings,
    of_image: np.ndarray,
    of_text: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The rank of each query's best right answer, int64 from 1: [n] for images, [m] for texts.

    `of_image` int [p, 2] lists the right (image, text) pairs for image queries, `of_text` those for text queries;
    without `of_text`, both have the same. An answer with a negative number is right but not in the gallery, so it is
    never found. A query without a right answer has the rank 0; one that has only such answers comes after everything.
    """
    image, text = checked_embeddings("image", image), checked_embeddings("text", text)
    check_same_dimension(image=image, text=text)
    exact = ExactScores(image, text)
    for_images = _Positives(of_image, exact)
    for_texts = for_images if of_text is None else _Positives(of_text, exact)
    best_text, text_low, text_high = for_images.best(0)
    best_image, image_low, image_high = for_texts.best(1)
    step, part = (max(1, size // (4 * len(text))) for size in (BLOCK_BYTES, COUNTED_BYTES))

    def count(start: int, scores: np.ndarray) -> tuple[slice, np.ndarray, np.ndarray]:
        block = slice(start, start + len(scores))
        i2t, images, texts = _count_above(scores, text_low[block, None], text_high[block, None], axis=1)
        ahead = for_images.ahead(images + start, texts, best_text[images + start])
        np.add.at(i2t, images[ahead], 1)
        t2i, images, texts = _count_above(scores, image_low, image_high, axis=0)
        ahead = for_texts.ahead(images + start, texts, best_image[texts])
        np.add.at(t2i, texts[ahead], 1)
        return block, i2t, t2i

    i2t, t2i = np.isfinite(best_text).astype(np.int64), np.isfinite(best_image).astype(np.int64)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, len(image), step):
            # The matrix product uses every processor. Scores are counted by threads, in parts that stay in the cache.
            scores = image.unit[start : start + step] @ text.unit.T
            parts = range(0, len(scores), part)
            pieces = [scores[first : first + part] for first in parts]
            for block, above_images, above_texts in pool.map(count, (start + first for first in parts), pieces):
                i2t[block] += above_images
                t2i += above_texts
    i2t[for_images.nowhere(0)], t2i[for_texts.nowhere(1)] = len(text) + 1, len(image) + 1
    return i2t, t2i


class _Positives:
    """Right (image, text) pairs and their exact scores."""

    def __init__(self, pairs: np.ndarray, exact: ExactScores) -> None:
        self.listed, self.exact = np.asarray(pairs, dtype=np.int64).reshape(-1, 2), exact
        self.pairs = self.listed[(self.listed >= 0).all(axis=1)]
        self.scores = exact(self.pairs[:, 0], self.pairs[:, 1])
        self.keys = np.sort(self._key(self.pairs[:, 0], self.pairs[:, 1]))

    def _key(self, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
        keys: np.ndarray = images * len(self.exact.right) + texts
        return keys

    def best(self, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The best score of each query's right answers, infinite if it has none, and float32 bounds around it.

        `side` is 0 if images are the queries and 1 if texts are.
        """
        queries = self.pairs[:, side]
        best = np.full(len((self.exact.left, self.exact.right)[side]), np.inf)
        best[queries] = -np.inf
        np.maximum.at(best, queries, self.scores)
        return best, *rounding_bounds(best, self.exact.left.shape[1])

    def nowhere(self, side: int) -> np.ndarray:
        """The queries of a side none of whose right answers is in the gallery, int64."""
        return np.setdiff1d(self.listed[:, side], self.pairs[:, side])

    def ahead(self, images: np.ndarray, texts: np.ndarray, best: np.ndarray) -> np.ndarray:
        """Whether pairs are wrong and score at least as high as the best right answer of their queries, bool [p].

        `images` and `texts` int64 [p] are pairs that float32 cannot decide; `best` [p] is that right answer's score.
        """
        keys = self._key(images, texts)
        right = self.keys[np.minimum(np.searchsorted(self.keys, keys), max(len(self.keys) - 1, 0))] == keys
        before: np.ndarray = (self.exact(images, texts) >= best - TIE) & ~right
        return before


def recalled(i2t: np.ndarray, t2i: np.ndarray, recall_at: Sequence[int] = RECALL_AT) -> dict[str, np.ndarray]:
    """i2t_r1, ..., t2i_r10 of each query: 1 if its rank is at most K, else 0; float64 [n] and [m].

    `recall_at` has the values of K.

    `i2t` [n] and `t2i` [m] are ranks as `positive_ranks` returns them. NaN stands for a query of rank 0, which has no
    right answer.
    """
    ranks = {"i2t": i2t, "t2i": t2i}
    return {f"{way}_r{k}": np.where(ranks[way] > 0, ranks[way] <= k, np.nan) for way in ranks for k in recall_at}


def fold_recall(image: np.ndarray, text: np.ndarray, text_to_image: np.ndarray, folds: int) -> dict[str, float]:
    """The mean of `image_text_recall` over consecutive folds of the images: COCO 1K is five folds of COCO 5K.

    Raises ValueError if the images cannot be divided evenly.
    """
    return mean_of_folds(fold_ranks(image, text, text_to_image, folds))


class FoldRanks(NamedTuple):
    """Ranks within one fold: of its images [n], of their texts [m], and the position of each text's image [m]."""

    i2t: np.ndarray
    t2i: np.ndarray
    text_to_image: np.ndarray


def mean_of_folds(folds: Sequence[FoldRanks]) -> dict[str, float]:
    """The mean over folds of each metric of `image_text_recall`."""
    recalls = [summary_of_ranks(fold.i2t, fold.t2i) for fold in folds]
    return {name: float(np.mean([recall[name] for recall in recalls])) for name in recalls[0]}


def fold_ranks(image: np.ndarray, text: np.ndarray, text_to_image: np.ndarray, folds: int) -> list[FoldRanks]:
    """`image_text_ranks` of each of `folds` consecutive parts of the images, with the texts of those images.

    Raises ValueError if the images cannot be divided evenly.
    """
    if folds < 1:
        raise ValueError(f"{folds} folds were asked for; expected at least one")
    if len(image) % folds:
        raise ValueError(f"{len(image)} test images cannot be divided into {folds} folds of one size")
    size, text_to_image = len(image) // folds, np.asarray(text_to_image)
    ranks = []
    for start in range(0, len(image), size):
        texts = np.flatnonzero((text_to_image >= start) & (text_to_image < start + size))
        images = text_to_image[texts] - start
        ranks.append(FoldRanks(*image_text_ranks(image[start : start + size], text[texts], images), images))
    return ranks


def _count_above(
    scores: np.ndarray, low: np.ndarray, high: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The number of scores along `axis` that are above `high`, and rows and columns of those between the bounds."""
    above = scores > high
    # numpy's nonzero is forty times faster in one dimension than in two.
    rows, columns = np.divmod(np.flatnonzero((above ^ (scores >= low)).ravel()), scores.shape[1])
    return _count(above, axis), rows, columns


def _count(above: np.ndarray, axis: int) -> np.ndarray:
    """np.count_nonzero of a bool matrix along an axis, several times faster: row by row, or columns in bytes."""
    if axis == 1:
        return np.array([np.count_nonzero(row) for row in above], dtype=np.int64)
    starts = range(0, len(above), 255)  # the largest count that fits in a byte
    parts = [np.add.reduce(above[start : start + 255].view(np.uint8), axis=0, dtype=np.uint8) for start in starts]
    return np.asarray(np.stack(parts).sum(axis=0, dtype=np.int64))
