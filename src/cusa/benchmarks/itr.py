"""Image-text retrieval: recall at 1, 5 and 10 both ways on held-out pairs, with any number of captions an image."""

from __future__ import annotations

from cusa.annotations.tables import SplitTables
from cusa.benchmarks import languages
from cusa.benchmarks.benchmark import Result
from cusa.benchmarks.outcomes import both_ways, fold_statistics, recall_statistics
from cusa.benchmarks.queries import Queries, across, test_captions, test_pictures
from cusa.config.benchmarks import ImageTextRetrieval
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.metrics.recall import RECALL_AT, fold_ranks, image_text_ranks, mean_of_folds, recalled, summary_of_ranks
from cusa.metrics.scores import percent
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


def queries(folder: DatasetFolder, metric: str) -> Queries | None:
    """The test captions and the test images; there are none for metrics of folds."""
    return None if "/" in metric else across(metric, test_captions(folder), test_pictures(folder))


def evaluate(folder: DatasetFolder, run: RunFolder, settings: ImageTextRetrieval) -> Result:
    """Recall on the test split and, if `folds` is set, its mean over folds (`folds/...`).

    If the captions are of several languages, also recall in each (`{language}/...`) and its mean (`languages/...`).

    Raises DataError if embeddings are missing or the images cannot be divided into so many folds.
    """
    tables = SplitTables.open(folder, "test")
    image = run.embeddings("test", "image_cross", len(tables.image_rows))
    text = run.embeddings("test", "text_cross", len(tables.caption_rows))
    ranks = image_text_ranks(image, text, tables.image_of_caption)
    metrics, statistics = summary_of_ranks(*ranks), recall_statistics(*ranks, tables.image_of_caption)
    protocol, sizes = PROTOCOL.format(head=run.head_used("cross")), dict[str, tuple[int, int]]()
    further = [k for k in settings.recall_at if k not in RECALL_AT]
    outcomes = recalled(*ranks, further)
    metrics |= percent(outcomes)
    statistics |= both_ways(outcomes, tables.image_of_caption, len(image))
    if settings.folds is not None:
        try:
            folds = fold_ranks(image, text, tables.image_of_caption, settings.folds)
        except ValueError as error:
            raise DataError(f"benchmarks.itr.folds is {settings.folds}, but {error}; set it to null.") from None
        metrics |= {f"folds/{name}": value for name, value in mean_of_folds(folds).items()}
        statistics |= fold_statistics(folds, "folds")
        protocol += (
            f" folds: mean over {settings.folds} consecutive folds of the test images, in the order of the data."
        )
        sizes["folds"] = (len(text) // settings.folds, len(image) // settings.folds)
    if (spoken := languages.languages_of(folder, "test")) is not None:
        found, described, counted = languages.language_scores(image, text, tables.image_of_caption, spoken)
        metrics, statistics, sizes = metrics | found, {**statistics, **described}, sizes | counted
        protocol += languages.PROTOCOL
    return Result(
        metrics=metrics,
        protocol=protocol,
        n_queries=len(text),
        n_gallery=len(image),
        sizes=sizes,
        statistics=statistics,
        published_as={name: (settings.published, name) for name in metrics} if settings.published is not None else {},
    )
