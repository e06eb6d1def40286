"""Retrieval with several right answers a query (Chun et al., ECCV Caption, ECCV 2022).

A data set that lists its extended positives is scored on those, and any data set on the user's own table. Karpathy's
COCO test is scored on the ground truth of the package `eccv_caption`: ECCV Caption, CxC (Parekh et al., EACL 2021),
COCO 1K and 5K, and PMRP if its files are given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from typing import Any

import numpy as np

from cusa.annotations.judged_pairs import write_judged_pairs
from cusa.annotations.tables import EXTENDED_POSITIVES, JUDGED_PAIRS, SplitTables, distinct_texts, read_table
from cusa.benchmarks.benchmark import Result
from cusa.benchmarks.judgements import score_judgements
from cusa.benchmarks.outcomes import Statistics, both_ways, fold_statistics
from cusa.benchmarks.queries import Items, Queries, across, test_captions, test_pictures
from cusa.common.files import expanded
from cusa.config.benchmarks import ExtendedPositives
from cusa.errors import DataError, reason_of
from cusa.layout import DatasetFolder
from cusa.metrics.precision import extended_outcomes
from cusa.metrics.recall import RECALL_AT, fold_ranks, mean_of_folds, positive_ranks, recalled, with_slashes
from cusa.metrics.scores import percent
from cusa.runs.record import RunFolder

SETTINGS = ExtendedPositives
ACROSS_MODALITIES = True
COCO_FOLDS = 5
PMRP_FILES = ("image_to_caption", "caption_to_image")
NUMBER = re.compile(r"(\d+)(?:\.\w+)?$")  # the last number of a file's name
LISTED = (
    "{head}; queries are the distinct captions of extended_positives.parquet and the test images that have any, right "
    "answers all that the table lists. R@{at}, R-Precision and mAP@R. Ties count against the model."
)
COCO = (
    "{head}; ground truth of the package eccv_caption {version}, {ids}. R@{at}, R-Precision and mAP@R over ECCV "
    "Caption's queries; cxc: R@K over CxC's; coco_5k and coco_1k (mean of five folds): R@K of the captions' own "
    "images. Ties count against the model."
)


def data(provides: frozenset[str], settings: ExtendedPositives) -> tuple[str, ...]:
    """The test split and, unless the ground truth is COCO's, the texts of the extended positives."""
    if settings.positives is not None:
        return ("test", "judged_pairs")
    return ("test", "extended_positives") if settings.ground_truth == "dataset" else ("test",)


def check(folder: DatasetFolder, settings: ExtendedPositives) -> str | None:
    """A sentence on how the ids of the test captions are found; None if the ground truth is the data set's own.

    Runs before any training. Raises DataError if the test split is not Karpathy's COCO test, or the files of
    `pmrp_files` are of other images or captions.
    """
    if settings.positives is not None or settings.ground_truth == "dataset":
        return None
    ground_truth = _ground_truth(settings)
    image_ids, _, caption_ids, how = coco_ids(folder, ground_truth.coco_ids, ground_truth.coco_gts["t2i"])
    _PairsOf(image_ids, caption_ids)(ground_truth.pm_gts or {"i2t": {}, "t2i": {}})
    return how


def queries(folder: DatasetFolder, metric: str) -> Queries | None:
    """The distinct texts of the data set's own table, or the captions that COCO's ground truth knows; test images."""
    if "fold " in metric or (folder.annotations / JUDGED_PAIRS).is_file():  # whose texts are of two arrays
        return None
    if (folder.annotations / EXTENDED_POSITIVES).is_file():
        texts = distinct_texts(folder, "extended_positives")
        asked = Items(folder, "extended_positives", "", "text_cross", len(texts), np.arange(len(texts)), texts)
        return across(metric, asked, test_pictures(folder))
    ground_truth = _ground_truth(ExtendedPositives())
    _, kept, _, _ = coco_ids(folder, ground_truth.coco_ids, ground_truth.coco_gts["t2i"])
    captions = test_captions(folder)
    known = replace(captions, rows=kept, texts=[(captions.texts or [])[row] for row in kept])
    return across(metric, known, test_pictures(folder))


def write_texts(folder: DatasetFolder, settings: ExtendedPositives) -> None:
    """Write the judgements of `positives` as a table of the data set. Raises DataError if they do not fit it."""
    if settings.positives is None:
        raise DataError("benchmarks.eccv_caption.positives is null, so there are no judgements to write.")
    write_judged_pairs(folder, settings.positives)


def evaluate(folder: DatasetFolder, run: RunFolder, settings: ExtendedPositives) -> Result:
    """R@K, R-Precision and mAP@R of the ground truth that the settings name. Raises DataError if data are missing."""
    if settings.positives is not None:
        return score_judgements(folder, run, settings.recall_at)
    if settings.ground_truth == "dataset":
        return _listed_positives(folder, run, settings)
    return _coco(folder, run, settings)


def _listed_positives(folder: DatasetFolder, run: RunFolder, settings: ExtendedPositives) -> Result:
    """Scores on the data set's own table of extended positives."""
    table = read_table(folder.annotations, EXTENDED_POSITIVES)
    tables = SplitTables.open(folder, "test")
    # Sorted and distinct, as they were embedded.
    cleaned = table["cleaned"].to_numpy(zero_copy_only=False)
    texts, first_pair, text_of_pair = np.unique(cleaned, return_index=True, return_inverse=True)
    image = run.embeddings("test", "image_cross", len(tables.image_rows))
    text = run.embeddings("extended_positives", "text_cross", len(texts))
    image_of_pair = tables.image_positions(table["image"].to_numpy())
    pairs = np.stack([image_of_pair, text_of_pair], axis=1)
    per_query = extended_outcomes(image, text, pairs, recall_at=settings.recall_at)
    return Result(
        metrics=percent(per_query),
        protocol=LISTED.format(head=run.head_used("cross"), at=with_slashes(settings.recall_at)),
        n_queries=len(text),
        n_gallery=len(image),
        # A text may be right for several images; it is drawn with the first of them.
        statistics=both_ways(per_query, image_of_pair[first_pair], len(image)),
    )


def _coco(folder: DatasetFolder, run: RunFolder, settings: ExtendedPositives) -> Result:
    """Scores on the ground truth of the package."""
    ground_truth = _ground_truth(settings)
    image_ids, kept, caption_ids, how = coco_ids(folder, ground_truth.coco_ids, ground_truth.coco_gts["t2i"])
    captions = len(SplitTables.open(folder, "test").caption_rows)
    image = run.embeddings("test", "image_cross", len(image_ids))
    text = run.embeddings("test", "text_cross", captions)[kept]
    metrics, statistics = coco_metrics(image, text, image_ids, caption_ids, ground_truth, settings.recall_at)
    return Result(
        metrics=metrics,
        protocol=COCO.format(
            head=run.head_used("cross"), version=version("eccv_caption"), ids=how, at=with_slashes(settings.recall_at)
        ),
        n_queries=len(text),
        n_gallery=len(image),
        statistics=statistics,
        published_as={name: ("eccv_caption", name) for name in metrics},
    )


def _ground_truth(settings: ExtendedPositives) -> Any:
    """An eccv_caption.Metrics, with the plausible matches of `pmrp_files` if they are there."""
    from eccv_caption import Metrics

    ground_truth = Metrics()
    if (place := settings.available().get("pmrp")) is None:
        return ground_truth
    names = [expanded(place) / f"pm_{name}.json" for name in PMRP_FILES]
    if missing := [str(path) for path in names if not path.is_file()]:
        raise DataError(f"benchmarks.eccv_caption.pmrp_files names {place}, which lacks {' and '.join(missing)}.")
    try:
        ground_truth.set_pm_gts(*map(str, names))
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{' or '.join(map(str, names))} cannot be read ({reason_of(error)}); expected JSON with a list of COCO's "
            "ids by each id, as the repository of eccv_caption has them."
        ) from None
    return ground_truth


def coco_metrics(
    image: np.ndarray,
    text: np.ndarray,
    image_ids: np.ndarray,
    caption_ids: np.ndarray,
    ground_truth: Any,
    recall_at: Sequence[int] = (1,),
) -> tuple[dict[str, float], Statistics]:
    """The metrics of `eccv_caption.Metrics.compute_all_metrics` from embeddings, in percent, and their statistics.

    `image` [n, D] and `text` [m, D] have COCO's ids `image_ids` int64 [n] and `caption_ids` int64 [m]; `ground_truth`
    is an eccv_caption.Metrics. Its image queries and its caption queries have different right pairs, so each direction
    is scored with its own. `recall_at` has the K of R@K over ECCV Caption's queries; CxC's and COCO's have 1, 5 and 10
    too.
    """
    both = _PairsOf(image_ids, caption_ids)
    outcomes = eccv_outcomes(image, text, image_ids, caption_ids, ground_truth, recall_at)
    of_all = sorted({*RECALL_AT, *recall_at})
    own_images = both(ground_truth.coco_gts)[1]
    ranks = {
        "coco_5k": positive_ranks(image, text, own_images),
        "cxc": positive_ranks(image, text, *both(ground_truth.cxc_gts)),
    }
    outcomes |= {
        f"{data}/{name}": hits
        for data, both_ranks in ranks.items()
        for name, hits in recalled(*both_ranks, of_all).items()
    }
    # The folds follow the package's own order of captions.
    order = both.captions(np.asarray(ground_truth.coco_ids, dtype=np.int64))
    image_of_caption = np.empty(len(text), dtype=np.int64)
    image_of_caption[own_images[:, 1]] = own_images[:, 0]
    _, first = np.unique(image_of_caption[order], return_index=True)
    images = image_of_caption[order][np.sort(first)]
    place = np.empty(len(images), dtype=np.int64)
    place[images] = np.arange(len(images))
    folds = fold_ranks(image[images], text[order], place[image_of_caption[order]], COCO_FOLDS)
    if ground_truth.pm_gts:
        plausible = extended_outcomes(image, text, *both(ground_truth.pm_gts))
        outcomes |= {f"{way}_pmrp": plausible[f"{way}_rprecision"] for way in ("i2t", "t2i")}
    means = mean_of_folds(folds)
    recalls = {f"coco_1k/{way}_r{k}": means[f"{way}_r{k}"] for way in ("i2t", "t2i") for k in RECALL_AT}
    statistics = both_ways(outcomes, image_of_caption, len(image)) | fold_statistics(folds, "coco_1k")
    return percent(outcomes) | recalls, statistics


def eccv_outcomes(
    image: np.ndarray,
    text: np.ndarray,
    image_ids: np.ndarray,
    caption_ids: np.ndarray,
    ground_truth: Any,
    recall_at: Sequence[int] = (1,),
) -> dict[str, np.ndarray]:
    """Outcomes of ECCV Caption's queries, float64 from 0 to 1: r{K} of `recall_at`, rprecision and map_at_r of
    i2t_ [n] and t2i_ [m].

    NaN stands for an image or caption that is not among its queries.
    """
    return extended_outcomes(image, text, *_PairsOf(image_ids, caption_ids)(ground_truth.eccv_gts), recall_at)


def coco_ids(
    folder: DatasetFolder, package_ids: np.ndarray, image_of_caption: Mapping[int, Sequence[int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """COCO's ids of the test split, and a phrase on how the captions' ids are found.

    `package_ids` [25,000] are the caption ids that the package knows, `image_of_caption` the images of each. Returns
    the id of each test image, int64 [n] in row order; the positions of the test captions that the package knows, int64
    [m]; and their ids, int64 [m]. An image's id is the number at the end of its name. A caption's id is the one that
    its format gives; if the format gives none, an image's n-th caption is its n-th in Karpathy's order.

    Raises DataError if the test split is not Karpathy's COCO test.
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
            f"{len(np.unique(owners)):,} of Karpathy's COCO test{stray}; ECCV Caption is defined only on that "
            "test split. Set benchmarks.eccv_caption: null for other data."
        )
    owner = image_ids[tables.image_of_caption]
    given = tables.captions["caption_id"]
    if given.null_count == 0:
        caption_ids, how = given.to_numpy().astype(np.int64), "caption ids from the data"
    else:
        # Captions are numbered within their image. The package knows five captions of each image.
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


class _PairsOf:
    """Turns ground truth by COCO's ids into (image, caption) pairs of row numbers.

    Returns int64 [p, 2] for image queries and int64 [q, 2] for caption queries. As in the package, a right answer that
    the data do not have counts as never found: its row number is negative. Raises DataError for a query that they do
    not have.
    """

    def __init__(self, image_ids: np.ndarray, caption_ids: np.ndarray) -> None:
        self.images, self.captions = _Places(image_ids), _Places(caption_ids)

    def __call__(self, ground: Mapping[str, Mapping[int, Sequence[int]]]) -> tuple[np.ndarray, np.ndarray]:
        of_image = self._pairs(ground["i2t"], self.images, self.captions, "image")
        return of_image, self._pairs(ground["t2i"], self.captions, self.images, "caption")[:, ::-1]

    def _pairs(self, ground: Mapping[int, Sequence[int]], queries: _Places, answers: _Places, kind: str) -> np.ndarray:
        counts = np.fromiter(map(len, ground.values()), np.int64, len(ground))
        right = np.fromiter(chain.from_iterable(ground.values()), np.int64, counts.sum())
        asked = np.fromiter(ground, np.int64, len(ground))
        rows = queries(asked)
        if (unknown := rows < 0).any():
            raise DataError(
                f"the ground truth has {int(unknown.sum()):,} {kind} queries that are not in the test split, for "
                f"instance the {kind} {asked[unknown][0]}, of {len(asked):,}. If benchmarks.eccv_caption.pmrp_files is "
                "set, take the files for Karpathy's COCO test."
            )
        return np.stack([np.repeat(rows, counts), answers(right)], axis=1)


class _Places:
    """The positions of ids in an array of distinct ids; unknown ids have negative numbers, each its own."""

    def __init__(self, ids: np.ndarray) -> None:
        self.order = np.argsort(ids)
        self.sorted = ids[self.order]

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        at = np.minimum(np.searchsorted(self.sorted, ids), len(self.sorted) - 1)
        places: np.ndarray = self.order[at]
        unknown = self.sorted[at] != ids
        places[unknown] = -1 - np.unique(ids[unknown], return_inverse=True)[1]
        return places
