"""Metrics in float64 and in loops, to compare with."""

from __future__ import annotations

import numpy as np


def unit(x):
    """Rows of length 1; a row of zeros stays zero. The first division keeps squares inside float64."""
    x = np.asarray(x, dtype=np.float64)
    largest = np.abs(x).max(axis=1, keepdims=True)
    x = x / np.where(largest > 0, largest, 1)
    return x / np.where(largest > 0, np.linalg.norm(x, axis=1, keepdims=True), 1)


def similarity(a, b):
    """float64 cosines; rounded, so that what is equal on paper is equal here."""
    return np.round(unit(a) @ unit(b).T, 12)


def naive_recall(image, text, text_to_image):
    scores = similarity(image, text)
    i2t, t2i = [], []
    for i in range(len(image)):
        best = max(scores[i, j] for j in range(len(text)) if text_to_image[j] == i)
        i2t.append(1 + sum(scores[i, j] >= best for j in range(len(text)) if text_to_image[j] != i))
    for j in range(len(text)):
        own = scores[text_to_image[j], j]
        t2i.append(1 + sum(scores[i, j] >= own for i in range(len(image)) if i != text_to_image[j]))
    out = {f"i2t_r{k}": 100 * np.mean([r <= k for r in i2t]) for k in (1, 5, 10)}
    out |= {f"t2i_r{k}": 100 * np.mean([r <= k for r in t2i]) for k in (1, 5, 10)}
    total = sum(out.values())
    return out | {
        "rsum": total,
        "r_mean": total / 6,
        "i2t_median_rank": np.median(i2t),
        "t2i_median_rank": np.median(t2i),
    }


def naive_precision(query, gallery, relevant):
    """`relevant[q]` is the set of right answers; wrong answers come first where scores are equal."""
    scores, out = similarity(query, gallery), []
    for q, right in relevant.items():
        order = sorted(range(len(gallery)), key=lambda g: (-scores[q, g], g in right))
        hits = [g in right for g in order]
        r = len(right)
        out.append((hits[0], sum(hits[:r]) / r, sum(sum(hits[: n + 1]) / (n + 1) for n in range(r) if hits[n]) / r))
    return dict(zip(("r1", "rprecision", "map_at_r"), 100 * np.mean(out, axis=0), strict=True))


def naive_labels(query, query_labels, gallery=None, gallery_labels=None):
    """Each query's own row is out of its search where there is no gallery."""
    alone = gallery is None
    scores = similarity(query, query if alone else gallery)
    gallery_labels = query_labels if alone else gallery_labels
    found, precise = [], []
    for q, row in enumerate(scores):
        others = [g for g in range(len(row)) if not (alone and g == q)]
        order = sorted(others, key=lambda g: (-row[g], gallery_labels[g] == query_labels[q]))
        hits = [gallery_labels[g] == query_labels[q] for g in order]
        found.append([any(hits[:k]) for k in (1, 2, 4, 8)])
        if r := sum(hits):
            precise.append((sum(hits[:r]) / r, sum(sum(hits[: n + 1]) / (n + 1) for n in range(r) if hits[n]) / r))
    out = dict(zip(("r1", "r2", "r4", "r8"), 100 * np.mean(found, axis=0), strict=True))
    precision = 100 * np.mean(precise, axis=0) if precise else (np.nan, np.nan)
    return out | dict(zip(("rprecision", "map_at_r"), precision, strict=True))


def naive_correlation(first, second, gold):
    """Equal cosines share the mean of their ranks."""
    cosines = np.round((unit(first) * unit(second)).sum(axis=1), 12)

    def ranks(values):
        return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])

    return {
        "spearman": 100 * np.corrcoef(ranks(cosines), ranks(np.asarray(gold)))[0, 1],
        "pearson": 100 * np.corrcoef(cosines, gold)[0, 1],
    }
