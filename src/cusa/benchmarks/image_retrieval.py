"""Image-to-image retrieval of the same class: labelled images of the data set, and every data set that is named."""

from __future__ import annotations

import numpy as np

from cusa.annotations.tables import IMAGES, read_table, split_rows
from cusa.benchmarks.benchmark import Result
from cusa.config.benchmarks import ImageRetrieval
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.metrics.labels import label_found
from cusa.metrics.scores import percent
from cusa.runs.record import RunFolder

SETTINGS = ImageRetrieval
ACROSS_MODALITIES = False


# The paper's average.
AVERAGED = ("cub", "sop", "inshop", "inaturalist")
PROTOCOL = (
    "{head} of the image side; each labelled image searches all the others (In-Shop: the gallery) by Euclidean "
    "distance of L2-normalised embeddings; right answers have its label. Ties count against the model."
)


def data(provides: frozenset[str], settings: ImageRetrieval) -> tuple[str, ...]:
    """The data set's own labelled images where it has some, and the named ones that are there."""
    return (*(("variants",) if "variants" in provides else ()), *settings.available())


def evaluate(folder: DatasetFolder, run: RunFolder, settings: ImageRetrieval) -> Result:
    """Nearest-neighbour recall of the label; `{data}/...` for named data."""
    per_query: dict[str, np.ndarray] = {}
    sizes: dict[str, tuple[int, int]] = {}
    if len(split_rows(read_table(folder.annotations, IMAGES, ["split"]), "variants")):
        per_query, sizes[""] = _score(folder, "variants", run, "variants")
    for name in settings.available():
        scored, sizes[name] = _score(folder.benchmark_data(name), "test", run, name)
        per_query |= {f"{name}/{metric}": values for metric, values in scored.items()}
    if not sizes:
        raise DataError(
            f"{folder.annotations} has no labelled images and none that benchmarks.image_retrieval names are there; "
            "`cusa datasets` says where to get them."
        )
    metrics = percent(per_query)
    if all(name in sizes for name in AVERAGED):
        metrics["average/r1"] = float(np.mean([metrics[f"{name}/r1"] for name in AVERAGED]))
    queries, gallery = (sum(size[side] for size in sizes.values()) for side in (0, 1))
    sizes.pop("", None)
    published = {f"{name}/r1": ("image_retrieval_r1", name) for name in sizes}
    published["average/r1"] = ("image_retrieval_r1", "avg")
    protocol = PROTOCOL.format(head=run.head_used("uni"))
    return Result(metrics, protocol, queries, gallery, sizes, per_query, published)


def _score(
    folder: DatasetFolder, split: str, run: RunFolder, data: str
) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    images = read_table(folder.annotations, IMAGES)
    rows = split_rows(images, split)
    labels = images["label"].to_numpy(zero_copy_only=False)[rows]
    if any(label is None for label in labels):
        raise DataError(f"{folder.annotations}/{IMAGES} has labelled images without a label.")
    labels = labels.astype(str)
    image = run.embeddings(data, "image_uni", len(rows))
    if "role" not in images.column_names or images["role"].null_count:
        return label_found(image, labels), (len(rows), len(rows) - 1)
    is_query = images["role"].to_numpy(zero_copy_only=False)[rows] == "query"
    found = label_found(image[is_query], labels[is_query], image[~is_query], labels[~is_query])
    return found, (int(is_query.sum()), int((~is_query).sum()))
