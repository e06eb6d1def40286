"""Running a student over data once and caching what it says, for validation and for every benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cusa.annotations.tables import TEXT_TABLES, distinct_texts
from cusa.common.compute import choose_device
from cusa.common.files import whole_folder
from cusa.config.models import StudentSettings
from cusa.layout import DatasetFolder
from cusa.runs.record import drop_finished
from cusa.runs.weights import load_student
from cusa.student.encoding import Encoder
from cusa.student.inputs import FeatureInputs, TokenInputs, open_split
from cusa.student.student import Student
from cusa.teachers.extraction import encode_texts
from cusa.teachers.registry import load_text_encoder


def embed(run: str | Path, folder: DatasetFolder, data: str, output: str | Path, threads: int = 1) -> None:
    """Embed one benchmark's data with a trained run and write {image,text}_{cross,uni}.npy, float32, in row order.

    `data` is a split (images, and captions where it has any) or one of TEXT_TABLES, whose distinct texts (see
    `distinct_texts`) are embedded. Frozen towers use their cached features where the data is a split.
    """
    torch.set_num_threads(threads)
    student, configuration = load_student(run)
    settings, device = configuration.train, choose_device(configuration.train.gpus > 0)
    encoder = Encoder(student.to(device), device, settings.eval_batch_size, settings.precision)
    if data in TEXT_TABLES:
        texts = _open_distinct_texts(student, configuration.student, distinct_texts(folder, data), device)
        embeddings = encoder.encode_texts(texts)
    else:
        embeddings = encoder.encode(open_split(student.backbone, configuration.student, folder, data))
    with whole_folder(output) as temporary:
        for name, array in embeddings.items():
            np.save(temporary / f"{name}.npy", array)
    drop_finished(run)


def _open_distinct_texts(
    student: Student, settings: StudentSettings, texts: list[str], device: torch.device
) -> TokenInputs | FeatureInputs:
    """Tokens for a trainable text tower; a frozen one runs here, because these texts are in no feature store."""
    if student.backbone.tokenises:
        return TokenInputs(*student.backbone.tokenise(texts))
    assert settings.towers is not None
    encoder = load_text_encoder(settings.towers.text).to(device)
    return FeatureInputs(encode_texts(encoder, texts, settings.towers.text.batch_size, device))
