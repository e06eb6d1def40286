"""Zero-shot classification: the class whose name, in a template, is nearest to the image (CLIP, Radford et al., 2021).

Before and after a training, it shows what the training has forgotten.
"""

from __future__ import annotations

import numpy as np

from cusa.annotations.class_prompts import write_class_prompts
from cusa.annotations.tables import CLASS_PROMPTS, distinct_texts, read_table
from cusa.benchmarks.benchmark import Result
from cusa.benchmarks.classification_scores import ClassificationScores
from cusa.benchmarks.labelled_split import classified_images, prefix_of, test_data
from cusa.benchmarks.queries import Queries
from cusa.common.workflow_files import workflow_command
from cusa.config.classification import ZeroShotClassification
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.metrics.recall import positive_ranks
from cusa.metrics.scores import unit_float32
from cusa.runs.record import RunFolder

SETTINGS = ZeroShotClassification
ACROSS_MODALITIES = True
PROTOCOL = (
    "{head}; the cosine of each labelled image with each class, which is the mean of the L2-normalised embeddings of "
    "its prompts: {templates}. acc1 and acc5: the share of images whose class is the first, or among the first five; "
    "mean per class recall: acc1 of each class, averaged. Ties count against the model."
)


def data(provides: frozenset[str], settings: ZeroShotClassification) -> tuple[str, ...]:
    """The prompts, the data set's own test images if they are asked for, and the named images that exist."""
    images = (*(("test",) if settings.dataset_images else ()), *settings.available())
    return ("class_prompts", *images) if images else ()


def write_texts(folder: DatasetFolder, settings: ZeroShotClassification) -> None:
    """Write the table of prompts for the classes that the images have. Raises DataError if they have no labels."""
    write_class_prompts(folder, {name: split.classes for name, split in test_data(folder, settings)}, settings)


def queries(folder: DatasetFolder, metric: str) -> Queries | None:
    """The labelled images."""
    return classified_images(folder, metric, "image_cross")


def evaluate(folder: DatasetFolder, run: RunFolder, settings: ZeroShotClassification) -> Result:
    """Accuracies; those of named images are called `{data}/...`. Raises DataError if embeddings are missing."""
    table = read_table(folder.annotations, CLASS_PROMPTS)
    texts = distinct_texts(folder, "class_prompts")
    prompts = unit_float32(run.embeddings("class_prompts", "text_cross", len(texts)))
    data_of, label_of, cleaned = (table[name].to_numpy(zero_copy_only=False) for name in ("data", "label", "cleaned"))
    text_of = np.searchsorted(np.array(texts, dtype=object), cleaned)
    scores = ClassificationScores()
    for name, split in test_data(folder, settings):
        mine = data_of == name
        classes, code_of = np.unique(label_of[mine].astype(str), return_inverse=True)
        if classes.tolist() != split.classes:
            raise DataError(
                f"{folder.annotations / CLASS_PROMPTS} has other classes for {name} than its images; delete the file "
                f"and run `{workflow_command('scores')}` again."
            )
        centres = np.zeros((len(classes), prompts.shape[1]))
        np.add.at(centres, code_of, prompts[text_of[mine]].astype(np.float64))
        centres /= np.bincount(code_of)[:, None]
        codes = np.searchsorted(classes, split.labels)
        pairs = np.stack([np.arange(len(codes)), codes], axis=1)
        ranks, _ = positive_ranks(split.images(run, "cross"), centres, pairs)
        scores.add(prefix_of(name), ranks, split.labels, len(classes))
    templates = "; ".join(settings.templates)
    return scores.result(PROTOCOL.format(head=run.head_used("cross"), templates=templates))
