"""Image-to-image retrieval of the same label, on the data set's labelled images and on the configured data sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cusa.annotations.tables import IMAGES, read_table, split_rows
from cusa.benchmarks.benchmark import Result
from cusa.benchmarks.outcomes import Combination, Statistic, Units, means
from cusa.benchmarks.queries import Items, Queries
from cusa.config.benchmarks import ImageRetrieval
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.metrics.labels import label_found
from cusa.metrics.scores import percent
from cusa.runs.record import RunFolder

SETTINGS = ImageRetrieval
ACROSS_MODALITIES = False
AVERAGED = ("cub", "sop", "inshop", "inaturalist")  # the data sets of the paper's average
PROTOCOL = (
    "{head} of the image side; each labelled image searches all the others (In-Shop: the gallery) by Euclidean "
    "distance of L2-normalised embeddings; right answers have its label. Ties count against the model."
)


def data(provides: frozenset[str], settings: ImageRetrieval) -> tuple[str, ...]:
    """The data set's own labelled images, if it has any, and the named data sets that exist."""
    return (*(("variants",) if "variants" in provides else ()), *settings.available())


def queries(folder: DatasetFolder, metric: str) -> Queries | None:
    """The labelled images, or those whose role is `query`, and the images that they search."""
    data = metric.rpartition("/")[0]
    place, split = (folder.benchmark_data(data), "test") if data else (folder, "variants")
    images = read_table(place.annotations, IMAGES)
    pictures = Items.pictures(place, data or "variants", split, "image_uni", len(split_rows(images, split)))
    if "role" not in images.column_names or images["role"].null_count:
        return Queries(pictures, pictures, with_itself=True)
    is_query = images["role"].to_numpy(zero_copy_only=False)[split_rows(images, split)] == "query"
    asked, searched = (replace(pictures, rows=np.flatnonzero(mask)) for mask in (is_query, ~is_query))
    return Queries(asked, searched)


def evaluate(folder: DatasetFolder, run: RunFolder, settings: ImageRetrieval) -> Result:
    """Nearest-neighbour recall of the label; metrics of a named data set are called `{data}/...`.

    Raises DataError if there are no labelled images, or embeddings are missing.
    """
    metrics: dict[str, float] = {}
    statistics: dict[str, Statistic | Combination] = {}
    sizes: dict[str, tuple[int, int]] = {}
    labelled = len(split_rows(read_table(folder.annotations, IMAGES, ["split"]), "variants"))
    places = {"": (folder, "variants")} if labelled else {}
    places |= {name: (folder.benchmark_data(name), "test") for name in settings.available()}
    for name, (place, split) in places.items():
        outcomes, sizes[name] = _score(place, split, run, name or "variants", settings.recall_at)
        outcomes = {f"{name}/{metric}".lstrip("/"): values for metric, values in outcomes.items()}
        metrics |= percent(outcomes)
        statistics |= means(outcomes, Units.of_each_query(name or "variants", sizes[name][0]))
    if not sizes:
        raise DataError(
            f"{folder.annotations} has no labelled images, and none of the data sets that benchmarks.image_retrieval "
            "names exists; `cusa datasets` says where to get them."
        )
    if all(name in sizes for name in AVERAGED):
        averaged = [f"{name}/r1" for name in AVERAGED]
        metrics["average/r1"] = float(np.mean([metrics[name] for name in averaged]))
        statistics["average/r1"] = Combination.mean(averaged)
    queries, gallery = (sum(size[side] for size in sizes.values()) for side in (0, 1))
    sizes.pop("", None)
    published = {f"{name}/r1": ("image_retrieval_r1", name) for name in sizes}
    published["average/r1"] = ("image_retrieval_r1", "avg")
    return Result(
        metrics=metrics,
        protocol=PROTOCOL.format(head=run.head_used("uni")),
        n_queries=queries,
        n_gallery=gallery,
        sizes=sizes,
        statistics=statistics,
        published_as=published,
    )


def _score(
    folder: DatasetFolder, split: str, run: RunFolder, data: str, recall_at: list[int]
) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Outcomes of the queries of one data set, by metric, and the numbers of its queries and gallery images."""
    images = read_table(folder.annotations, IMAGES)
    rows = split_rows(images, split)
    labels = images["label"].to_numpy(zero_copy_only=False)[rows]
    if any(label is None for label in labels):
        raise DataError(f"{folder.annotations}/{IMAGES} has labelled images without a label.")
    labels = labels.astype(str)
    image = run.embeddings(data, "image_uni", len(rows))
    if "role" not in images.column_names or images["role"].null_count:
        return label_found(image, labels, recall_at=recall_at), (len(rows), len(rows) - 1)
    is_query = images["role"].to_numpy(zero_copy_only=False)[rows] == "query"
    if is_query.all() or not is_query.any():
        raise DataError(
            f"{folder.annotations}/{IMAGES} has {int(is_query.sum()):,} query images and {int((~is_query).sum()):,} of "
            "the gallery; expected some of each."
        )
    outcomes = label_found(image[is_query], labels[is_query], image[~is_query], labels[~is_query], recall_at)
    return outcomes, (int(is_query.sum()), int((~is_query).sum()))
