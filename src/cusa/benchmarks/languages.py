"""Image-text retrieval in each language of the captions."""

from __future__ import annotations

import numpy as np

from cusa.annotations.tables import CAPTIONS, SplitTables, read_schema
from cusa.benchmarks.outcomes import Combination, Statistic, recall_statistics
from cusa.layout import DatasetFolder
from cusa.metrics.recall import image_text_ranks, summary_of_ranks

MEAN = "languages"  # the data whose metrics are the means over languages
PROTOCOL = (
    " By language: the captions of that language against the images that have one, as if there were no others; "
    "languages: the mean over them."
)
Sizes = dict[str, tuple[int, int]]


def languages_of(folder: DatasetFolder, split: str) -> np.ndarray | None:
    """The language of each caption of a split, [captions], None for those without one.

    None if the data set has no languages, or all captions of the split have the same one.
    """
    if "language" not in read_schema(folder.annotations, CAPTIONS).names:
        return None
    captions = SplitTables.open(folder, split, captions=["language"]).captions
    found: np.ndarray = captions["language"].to_numpy(zero_copy_only=False)
    return found if len(set(found.tolist()) - {None}) > 1 else None


def language_scores(
    image: np.ndarray, text: np.ndarray, image_of_text: np.ndarray, languages: np.ndarray
) -> tuple[dict[str, float], dict[str, Statistic | Combination], Sizes]:
    """Recall in each language, as `{language}/{metric}`, and its mean as `languages/{metric}`; with statistics.

    `image` [n, D] and `text` [m, D] are embeddings, `image_of_text` int [m] the image of each text, `languages` [m] the
    texts' languages. The sizes are the numbers of texts and images of each language.
    """
    metrics: dict[str, float] = {}
    statistics: dict[str, Statistic | Combination] = {}
    sizes: Sizes = {}
    for language in sorted(set(languages.tolist()) - {None}):
        mine = np.flatnonzero(languages == language)
        images, own = np.unique(image_of_text[mine], return_inverse=True)
        ranks = image_text_ranks(image[images], text[mine], own)
        metrics |= {f"{language}/{name}": value for name, value in summary_of_ranks(*ranks).items()}
        statistics |= recall_statistics(*ranks, own, name=f"images, {language}", prefix=f"{language}/")
        sizes[language] = (len(mine), len(images))
    for name in [key.partition("/")[2] for key in metrics if key.startswith(f"{next(iter(sizes))}/")]:
        parts = [f"{language}/{name}" for language in sizes]
        metrics[f"{MEAN}/{name}"] = float(np.mean([metrics[part] for part in parts]))
        statistics[f"{MEAN}/{name}"] = Combination.mean(parts)
    return metrics, statistics, sizes
