"""Image-text retrieval: recall at 1, 5 and 10 both ways on held-out pairs, with any number of captions an image."""

from __future__ import annotations

from cusa.annotations.tables import SplitTables
from cusa.benchmarks.benchmark import Result
from cusa.config.benchmarks import ImageTextRetrieval
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.metrics.recall import fold_recall, image_text_ranks, recalled, summary_of_ranks
from cusa.runs.record import RunFolder

SETTINGS = ImageTextRetrieval
ACROSS_MODALITIES = True
PROTOCOL = (
    "{head}; every test caption against every test image and the other way round. The image-to-text rank is the best "
    "rank among the image's captions. Ties count against the model."
)


def data(provides: frozenset[str], settings: ImageTextRetrieval) -> tuple[str, ...]:
    """The test split."""
    return ("test",)


def evaluate(folder: DatasetFolder, run: RunFolder, settings: ImageTextRetrieval) -> Result:
    """Recall on the test split, and the mean over its folds (`folds/...`) where there are some."""
    tables = SplitTables.open(folder, "test")
    image = run.embeddings("test", "image_cross", len(tables.image_rows))
    text = run.embeddings("test", "text_cross", len(tables.caption_rows))
    ranks = image_text_ranks(image, text, tables.image_of_caption)
    metrics = summary_of_ranks(*ranks)
    protocol, sizes = PROTOCOL.format(head=run.head_used("cross")), dict[str, tuple[int, int]]()
    if settings.folds is not None:
        try:
            folds = fold_recall(image, text, tables.image_of_caption, settings.folds)
        except ValueError as error:
            raise DataError(f"benchmarks.itr.folds is {settings.folds}, but {error}; set it to null.") from None
        metrics |= {f"folds/{name}": value for name, value in folds.items()}
        protocol += (
            f" folds: mean over {settings.folds} consecutive folds of the test images, in the order of the data."
        )
        sizes["folds"] = (len(text) // settings.folds, len(image) // settings.folds)
    published = {name: (settings.published, name) for name in metrics} if settings.published is not None else {}
    return Result(metrics, protocol, len(text), len(image), sizes, recalled(*ranks), published)
