"""The embeddings of a benchmark's data by a run's student, computed once and stored for all benchmarks."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from cusa.annotations.tables import TEXT_TABLES, cleaning_of, distinct_texts
from cusa.common.compute import choose_device
from cusa.common.files import whole_folder
from cusa.config.captions import CaptionCleaning
from cusa.config.models import StudentSettings
from cusa.layout import DatasetFolder
from cusa.runs.record import drop_finished
from cusa.runs.weights import load_student
from cusa.student.encoding import Encoder
from cusa.student.inputs import FeatureInputs, TokenInputs, open_split
from cusa.student.student import Student
from cusa.teachers.extraction import encode_texts
from cusa.teachers.registry import load_text_encoder

log = logging.getLogger(__name__)


def embed(run: str | Path, folder: DatasetFolder, data: str, output: str | Path, threads: int = 1) -> None:
    """Embed one benchmark's data with the student of a run.

    Writes {image,text}_{cross,uni}.npy into the folder `output`: float32 [rows, D], in row order, not normalised.
    `data` is a split, whose images and captions (if it has any) are embedded, or one of TEXT_TABLES, whose distinct
    texts are embedded in the order of `distinct_texts`. For a split, frozen towers use their cached features. Raises
    DataError when the run, the data or the features are missing or do not fit.
    """
    torch.set_num_threads(threads)
    student, configuration = load_student(run)
    settings, device = configuration.train, choose_device(configuration.train.gpus > 0)
    encoder = Encoder(student.to(device), device, settings.eval_batch_size, settings.precision)
    if data in TEXT_TABLES:
        if data == "extended_positives":
            _tell_other_cleaning(run, configuration.captions, folder)
        texts = _open_distinct_texts(student, configuration.student, distinct_texts(folder, data), device)
        embeddings = encoder.encode_texts(texts)
    else:
        inputs = open_split(student.backbone, configuration.student, folder, data)
        if inputs.texts is not None:
            _tell_other_cleaning(run, configuration.captions, folder)
        embeddings = encoder.encode(inputs)
    with whole_folder(output) as temporary:
        for name, array in embeddings.items():
            np.save(temporary / f"{name}.npy", array)
    drop_finished(run)


def _tell_other_cleaning(run: str | Path, trained: CaptionCleaning, folder: DatasetFolder) -> None:
    """Log a warning where a run learned captions that were cleaned otherwise than those of the data."""
    if (found := cleaning_of(folder.annotations)) != trained:
        log.warning("%s learned from captions with %s; those in %s have %s.", run, trained, folder.annotations, found)


def _open_distinct_texts(
    student: Student, settings: StudentSettings, texts: list[str], device: torch.device
) -> TokenInputs | FeatureInputs:
    """Token ids for a trainable text tower. A frozen tower runs here: these texts have no cached features."""
    if student.backbone.tokenises:
        return TokenInputs(*student.backbone.tokenise(texts))
    assert settings.towers is not None
    encoder = load_text_encoder(settings.towers.text).to(device)
    return FeatureInputs(encode_texts(encoder, texts, settings.towers.text.batch_size, device))
