"""Linear probe: the accuracy of a logistic regression on frozen embeddings of images (Radford et al., 2021, A.3).

Before and after a training, it shows how well the embeddings separate classes that the training did not use.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cusa.benchmarks.benchmark import Result
from cusa.benchmarks.classification_scores import ClassificationScores
from cusa.benchmarks.labelled_split import LabelledSplit, classified_images, prefix_of, test_data
from cusa.benchmarks.queries import Queries
from cusa.config.classification import DATASET, LinearProbe, train_data
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.metrics.classification import label_ranks
from cusa.metrics.logistic_regression import class_scores
from cusa.runs.record import RunFolder

SETTINGS = LinearProbe
ACROSS_MODALITIES = False
PROTOCOL = (
    "{head} of the image side; a logistic regression on L2-normalised embeddings, whose C ({chosen}) is the best of "
    "1e-4 to 1e2 on a fifth of the images that it learns from. acc1 and acc5: the share of test images whose class is "
    "the first, or among the first five; mean per class recall: acc1 of each class, averaged. Images of a class that "
    "it did not learn are misses."
)


def data(provides: frozenset[str], settings: LinearProbe) -> tuple[str, ...]:
    """The data set's own train and test images if they are asked for, and the named images that exist."""
    return (*(("train", "test") if settings.dataset_images else ()), *settings.available())


def check(folder: DatasetFolder, settings: LinearProbe) -> str | None:
    """A sentence on the data set's own labels. Raises DataError if its images have none, or all of train the same."""
    if not settings.dataset_images:
        return None
    train, test = (LabelledSplit.open(folder, split, split) for split in ("train", "test"))
    if len(train.classes) < 2:
        raise DataError(
            f"{folder.annotations} has train images of one class, `{train.classes[0]}`, so there is nothing to learn; "
            "leave benchmarks.linear_probe.dataset_images out."
        )
    known = np.isin(test.labels, train.classes)
    return f"{len(train.classes):,} classes; {int(known.sum()):,} of {len(known):,} test images are of one of them"


def queries(folder: DatasetFolder, metric: str) -> Queries | None:
    """The labelled images. If a share of them is for learning, there are fewer outcomes than images."""
    return classified_images(folder, metric, "image_uni")


def evaluate(folder: DatasetFolder, run: RunFolder, settings: LinearProbe) -> Result:
    """Accuracies; those of named images are called `{data}/...`. Raises DataError if embeddings are missing."""
    scores, chosen = ClassificationScores(), []
    for name, train, labels, test, test_labels in _divided(folder, run, settings):
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise DataError(f"the images that the probe of {name} learns from are all of the class `{classes[0]}`.")
        of_classes, strength = class_scores(train, codes, test)
        place = np.minimum(np.searchsorted(classes, test_labels), len(classes) - 1)
        own = np.where(classes[place] == test_labels, place, -1)
        scores.add(prefix_of(name), label_ranks(of_classes, own), test_labels, len(classes))
        chosen.append(f"{name}: {strength:g}")
    if not chosen:
        raise DataError("none of the images that benchmarks.linear_probe names exists.")
    return scores.result(PROTOCOL.format(head=run.head_used(settings.head), chosen="; ".join(chosen)))


Divided = tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _divided(folder: DatasetFolder, run: RunFolder, settings: LinearProbe) -> Iterator[Divided]:
    """The name of data; embeddings and labels to learn from; embeddings and labels to test on."""
    available = settings.available()
    for name, test in test_data(folder, settings):
        images = test.images(run, settings.head)
        if name == DATASET:
            train = LabelledSplit.open(folder, "train", "train")
        elif name not in settings.train_images:
            learned = _share_of_each_class(test.labels, settings.train_share)
            yield name, images[learned], test.labels[learned], images[~learned], test.labels[~learned]
            continue
        elif (own := train_data(name)) in available:
            train = LabelledSplit.open(folder.benchmark_data(own), "test", own)
        else:
            continue  # the summary says that the train images do not exist
        yield name, train.images(run, settings.head), train.labels, images, test.labels


def _share_of_each_class(labels: np.ndarray, share: float) -> np.ndarray:
    """The images for learning, bool [n]: this share of each class, at random but always the same.

    A class of one image is tested, and not learned.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    learned = np.zeros(len(labels), dtype=bool)
    for label in sorted(set(labels.tolist())):
        mine = order[labels[order] == label]
        count = min(max(1, round(share * len(mine))), len(mine) - 1)
        learned[mine[:count]] = True
    return learned
