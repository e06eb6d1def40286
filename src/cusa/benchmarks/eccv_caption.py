"""Retrieval where every right answer counts (Chun et al., ECCV Caption, ECCV 2022).

Data that list their extended positives are scored on those. Karpathy's COCO test is scored on the ground truth of the
package `eccv_caption`: ECCV Caption, CxC (Parekh et al., EACL 2021), COCO 1K and 5K, and
PMRP where its files are given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from cusa.annotations.tables import EXTENDED_POSITIVES, SplitTables, read_table
from cusa.benchmarks.benchmark import Result
from cusa.config.benchmarks import ExtendedPositives
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.metrics.precision import extended_outcomes
from cusa.metrics.recall import fold_recall, positive_ranks, recalled
from cusa.metrics.scores import percent
from cusa.runs.record import RunFolder

SETTINGS = ExtendedPositives
ACROSS_MODALITIES = True
COCO_FOLDS = 5
LISTED = (
    "{head}; queries are the distinct captions of extended_positives.parquet and the test images that have any, right "
    "answers all that the table lists. R@1, R-Precision and mAP@R. Ties count against the model."
)


COCO = (
    "{head}; ground truth of the package eccv_caption {version}, {ids}. R@1, R-Precision and mAP@R over ECCV Caption's "
    "queries; cxc: R@K over CxC's; coco_5k and coco_1k (mean of five folds): R@K of the captions' own images. Ties "
    "count against the model."
)


def data(provides: frozenset[str], settings: ExtendedPositives) -> tuple[str, ...]:
    """The test split, and the table of extended positives where the data set's own are scored."""
    return ("test", "extended_positives") if settings.ground_truth == "dataset" else ("test",)


def check(folder: DatasetFolder, settings: ExtendedPositives) -> str | None:
    """How the test split's ids are found. Raises DataError, before anything is trained, where it is not Karpathy's."""
    if settings.ground_truth == "dataset":
        return None
    from eccv_caption import Metrics

    ground_truth = Metrics()
    return coco_ids(folder, ground_truth.coco_ids, ground_truth.coco_gts["t2i"])[3]


def evaluate(folder: DatasetFolder, run: RunFolder, settings: ExtendedPositives) -> Result:
    """Recall over a many-to-many ground truth."""
    if settings.ground_truth == "dataset":
        return _listed_positives(folder, run)
    return _coco(folder, run, settings)


def _listed_positives(folder: DatasetFolder, run: RunFolder) -> Result:
    table = read_table(folder.annotations, EXTENDED_POSITIVES)
    tables = SplitTables.open(folder, "test")
    # Sorted and distinct, as they were embedded.
    texts, text_of_pair = np.unique(table["cleaned"].to_numpy(zero_copy_only=False), return_inverse=True)
    image = run.embeddings("test", "image_cross", len(tables.image_rows))
    text = run.embeddings("extended_positives", "text_cross", len(texts))
    positives = np.stack([tables.image_positions(table["image"].to_numpy()), text_of_pair], axis=1)
    per_query = extended_outcomes(image, text, positives)
    protocol = LISTED.format(head=run.head_used("cross"))
    return Result(percent(per_query), protocol, len(text), len(image), per_query=per_query)


def _coco(folder: DatasetFolder, run: RunFolder, settings: ExtendedPositives) -> Result:
    from eccv_caption import Metrics

    ground_truth = Metrics()
    image_ids, kept, caption_ids, how = coco_ids(folder, ground_truth.coco_ids, ground_truth.coco_gts["t2i"])
    captions = len(SplitTables.open(folder, "test").caption_rows)
    image = run.embeddings("test", "image_cross", len(image_ids))
    text = run.embeddings("test", "text_cross", captions)[kept]
    if (place := settings.available().get("pmrp")) is not None:
        names = [Path(place).expanduser() / f"pm_{name}.json" for name in PMRP_FILES]
        if missing := [str(path) for path in names if not path.is_file()]:
            raise DataError(f"benchmarks.eccv_caption.pmrp_files names {place}, which lacks {' and '.join(missing)}.")
        ground_truth.set_pm_gts(*map(str, names))
    metrics, per_query = coco_metrics(image, text, image_ids, caption_ids, ground_truth)
    protocol = COCO.format(head=run.head_used("cross"), version=version("eccv_caption"), ids=how)
    published = {name: ("eccv_caption", name) for name in metrics}
    return Result(metrics, protocol, len(text), len(image), per_query=per_query, published_as=published)


PMRP_FILES = ("image_to_caption", "caption_to_image")


def coco_metrics(
    image: np.ndarray, text: np.ndarray, image_ids: np.ndarray, caption_ids: np.ndarray, ground_truth: Any
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """All that `eccv_caption.Metrics.compute_all_metrics` computes, from embeddings, in percent; and of each query.

    `image` [n, D] and `text` [m, D] with COCO's ids, int64 [n] and [m]; `ground_truth` is an eccv_caption.Metrics.
    i2t and t2i ground truth differ in their queries, so each direction is scored on its own.
    """
    both = _PairsOf(image_ids, caption_ids)
    found = eccv_outcomes(image, text, image_ids, caption_ids, ground_truth)
    own_images = both(ground_truth.coco_gts)[1]
    found |= {f"coco_5k/{name}": hit for name, hit in recalled(*positive_ranks(image, text, own_images)).items()}
    ranks = positive_ranks(image, text, *both(ground_truth.cxc_gts))
    found |= {f"cxc/{name}": hit for name, hit in recalled(*ranks).items()}
    # Folds go by the package's own order of captions.
    order = both.captions(np.asarray(ground_truth.coco_ids, dtype=np.int64))
    image_of_caption = np.empty(len(text), dtype=np.int64)
    image_of_caption[own_images[:, 1]] = own_images[:, 0]
    _, first = np.unique(image_of_caption[order], return_index=True)
    images = image_of_caption[order][np.sort(first)]
    place = np.empty(len(images), dtype=np.int64)
    place[images] = np.arange(len(images))
    folds = fold_recall(image[images], text[order], place[image_of_caption[order]], COCO_FOLDS)
    if ground_truth.pm_gts:
        plausible = extended_outcomes(image, text, *both(ground_truth.pm_gts))
        found |= {f"{way}_pmrp": plausible[f"{way}_rprecision"] for way in ("i2t", "t2i")}
    recalls = {f"coco_1k/{name}": value for name, value in folds.items() if name[4:] in ("r1", "r5", "r10")}
    return percent(found) | recalls, found


def eccv_outcomes(
    image: np.ndarray, text: np.ndarray, image_ids: np.ndarray, caption_ids: np.ndarray, ground_truth: Any
) -> dict[str, np.ndarray]:
    """ECCV Caption's own metrics of each query: i2t_ and t2i_ r1, rprecision and map_at_r, float64 from 0 to 1."""
    return extended_outcomes(image, text, *_PairsOf(image_ids, caption_ids)(ground_truth.eccv_gts))


def coco_ids(
    folder: DatasetFolder, package_ids: np.ndarray, image_of_caption: Mapping[int, Sequence[int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """COCO's ids of the test images, in row order; which test captions the package knows, and their ids; all int64.

    Last, how the captions' ids were found.
    An image's id is the number that its name ends in. Captions have the id that their format gives them; where it
    gives none, an image's n-th caption is its n-th in Karpathy's order. Raises DataError for any other test split.
    """
    tables = SplitTables.open(folder, "test", images=["image_id"], captions=["caption_id"])
    names = tables.images["image_id"].to_pylist()
    numbers = [NUMBER.search(name) for name in names]
    image_ids = np.array([int(number[1]) if number else -1 for number in numbers], dtype=np.int64)
    owners = np.array([image_of_caption[int(caption)][0] for caption in package_ids], dtype=np.int64)
    known = np.isin(image_ids, owners)
    if not known.all() or len(image_ids) != len(np.unique(owners)):
        stray = "" if known.all() else f", for instance not {names[known.argmin()]}"
        raise DataError(
            f"{folder.annotations} has {len(image_ids):,} test images, of which {int(known.sum()):,} are among the "
            f"{len(np.unique(owners)):,} of Karpathy's COCO test{stray}; ECCV Caption is defined on that test split "
            "alone. Set benchmarks.eccv_caption: null for other data."
        )
    owner = image_ids[tables.image_of_caption]
    found = tables.captions["caption_id"]
    if found.null_count == 0:
        caption_ids, how = found.to_numpy().astype(np.int64), "caption ids from the data"
    else:
        # Numbered within their images; the package knows five captions of each.
        order = np.argsort(owner, kind="stable")
        _, first, count = np.unique(owner[order], return_index=True, return_counts=True)
        number = np.empty(len(owner), dtype=np.int64)
        number[order] = np.arange(len(owner)) - np.repeat(first, count)
        by_image = np.asarray(package_ids)[np.argsort(owners, kind="stable")].reshape(len(first), -1)
        row = np.searchsorted(np.sort(image_ids), owner)
        caption_ids = np.where(number < by_image.shape[1], by_image[row, np.minimum(number, by_image.shape[1] - 1)], -1)
        how = "the data has no caption ids, so an image's n-th caption is its n-th in Karpathy's order"
    kept = np.flatnonzero(np.isin(caption_ids, package_ids))
    if not np.array_equal(np.sort(caption_ids[kept]), np.sort(package_ids)):
        raise DataError(
            f"{folder.annotations} has {len(caption_ids):,} test captions, of which {len(kept):,} are among the "
            f"{len(package_ids):,} of Karpathy's COCO test; ECCV Caption needs all of them. Take Karpathy's "
            "dataset_coco.json, or set benchmarks.eccv_caption: null."
        )
    return image_ids, kept, caption_ids[kept], how


NUMBER = re.compile(r"(\d+)(?:\.\w+)?$")


class _PairsOf:
    """Ground truth by COCO's ids -> (image, caption) pairs by row, int64 [p, 2], of image and of caption queries."""

    def __init__(self, image_ids: np.ndarray, caption_ids: np.ndarray) -> None:
        self.images, self.captions = _Places(image_ids), _Places(caption_ids)

    def __call__(self, ground: Mapping[str, Mapping[int, Sequence[int]]]) -> tuple[np.ndarray, np.ndarray]:
        of_image = self._pairs(ground["i2t"], self.images, self.captions)
        return of_image, self._pairs(ground["t2i"], self.captions, self.images)[:, ::-1]

    def _pairs(self, ground: Mapping[int, Sequence[int]], queries: _Places, answers: _Places) -> np.ndarray:
        counts = np.fromiter(map(len, ground.values()), np.int64, len(ground))
        right = np.fromiter(chain.from_iterable(ground.values()), np.int64, counts.sum())
        asked = np.repeat(np.fromiter(ground, np.int64, len(ground)), counts)
        return np.stack([queries(asked), answers(right)], axis=1)


class _Places:
    """Where each of some ids stands."""

    def __init__(self, ids: np.ndarray) -> None:
        self.order = np.argsort(ids)
        self.sorted = ids[self.order]

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        places: np.ndarray = self.order[np.searchsorted(self.sorted, ids)]
        return places
