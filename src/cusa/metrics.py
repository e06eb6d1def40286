"""Retrieval and similarity metrics on numpy arrays, in percent. No torch: a metrics job starts in a second.

Ties count against the model: an item that scores exactly as high as the right answer is ranked before it.
Recall compares scores in float32 blocks; where two are closer than float32 can tell, float64 decides, so the
results equal those of a naive float64 computation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

RECALL_AT = (1, 5, 10)
BLOCK_BYTES = 32 << 20
TIE = 1e-12  # cosines this close are equal but for float64 rounding


def image_text_recall(image: np.ndarray, text: np.ndarray, text_to_image: np.ndarray) -> dict[str, float]:
    """Recall of image-to-text and text-to-image retrieval.

    `image` [n, D] and `text` [m, D] are embeddings (normalised here); `text_to_image` int [m] is each caption's
    image. The image-to-text rank is the best rank among an image's captions. Returns i2t_r1, i2t_r5, i2t_r10,
    t2i_r1, t2i_r5, t2i_r10, rsum (their sum), r_mean (their mean) in percent, and the median ranks i2t_median_rank
    and t2i_median_rank (1 is best). Raises ValueError when an image has no caption or shapes do not fit.
    """
    i2t, t2i = image_text_ranks(image, text, text_to_image)
    metrics = {f"i2t_r{k}": 100 * float((i2t <= k).mean()) for k in RECALL_AT}
    metrics |= {f"t2i_r{k}": 100 * float((t2i <= k).mean()) for k in RECALL_AT}
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
    if image.shape[1] != text.shape[1]:
        raise ValueError(f"image embeddings have {image.shape[1]} dimensions, text embeddings {text.shape[1]}")
    if len(text_to_image) and not 0 <= text_to_image.min() <= text_to_image.max() < len(image):
        raise ValueError(f"text_to_image points outside the {len(image)} images")
    captions_of_image = np.bincount(text_to_image, minlength=len(image))
    if not captions_of_image.all():
        raise ValueError(f"image {int(captions_of_image.argmin())} has no caption, so it has no rank")

    exact = _ExactScores(image, text)
    own = exact(text_to_image, np.arange(len(text)))
    best = np.full(len(image), -np.inf)
    np.maximum.at(best, text_to_image, own)
    i2t, t2i = np.ones(len(image), dtype=np.int64), np.ones(len(text), dtype=np.int64)
    image32, text32 = _unit_float32(image), _unit_float32(text)
    best_low, best_high = _rounding_bounds(best, image.shape[1])
    own_low, own_high = _rounding_bounds(own, image.shape[1])
    step = max(1, BLOCK_BYTES // (4 * len(text)))
    for start in range(0, len(image), step):
        block = slice(start, start + step)
        scores = image32[block] @ text32.T
        above, images, texts = _count_above(scores, best_low[block, None], best_high[block, None], axis=1)
        i2t[block] += above
        images += start
        ahead = (text_to_image[texts] != images) & (exact(images, texts) >= best[images] - TIE)
        np.add.at(i2t, images[ahead], 1)
        above, images, texts = _count_above(scores, own_low, own_high, axis=0)
        t2i += above
        images += start
        ahead = (text_to_image[texts] != images) & (exact(images, texts) >= own[texts] - TIE)
        np.add.at(t2i, texts[ahead], 1)
    return i2t, t2i


def extended_recall(
    image: np.ndarray, text: np.ndarray, positives: np.ndarray, prefix: tuple[str, str] = ("i2t", "t2i")
) -> dict[str, float]:
    """Retrieval where every right answer counts, as ECCV Caption scores it (Chun et al., ECCV 2022).

    `image` [n, D] and `text` [m, D] are embeddings, `positives` int [p, 2] lists the right (image, text) pairs, any
    many-to-many relation. For each direction, over the queries that have a positive: r1 (a positive comes first),
    rprecision (share of the R positives among the first R) and map_at_r (mean average precision at R, Musgrave et
    al., ECCV 2020), in percent.
    """
    image, text = _checked("image", image), _checked("text", text)
    positives = np.unique(np.asarray(positives, dtype=np.int64).reshape(-1, 2), axis=0)
    if not len(positives):
        raise ValueError("there is no positive pair, so nothing can be scored")
    metrics: dict[str, float] = {}
    for name, query, gallery, pairs in (
        (prefix[0], image, text, positives),
        (prefix[1], text, image, positives[:, ::-1]),
    ):
        scored = _precision_metrics(query, gallery, pairs)
        metrics |= {f"{name}_{metric}": value for metric, value in scored.items()}
    return metrics


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
    import faiss

    query_labels, alone = np.asarray(query_labels), gallery is None
    if gallery is None or gallery_labels is None:
        gallery, gallery_labels = query, query_labels
    gallery_labels = np.asarray(gallery_labels)
    unit_query, unit_gallery = (
        _unit_float32(_checked("query", query)),
        _unit_float32(_checked("gallery", gallery)),
    )
    for name, rows, labels in (
        ("query", unit_query, query_labels),
        ("gallery", unit_gallery, gallery_labels),
    ):
        if labels.shape != (len(rows),):
            raise ValueError(f"{name} has {len(rows)} rows and labels of shape {labels.shape}; expected one each")
    known, codes = np.unique(np.concatenate([query_labels, gallery_labels]), return_inverse=True)
    query_codes, gallery_codes = codes[: len(query_labels)], codes[len(query_labels) :]
    relevant = np.bincount(gallery_codes, minlength=len(known))[query_codes] - int(alone)

    # One more for the query itself, and some slack so that ties at the border are seen.
    wanted = max(int(relevant.max()), *recall_at) + int(alone) + TIE_SLACK
    scores, found = faiss.knn(unit_query, unit_gallery, min(wanted, len(unit_gallery)), faiss.METRIC_INNER_PRODUCT)
    scores = scores.astype(np.float64)
    if alone:
        scores[found == np.arange(len(found))[:, None]] = -np.inf
    right = gallery_codes[found] == query_codes[:, None]
    right &= np.isfinite(scores)
    # Stable order by falling score, and wrong answers first where scores are equal.
    order = np.lexsort((right, -scores), axis=1)
    right = np.take_along_axis(right, order, axis=1)
    metrics = {f"r{k}": 100 * float(right[:, :k].any(axis=1).mean()) for k in recall_at}
    answerable = relevant > 0
    if not answerable.any():
        return metrics
    ranks = np.cumsum(right[answerable], axis=1)
    inside = np.arange(right.shape[1]) < relevant[answerable, None]
    hits = right[answerable] & inside
    precision = np.where(hits, ranks / np.arange(1, right.shape[1] + 1), 0.0)
    metrics["rprecision"] = 100 * float((hits.sum(axis=1) / relevant[answerable]).mean())
    metrics["map_at_r"] = 100 * float((precision.sum(axis=1) / relevant[answerable]).mean())
    return metrics


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


TIE_SLACK = 8


def _precision_metrics(query: np.ndarray, gallery: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    """r1, rprecision and map_at_r of `pairs` [p, 2] of (query, gallery), sorted by query inside."""
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    queries, first, count = np.unique(pairs[:, 0], return_index=True, return_counts=True)
    unit_query, unit_gallery = _unit_float32(query), _unit_float32(gallery)
    totals = np.zeros(3)
    step = max(1, BLOCK_BYTES // (4 * len(gallery)))
    for start in range(0, len(queries), step):
        scores = unit_query[queries[start : start + step]] @ unit_gallery.T
        members = np.concatenate(
            [pairs[f : f + c, 1] for f, c in zip(first[start : start + step], count[start : start + step], strict=True)]
        )
        rows = np.repeat(np.arange(len(scores)), count[start : start + step])
        positive_scores = scores[rows, members]
        scores.sort(axis=1)
        offset = 0
        for row, relevant in enumerate(count[start : start + step]):
            # Ranks of the positives, best first; whatever else scores as high as one comes before it.
            own = np.sort(positive_scores[offset : offset + relevant])
            offset += relevant
            as_high = len(scores[row]) - np.searchsorted(scores[row], own)
            own_as_high = relevant - np.searchsorted(own, own)
            ranks = (as_high - own_as_high)[::-1] + np.arange(1, relevant + 1)
            inside = ranks <= relevant
            precision = np.arange(1, relevant + 1)[inside] / ranks[inside]
            totals += (ranks[0] == 1, inside.mean(), precision.sum() / relevant)
    r1, rprecision, map_at_r = 100 * totals / len(queries)
    return {"r1": float(r1), "rprecision": float(rprecision), "map_at_r": float(map_at_r)}


class _ExactScores:
    """Cosines of chosen pairs in float64, a block at a time."""

    def __init__(self, left: np.ndarray, right: np.ndarray) -> None:
        self.left, self.right = left, right

    def __call__(self, left_rows: np.ndarray, right_rows: np.ndarray) -> np.ndarray:
        scores = np.empty(len(left_rows))
        step = max(1, BLOCK_BYTES // (16 * self.left.shape[1]))
        for start in range(0, len(left_rows), step):
            block = slice(start, start + step)
            left = _unit_float64(self.left[left_rows[block]])
            right = _unit_float64(self.right[right_rows[block]])
            scores[block] = np.einsum("ij,ij->i", left, right)
        return scores


def _count_above(
    scores: np.ndarray, low: np.ndarray, high: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many scores along `axis` are surely above, and rows and columns of those too close to tell."""
    above = scores > high
    # Locating them in one dimension is forty times faster than numpy's nonzero in two.
    rows, columns = np.divmod(np.flatnonzero((above ^ (scores >= low)).ravel()), scores.shape[1])
    return np.count_nonzero(above, axis=axis), rows, columns


def _rounding_bounds(scores: np.ndarray, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 bounds around float64 scores, many times wider than what a float32 product of unit vectors loses."""
    margin = 2.0 * float(np.finfo(np.float32).eps) * max(4.0, float(np.sqrt(dimension)))
    return (scores - margin).astype(np.float32), (scores + margin).astype(np.float32)


def _unit_float64(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def _unit_float32(rows: np.ndarray) -> np.ndarray:
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    unit: np.ndarray = rows * (1 / np.maximum(norms, 1e-12)).astype(rows.dtype)[:, None]
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
