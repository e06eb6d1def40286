"""Retrieval and similarity metrics on numpy arrays, in percent. No torch: a metrics job starts in a second.

Ties count against the model: an item that scores exactly as high as the right answer is ranked before it.
Recall compares scores in float32 blocks; where two are closer than float32 can tell, float64 decides, so the
results equal those of a naive float64 computation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cusa.neighbours import halves_the_work, nearest, nearest_among

RECALL_AT = (1, 5, 10)
BLOCK_BYTES = 32 << 20
COUNTED_BYTES = 4 << 20
TIE = 1e-12  # cosines this close are equal but for float64 rounding


def image_text_recall(image: np.ndarray, text: np.ndarray, text_to_image: np.ndarray) -> dict[str, float]:
    """Recall of image-to-text and text-to-image retrieval.

    `image` [n, D] and `text` [m, D] are embeddings (normalised here); `text_to_image` int [m] is each caption's
    image. The image-to-text rank is the best rank among an image's captions. Returns i2t_r1, i2t_r5, i2t_r10,
    t2i_r1, t2i_r5, t2i_r10, rsum (their sum), r_mean (their mean) in percent, and the median ranks i2t_median_rank
    and t2i_median_rank (1 is best). Raises ValueError when an image has no caption or shapes do not fit.
    """
    return summary_of_ranks(*image_text_ranks(image, text, text_to_image))


def summary_of_ranks(i2t: np.ndarray, t2i: np.ndarray) -> dict[str, float]:
    """The metrics of `image_text_recall` from its ranks."""
    metrics = percent(recalled(i2t, t2i))
    rsum = sum(metrics.values())
    return metrics | {
        "rsum": rsum,
        "r_mean": rsum / len(metrics),
        "i2t_median_rank": float(np.median(i2t)),
        "t2i_median_rank": float(np.median(t2i)),
    }


def image_text_ranks(image: np.ndarray, text: np.ndarray, text_to_image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks from 1, int64: [n] best rank of an image's captions, [m] rank of a caption's image."""
    image, text = _checked("image", image), _checked("text", text)
    text_to_image = np.asarray(text_to_image)
    if text_to_image.shape != (len(text),):
        raise ValueError(f"text_to_image has shape {text_to_image.shape}; expected ({len(text)},), one image a text")
    if len(text_to_image) and not 0 <= text_to_image.min() <= text_to_image.max() < len(image):
        raise ValueError(f"text_to_image points outside the {len(image)} images")
    captions_of_image = np.bincount(text_to_image, minlength=len(image))
    if not captions_of_image.all():
        raise ValueError(f"image {int(captions_of_image.argmin())} has no caption, so it has no rank")
    return positive_ranks(image, text, np.stack([text_to_image, np.arange(len(text))], axis=1))


def positive_ranks(
    image: np.ndarray, text: np.ndarray, of_image: np.ndarray, of_text: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The rank of each query's best right answer, int64 from 1: [n] for images, [m] for texts.

    `of_image` int [p, 2] lists the right (image, text) pairs for image queries, `of_text` those for text queries (the
    same without it). Queries without any have the rank 0.
    """
    image, text = _checked("image", image), _checked("text", text)
    if image.shape[1] != text.shape[1]:
        raise ValueError(f"image embeddings have {image.shape[1]} dimensions, text embeddings {text.shape[1]}")
    exact = _ExactScores(image, text)
    for_images = _Positives(of_image, exact)
    for_texts = for_images if of_text is None else _Positives(of_text, exact)
    best_text, text_low, text_high = for_images.best(0)
    best_image, image_low, image_high = for_texts.best(1)
    image32, text32 = _unit_float32(image), _unit_float32(text)
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
            # The product uses every processor by itself; counting does so in parts that stay in the cache.
            scores = image32[start : start + step] @ text32.T
            parts = range(0, len(scores), part)
            pieces = [scores[first : first + part] for first in parts]
            for block, above_images, above_texts in pool.map(count, (start + first for first in parts), pieces):
                i2t[block] += above_images
                t2i += above_texts
    return i2t, t2i


class _Positives:
    """Right (image, text) pairs and their exact scores."""

    def __init__(self, pairs: np.ndarray, exact: _ExactScores) -> None:
        self.pairs, self.exact = np.asarray(pairs, dtype=np.int64).reshape(-1, 2), exact
        self.scores = exact(self.pairs[:, 0], self.pairs[:, 1])
        self.keys = np.sort(self._key(self.pairs[:, 0], self.pairs[:, 1]))

    def _key(self, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
        keys: np.ndarray = images * len(self.exact.right) + texts
        return keys

    def best(self, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The best score of each query, infinite where it has none, and float32 bounds around it.

        `side` is 0 where images are the queries, 1 where texts are.
        """
        queries = self.pairs[:, side]
        best = np.full(len((self.exact.left, self.exact.right)[side]), np.inf)
        best[queries] = -np.inf
        np.maximum.at(best, queries, self.scores)
        return best, *_rounding_bounds(best, self.exact.left.shape[1])

    def ahead(self, images: np.ndarray, texts: np.ndarray, best: np.ndarray) -> np.ndarray:
        """Whether pairs, too close for float32 to tell, are wrong and score as high as `best`, their query's own."""
        keys = self._key(images, texts)
        right = self.keys[np.minimum(np.searchsorted(self.keys, keys), max(len(self.keys) - 1, 0))] == keys
        found: np.ndarray = (self.exact(images, texts) >= best - TIE) & ~right
        return found


def recalled(i2t: np.ndarray, t2i: np.ndarray) -> dict[str, np.ndarray]:
    """i2t_r1 ... t2i_r10 of each query, from ranks as `positive_ranks` gives them: 1 where a right answer is that near.

    Queries of rank 0 have no right answer and are left out.
    """
    ranks = {"i2t": i2t[i2t > 0], "t2i": t2i[t2i > 0]}
    return {f"{way}_r{k}": (ranks[way] <= k).astype(np.float64) for way in ranks for k in RECALL_AT}


def percent(per_query: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean over queries of each metric, x 100."""
    return {name: 100 * float(values.mean()) for name, values in per_query.items()}


def fold_recall(image: np.ndarray, text: np.ndarray, text_to_image: np.ndarray, folds: int) -> dict[str, float]:
    """Mean of `image_text_recall` over consecutive folds of the images, in order: COCO 1K is five folds of COCO 5K.

    Raises ValueError when the images cannot be divided evenly.
    """
    if len(image) % folds:
        raise ValueError(f"{len(image)} test images cannot be divided into {folds} folds of one size")
    size, text_to_image = len(image) // folds, np.asarray(text_to_image)
    found = []
    for start in range(0, len(image), size):
        texts = np.flatnonzero((text_to_image >= start) & (text_to_image < start + size))
        found.append(image_text_recall(image[start : start + size], text[texts], text_to_image[texts] - start))
    return {name: float(np.mean([fold[name] for fold in found])) for name in found[0]}


def extended_recall(image: np.ndarray, text: np.ndarray, positives: np.ndarray) -> dict[str, float]:
    """Retrieval where every right answer counts, as ECCV Caption scores it (Chun et al., ECCV 2022).

    `image` [n, D] and `text` [m, D] are embeddings, `positives` int [p, 2] lists the right (image, text) pairs, any
    many-to-many relation. For each direction, over the queries that have a positive: r1 (a positive comes first),
    rprecision (share of the R positives among the first R) and map_at_r (mean average precision at R, Musgrave et
    al., ECCV 2020), in percent, their names with i2t_ or t2i_ before them.
    """
    return percent(extended_outcomes(image, text, positives))


def extended_outcomes(
    image: np.ndarray, text: np.ndarray, of_image: np.ndarray, of_text: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """What `extended_recall` means over, of each query: float64 from 0 to 1.

    `of_image` int [p, 2] lists the right (image, text) pairs for image queries, `of_text` those for text queries (the
    same without it).
    """
    of_image = np.asarray(of_image).reshape(-1, 2)
    of_text = of_image if of_text is None else np.asarray(of_text).reshape(-1, 2)
    sides = {"i2t": (image, text, of_image), "t2i": (text, image, of_text[:, ::-1])}
    return {
        f"{way}_{name}": values
        for way, (query, gallery, pairs) in sides.items()
        for name, values in precision_of_queries(query, gallery, pairs).items()
    }


def precision_of_queries(query: np.ndarray, gallery: np.ndarray, positives: np.ndarray) -> dict[str, np.ndarray]:
    """r1, rprecision and map_at_r (see `extended_recall`) of each query that has a positive, float64 from 0 to 1.

    `positives` int [p, 2] lists the right (query, gallery) pairs; queries are in the order of their rows.
    """
    query, gallery = _checked("query", query), _checked("gallery", gallery)
    pairs = np.unique(np.asarray(positives, dtype=np.int64).reshape(-1, 2), axis=0)
    if not len(pairs):
        raise ValueError("there is no positive pair, so nothing can be scored")
    queries, first, count = np.unique(pairs[:, 0], return_index=True, return_counts=True)
    unit_query, unit_gallery = _unit_float32(query), _unit_float32(gallery)
    found = np.empty((3, len(queries)))
    step = max(1, BLOCK_BYTES // (4 * len(gallery)))
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        relevant = count[block]
        scores = unit_query[queries[block]] @ unit_gallery.T
        members = pairs[first[block][0] : first[block][-1] + relevant[-1], 1]
        found[:, block] = _precision(scores, members, relevant)
    return {"r1": found[0], "rprecision": found[1], "map_at_r": found[2]}


def nearest_label_recall(
    query: np.ndarray,
    query_labels: Sequence[object] | np.ndarray,
    gallery: np.ndarray | None = None,
    gallery_labels: Sequence[object] | np.ndarray | None = None,
    recall_at: Sequence[int] = (1, 2, 4, 8),
) -> dict[str, float]:
    """Nearest-neighbour retrieval of the same label by Euclidean distance of normalised embeddings.

    `query` [n, D] with n labels; without a gallery each query searches all the others. Returns r{k} (some of the k
    nearest has the query's label), rprecision and map_at_r in percent, over the queries whose label occurs in
    their gallery at all, left out where there is none; the others count as misses in r{k}, as in the published
    evaluation.
    """
    return percent(label_found(query, query_labels, gallery, gallery_labels, recall_at))


def label_found(
    query: np.ndarray,
    query_labels: Sequence[object] | np.ndarray,
    gallery: np.ndarray | None = None,
    gallery_labels: Sequence[object] | np.ndarray | None = None,
    recall_at: Sequence[int] = (1, 2, 4, 8),
) -> dict[str, np.ndarray]:
    """What `nearest_label_recall` means over, of each query: float64 from 0 to 1, in the order of the queries.

    The search goes a block of queries at a time: beside the embeddings, memory stays below some 600 MB.
    """
    query_labels, alone = np.asarray(query_labels), gallery is None
    if gallery is None or gallery_labels is None:
        gallery, gallery_labels = query, query_labels
    gallery_labels = np.asarray(gallery_labels)
    unit_query = _unit_float32(_checked("query", query))
    unit_gallery = unit_query if alone else _unit_float32(_checked("gallery", gallery))
    for name, unit, labels in (
        ("query", unit_query, query_labels),
        ("gallery", unit_gallery, gallery_labels),
    ):
        if labels.shape != (len(unit),):
            raise ValueError(f"{name} has {len(unit)} rows and labels of shape {labels.shape}; expected one each")
    known, codes = np.unique(np.concatenate([query_labels, gallery_labels]), return_inverse=True)
    query_codes, gallery_codes = codes[: len(query_labels)], codes[len(query_labels) :]
    relevant = np.bincount(gallery_codes, minlength=len(known))[query_codes] - int(alone)

    # One more for the query itself, and some slack so that ties at the border are seen.
    wanted = min(max(int(relevant.max()), *recall_at) + int(alone) + TIE_SLACK, len(unit_gallery))
    found: dict[str, list[np.ndarray]] = {}
    among = nearest_among(unit_query, wanted) if alone and halves_the_work(len(unit_query), wanted) else None
    step = max(1, NEIGHBOUR_BYTES // (NEIGHBOUR_COST * wanted))
    for start in range(0, len(unit_query), step):
        block = slice(start, start + step)
        if among is None:
            scores, rows = nearest(unit_query[block], unit_gallery, wanted)
        else:
            scores, rows = among[0][block], among[1][block]
        scores = scores.astype(np.float64)
        if alone:
            scores[rows == np.arange(start, start + len(rows))[:, None]] = -np.inf
        right = (gallery_codes[rows] == query_codes[block, None]) & np.isfinite(scores)
        for name, values in _label_outcomes(scores, right, relevant[block], recall_at).items():
            found.setdefault(name, []).append(values)
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: values for name, values in joined.items() if len(values)}


def _label_outcomes(
    scores: np.ndarray, right: np.ndarray, relevant: np.ndarray, recall_at: Sequence[int]
) -> dict[str, np.ndarray]:
    # Stable order by falling score, and wrong answers first where scores are equal.
    order = np.lexsort((right, -scores), axis=1)
    right = np.take_along_axis(right, order, axis=1)
    outcomes: dict[str, np.ndarray] = {}
    for k in recall_at:
        outcomes[f"r{k}"] = np.asarray(right[:, :k].any(axis=1), dtype=np.float64)
    right, relevant = right[relevant > 0], relevant[relevant > 0]
    hits = right & (np.arange(right.shape[1]) < relevant[:, None])
    precision = np.where(hits, np.cumsum(right, axis=1) / np.arange(1, right.shape[1] + 1), 0.0)
    outcomes["rprecision"] = np.asarray(hits.sum(axis=1) / relevant)
    outcomes["map_at_r"] = np.asarray(precision.sum(axis=1) / relevant)
    return outcomes


def similarity_correlation(first: np.ndarray, second: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Spearman and Pearson correlation x 100 of the cosine of paired embeddings [n, D] with gold scores [n]."""
    from scipy.stats import pearsonr, spearmanr

    first, second = _checked("first", first), _checked("second", second)
    gold = np.asarray(gold, dtype=np.float64)
    if not len(first) == len(second) == len(gold) >= 2:
        raise ValueError(
            f"expected as many first ({len(first)}) as second ({len(second)}) embeddings and gold scores "
            f"({len(gold)}), at least two"
        )
    cosine = _ExactScores(first, second)(np.arange(len(first)), np.arange(len(second)))
    return {
        "spearman": 100 * float(spearmanr(cosine, gold).statistic),
        "pearson": 100 * float(pearsonr(cosine, gold).statistic),
    }


def mean_and_spread(values: Sequence[float]) -> Mapping[str, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    array = np.asarray(values, dtype=np.float64)
    return {"mean": float(array.mean()), "std": float(array.std(ddof=1)) if len(array) > 1 else 0.0}


def paired_interval(
    first: np.ndarray, second: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """`second` - `first` in mean over queries, and its 95 % bootstrap interval, all x 100.

    `first` and `second` [n] are what each of the same n queries contributes. Queries are drawn with replacement, both
    runs' outcomes together (Efron's percentile method).
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(f"outcomes of shapes {first.shape} and {second.shape} are not of the same queries")
    differences, counts = np.unique(second.astype(np.float64) - first.astype(np.float64), return_counts=True)
    # Differences take few values, so drawing how often each comes up is drawing the queries.
    generator, total = np.random.default_rng(seed), int(counts.sum())
    step = max(1, BLOCK_BYTES // (8 * len(counts)))
    means = [
        generator.multinomial(total, counts / total, min(step, resamples - start)) @ differences / total
        for start in range(0, resamples, step)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return 100 * float(differences @ counts / total), 100 * float(low), 100 * float(high)


TIE_SLACK = 8
GROUPS_FOR_EACH = 4
NEIGHBOUR_BYTES = 128 << 20
NEIGHBOUR_COST = 64  # bytes that scoring takes for one neighbour of one query, all arrays together


def _precision(scores: np.ndarray, members: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """r1, R-Precision and AP@R [3, rows]; `members` are the right answers, `relevant` of each row, in row order."""
    rows = np.repeat(np.arange(len(scores)), relevant)
    # Each row's right answers, best first, at places 1, 2, ... of the row.
    own = scores[rows, members]
    own = own[np.lexsort((-own, rows))]
    starts = np.cumsum(relevant) - relevant
    place = np.arange(len(own)) - np.repeat(starts, relevant) + 1
    # How many right answers score as high as each: the place of the last one of a run of equal scores.
    last = np.r_[(own[1:] != own[:-1]) | (rows[1:] != rows[:-1]), True]
    ends = np.flatnonzero(last)
    own_as_high = place[ends[np.searchsorted(ends, np.arange(len(own)))]]
    # An answer below the best 2R + 1 has rank > R whatever else there is, so only those are sorted. Shifting each row
    # past the one before makes one sorted array of all of them.
    found = np.flatnonzero(scores >= _floors(scores, 2 * int(relevant.max()) + 1)[:, None])
    row_of_found = found // scores.shape[1]
    best = scores.ravel()[found].astype(np.float64) + 4.0 * row_of_found
    best.sort()
    bounds = np.searchsorted(row_of_found, np.arange(len(scores) + 1))
    lower = np.searchsorted(best, own.astype(np.float64) + 4.0 * rows)
    as_high = bounds[rows + 1] - np.maximum(lower, bounds[rows])
    ranks = as_high - own_as_high + place
    hit = ranks <= relevant[rows]
    hits = np.add.reduceat(hit.astype(np.float64), starts)
    precision = np.add.reduceat(np.where(hit, place / ranks, 0.0), starts)
    return np.stack([ranks[starts] == 1, hits / relevant, precision / relevant])


def _floors(scores: np.ndarray, count: int) -> np.ndarray:
    """A value for each row that at least `count` of its scores reach (all, in short rows), and not many more.

    The `count`-th highest of the maxima of several times as many groups of columns: maxima are several times faster
    to have than a partition of the row.
    """
    groups = GROUPS_FOR_EACH * count
    size = scores.shape[1] // groups
    if size < 2:
        return np.full(len(scores), -np.inf)
    maxima = scores[:, : groups * size].reshape(len(scores), size, groups).max(axis=1)
    floors: np.ndarray = np.partition(maxima, groups - count, axis=1)[:, groups - count]
    return floors


class _ExactScores:
    """Cosines of chosen pairs in float64, a block at a time."""

    def __init__(self, left: np.ndarray, right: np.ndarray) -> None:
        self.left, self.right = left, right
        self.left_norms, self.right_norms = _norms(left), _norms(right)

    def __call__(self, left_rows: np.ndarray, right_rows: np.ndarray) -> np.ndarray:
        scores = np.empty(len(left_rows))
        step = max(1, COUNTED_BYTES // (16 * self.left.shape[1]))
        for start in range(0, len(left_rows), step):
            left, right = left_rows[start : start + step], right_rows[start : start + step]
            products = np.einsum("ij,ij->i", self.left[left], self.right[right], dtype=np.float64)
            scores[start : start + step] = products / (self.left_norms[left] * self.right_norms[right])
        return scores


def _norms(rows: np.ndarray) -> np.ndarray:
    norms: np.ndarray = np.maximum(np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64)), 1e-12)
    return norms


def _count_above(
    scores: np.ndarray, low: np.ndarray, high: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many scores along `axis` are surely above, and rows and columns of those too close to tell."""
    above = scores > high
    # Locating them in one dimension is forty times faster than numpy's nonzero in two.
    rows, columns = np.divmod(np.flatnonzero((above ^ (scores >= low)).ravel()), scores.shape[1])
    return _count(above, axis), rows, columns


def _count(above: np.ndarray, axis: int) -> np.ndarray:
    """np.count_nonzero along an axis, several times faster: whole rows at once, columns in bytes."""
    if axis == 1:
        return np.array([np.count_nonzero(row) for row in above], dtype=np.int64)
    starts = range(0, len(above), 255)  # what a byte can hold
    parts = [np.add.reduce(above[start : start + 255].view(np.uint8), axis=0, dtype=np.uint8) for start in starts]
    return np.asarray(np.stack(parts).sum(axis=0, dtype=np.int64))


def _rounding_bounds(scores: np.ndarray, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 bounds around float64 scores, many times wider than what a float32 product of unit vectors loses."""
    margin = 2.0 * float(np.finfo(np.float32).eps) * max(4.0, float(np.sqrt(dimension)))
    return (scores - margin).astype(np.float32), (scores + margin).astype(np.float32)


def _unit_float32(rows: np.ndarray) -> np.ndarray:
    unit: np.ndarray = rows * (1 / _norms(rows)).astype(rows.dtype)[:, None]
    return unit.astype(np.float32, copy=False)


def _checked(name: str, embeddings: np.ndarray) -> np.ndarray:
    embeddings = np.asarray(embeddings)
    if embeddings.dtype not in (np.float32, np.float64):
        embeddings = embeddings.astype(np.float32)
    if embeddings.ndim != 2 or not len(embeddings):
        raise ValueError(f"{name} embeddings have shape {embeddings.shape}; expected [rows, dimensions]")
    if not np.isfinite(embeddings).all():
        raise ValueError(f"{name} embeddings hold values that are not finite; the model has probably diverged")
    return embeddings
