"""Image-to-image retrieval of the same class over labelled images."""

from __future__ import annotations

from cusa.annotations import IMAGES, read_table, split_rows
from cusa.benchmarks import Result, Run
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.metrics import nearest_label_recall

DATA = ("variants",)
PROTOCOL = (
    "{head} of the image side; each labelled image searches all the others by Euclidean distance of L2-normalised "
    "embeddings; right answers have its label. Ties count against the model."
)


def evaluate(folder: DatasetFolder, run: Run) -> Result:
    """Nearest-neighbour recall of the label."""
    images = read_table(folder.annotations, IMAGES, ["split", "label"])
    rows = split_rows(images, "variants")
    labels = images["label"].to_numpy(zero_copy_only=False)[rows]
    if any(label is None for label in labels):
        raise DataError(f"{folder.annotations}/{IMAGES} has labelled images without a label.")
    image = run.embeddings("variants", "image_uni", len(rows))
    metrics = nearest_label_recall(image, labels.astype(str))
    return Result(metrics, PROTOCOL.format(head=run.head_used("uni")), len(rows), len(rows) - 1)
