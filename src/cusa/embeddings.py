"""Running a student over data once and caching what it says, for validation and for every benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cusa import config
from cusa.annotations import EXTENDED_POSITIVES, SENTENCE_PAIRS, read_table
from cusa.batches import FeatureInputs, PixelInputs, SplitInputs, TokenInputs, open_split, to_device
from cusa.files import whole_folder
from cusa.layout import DatasetFolder
from cusa.progress import progress
from cusa.runs import drop_finished, load_student
from cusa.student import HeadName, Student
from cusa.teachers import load_text_encoder
from cusa.teachers.extraction import Precision, autocast, choose_device, encode_texts

HEADS: tuple[HeadName, ...] = ("cross", "uni")
TEXT_TABLES = {"extended_positives": EXTENDED_POSITIVES, "sentence_pairs": SENTENCE_PAIRS}


def embed(run: str | Path, folder: DatasetFolder, data: str, output: str | Path, threads: int = 1) -> None:
    """Embed one benchmark's data with a trained run and write {image,text}_{cross,uni}.npy, float32, in row order.

    `data` is a split (images, and captions where it has any) or one of TEXT_TABLES, whose distinct texts (see
    `distinct_texts`) are embedded. Frozen towers use their cached features where the data is a split.
    """
    torch.set_num_threads(threads)
    student, run_configuration = load_student(run)
    device = choose_device(run_configuration.train.gpus > 0)
    student.to(device)
    batch_size, precision = run_configuration.train.eval_batch_size, run_configuration.train.precision
    if data in TEXT_TABLES:
        texts = _frozen_or_token_inputs(student, run_configuration.student, distinct_texts(folder, data), device)
        embeddings = {f"text_{head}": part for head, part in _texts(student, texts, batch_size, device, precision)}
    else:
        inputs = open_split(student.backbone, run_configuration.student, folder, data)
        embeddings = encode_split(student, inputs, HEADS, batch_size, device, precision)
    with whole_folder(output) as temporary:
        for name, array in embeddings.items():
            np.save(temporary / f"{name}.npy", array)
    drop_finished(run)


def distinct_texts(folder: DatasetFolder, data: str) -> list[str]:
    """The texts of extended_positives (cleaned) or sentence_pairs (as they are), each once, sorted."""
    table = read_table(folder.annotations, TEXT_TABLES[data])
    columns = ["cleaned"] if data == "extended_positives" else ["first", "second"]
    return sorted({text for column in columns for text in table[column].to_pylist()})


def encode_split(
    student: Student,
    inputs: SplitInputs,
    heads: Sequence[HeadName],
    batch_size: int,
    device: torch.device,
    precision: Precision = "fp32",
) -> dict[str, np.ndarray]:
    """`image_{head}` and, where the split has captions, `text_{head}`: float32 [rows, D], not normalised."""
    embeddings = {
        f"image_{head}": part
        for head, part in _images(student, inputs.images, heads, batch_size, device, precision).items()
    }
    if inputs.texts is not None:
        parts = _texts(student, inputs.texts, batch_size, device, precision, heads)
        embeddings |= {f"text_{head}": part for head, part in parts}
    return embeddings


@torch.inference_mode()
def _images(
    student: Student,
    images: PixelInputs | FeatureInputs,
    heads: Sequence[HeadName],
    batch_size: int,
    device: torch.device,
    precision: Precision,
) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {head: [] for head in heads}
    for positions in _batches(len(images), batch_size, "images"):
        with autocast(device, precision):
            features = student.backbone.image_features(images[positions].to(device))
            for head in heads:
                parts[head].append(_to_numpy(student.head(features, head, "image")))
    return {head: np.concatenate(part) for head, part in parts.items()}


@torch.inference_mode()
def _texts(
    student: Student,
    texts: TokenInputs | FeatureInputs,
    batch_size: int,
    device: torch.device,
    precision: Precision,
    heads: Sequence[HeadName] = HEADS,
) -> list[tuple[str, np.ndarray]]:
    parts: dict[str, list[np.ndarray]] = {head: [] for head in heads}
    # Texts of one length share a batch, so that hardly anything is padding.
    order = np.argsort(texts.lengths, kind="stable") if isinstance(texts, TokenInputs) else np.arange(len(texts))
    for positions in _batches(len(texts), batch_size, "texts"):
        with autocast(device, precision):
            features = student.backbone.text_features(to_device(texts[order[positions]], device))
            for head in heads:
                parts[head].append(_to_numpy(student.head(features, head, "text")))
    back = np.argsort(order, kind="stable")
    return [(head, np.concatenate(part)[back]) for head, part in parts.items()]


class _ArrayInputs(FeatureInputs):
    """Features that are in memory already."""

    def __init__(self, features: np.ndarray) -> None:
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, positions: np.ndarray) -> Tensor:
        return torch.from_numpy(self.features[positions])


def _frozen_or_token_inputs(
    student: Student, settings: config.Student, texts: list[str], device: torch.device
) -> TokenInputs | FeatureInputs:
    """Tokens for a trainable text tower; a frozen one runs here, because these texts are in no feature store."""
    if student.backbone.tokenises:
        return TokenInputs(*student.backbone.tokenise(texts))
    assert settings.towers is not None
    encoder = load_text_encoder(settings.towers.text).to(device)
    return _ArrayInputs(encode_texts(encoder, texts, settings.towers.text.batch_size, device))


def _batches(rows: int, batch_size: int, unit: str) -> Iterator[np.ndarray]:
    batches = (np.arange(start, min(start + batch_size, rows)) for start in range(0, rows, batch_size))
    return progress(batches, rows, unit, "embedding", batch_size)


def _to_numpy(embeddings: Tensor) -> np.ndarray:
    return embeddings.float().cpu().numpy()
