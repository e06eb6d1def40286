"""The embeddings of a benchmark's data by a run's student, computed once and stored for all benchmarks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from cusa.annotations.tables import TEXT_TABLES, cleaning_of, distinct_texts
from cusa.common.compute import choose_device
from cusa.common.files import atomic_folder
from cusa.common.progress import stopwatch
from cusa.config.captions import CaptionCleaning
from cusa.config.experiments import RunConfiguration
from cusa.config.models import StudentSettings
from cusa.errors import DataError
from cusa.layout import META, DatasetFolder
from cusa.runs.previous import drop_previous
from cusa.runs.record import drop_finished
from cusa.runs.weights import load_student
from cusa.student.encoding import Encoder
from cusa.student.inputs import FeatureInputs, TokenInputs, open_features, open_split
from cusa.student.student import Student
from cusa.student.tokens import Tokens
from cusa.teachers.extraction import encode_texts
from cusa.teachers.registry import load_text_encoder

log = logging.getLogger(__name__)


def embed(run: str | Path, folder: DatasetFolder, data: str, output: str | Path, threads: int = 1) -> None:
    """Embed one benchmark's data with the student of a run, into the folder `output`; see `embed_all`."""
    embed_all(run, folder, {data: output}, threads)


def embed_all(
    run: str | Path,
    folder: DatasetFolder,
    outputs: Mapping[str, str | Path],
    threads: int = 1,
    gpu: bool | None = None,
) -> None:
    """Embed the data of benchmarks with the student of a run, which is loaded once.

    `outputs` has the folder that each of the data is written to: {image,text}_{cross,uni}.npy, float32 [rows, D], in
    row order, not normalised. Data are a split, whose images and captions (if it has any) are embedded, or one of
    TEXT_TABLES, whose distinct texts are embedded in the order of `distinct_texts`. Frozen towers use their cached
    features; the texts of a table are encoded if they have none. `gpu` says whether a GPU embeds; None takes the device
    of the run's configuration. Raises DataError when the run, the data or the features are missing or do not fit, and
    if embeddings are not finite.
    """
    done = stopwatch(log)
    torch.set_num_threads(threads)
    student, configuration = load_student(run)
    settings, device = configuration.train, choose_device(configuration.train.gpus > 0 if gpu is None else gpu)
    encoder = Encoder(student.to(device), device, settings.eval_batch_size, settings.precision)
    for data, output in outputs.items():
        embeddings = _embeddings(encoder, Path(run), configuration, folder, data)
        _require_finite(embeddings, Path(run), data)
        with atomic_folder(output) as temporary:
            for name, array in embeddings.items():
                np.save(temporary / f"{name}.npy", array)
        rows = {name.partition("_")[0]: len(array) for name, array in embeddings.items()}
        done(f"{data}: " + " and ".join(f"{count:,} {kind}s" for kind, count in rows.items()))
    drop_finished(run)
    drop_previous(run)


def _embeddings(
    encoder: Encoder, run: Path, configuration: RunConfiguration, folder: DatasetFolder, data: str
) -> dict[str, np.ndarray]:
    student = encoder.student
    if data not in TEXT_TABLES:
        inputs = open_split(student.backbone, configuration.student, folder, data)
        if inputs.texts is not None:
            _warn_if_cleaned_otherwise(run, configuration.captions, folder)
        return encoder.encode(inputs)
    if data != "sentence_pairs":  # which are not cleaned
        _warn_if_cleaned_otherwise(run, configuration.captions, folder)
    distinct = distinct_texts(folder, data)
    if not distinct:
        raise DataError(f"{folder.annotations / TEXT_TABLES[data]} has no texts, so there is nothing to embed.")
    return encoder.encode_texts(
        _open_distinct_texts(student, configuration.student, folder, data, distinct, encoder.device)
    )


def _warn_if_cleaned_otherwise(run: str | Path, trained: CaptionCleaning, folder: DatasetFolder) -> None:
    """Log a warning if the captions of a run's training were cleaned in another way than those of the data."""
    if (found := cleaning_of(folder.annotations)) != trained:
        log.warning("%s learned from captions with %s; those in %s have %s.", run, trained, folder.annotations, found)


def _require_finite(embeddings: Mapping[str, np.ndarray], run: Path, data: str) -> None:
    """Raise DataError, with rows, if some of the embeddings of `data` are not finite: no metric could use them."""
    for name, array in embeddings.items():
        if not (finite := np.isfinite(array).all(axis=1)).all():
            rows = np.flatnonzero(~finite)
            shown = ", ".join(map(str, rows[:5].tolist())) + (", ..." if len(rows) > 5 else "")
            raise DataError(
                f"{run}: {name} of {len(rows):,} of the {len(array):,} rows of {data} is not finite (rows {shown}, "
                "counted from 0). If it is all of them, the model has diverged: train it again with a lower train.lr. "
                "If it is a few, set train.precision: fp32, or look at these rows' cached features."
            )


def _open_distinct_texts(
    student: Student,
    settings: StudentSettings,
    folder: DatasetFolder,
    data: str,
    texts: list[str],
    device: torch.device,
) -> TokenInputs | FeatureInputs:
    """Token ids for a trainable text tower. For a frozen one, its cached features, or else features computed here."""
    if student.backbone.tokenises:
        return TokenInputs(Tokens.of(*student.backbone.tokenise(texts)))
    assert settings.towers is not None
    tower = settings.towers.text
    cached = folder.features("text", tower.folder, data)
    if (cached / META).is_file():
        return FeatureInputs(open_features(cached, len(texts), tower))
    log.info("%s has no features, so its texts are encoded by %s here", cached, tower.name)
    encoder = load_text_encoder(tower).to(device)
    return FeatureInputs(encode_texts(encoder, texts, tower.batch_size, device, precision=tower.precision))
