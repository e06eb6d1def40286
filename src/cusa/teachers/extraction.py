"""Running a frozen encoder once over a split and storing what it says."""

from __future__ import annotations

import logging
import platform
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cusa import __version__
from cusa.annotations.tables import CAPTIONS, read_table, split_rows
from cusa.common.compute import Precision, autocast, choose_device
from cusa.common.progress import progress
from cusa.config.models import ImageModel, TextModel
from cusa.config.shards import Stream
from cusa.errors import ConfigurationError
from cusa.shards.reading import ShardReader, read_shards
from cusa.teachers.encoders import ImageEncoder, TextEncoder, pad_tokens, weights_sha256
from cusa.teachers.registry import load_image_encoder, load_text_encoder
from cusa.teachers.store import write_features
from cusa.teachers.transform import ImageTransform

log = logging.getLogger(__name__)


def part_of(shard_of_row: np.ndarray, part: int, parts: int) -> range:
    """The rows of one of `parts` parts, `part` counted from 0: consecutive, and as many in each as can be.

    `shard_of_row` [rows] is each row's shard, ascending. Parts end where shards end, if there are as many shards.
    """
    if not 0 <= part < parts:
        raise ConfigurationError(f"part {part} is not one of {parts}, which are counted from 0.")
    starts = np.flatnonzero(np.diff(shard_of_row, prepend=-1))
    if len(starts) < parts:
        starts = np.arange(len(shard_of_row))
    first, end = (int(np.append(starts, len(shard_of_row))[len(starts) * edge // parts]) for edge in (part, part + 1))
    return range(first, end)


def extract_image_features(
    shards: str | Path,
    settings: ImageModel,
    folder: str | Path,
    threads: int = 1,
    gpu: bool = False,
    part: int = 0,
    parts: int = 1,
    stream: Stream | None = None,
) -> None:
    """Features of the images of a split (or of one part of them, see `part_of`), in the order of its index.

    With `stream` the shards are read from there; `shards` has only their index.
    """
    torch.set_num_threads(threads)
    device = choose_device(gpu)
    encoder = load_image_encoder(settings).to(device)
    reader = ShardReader(shards)
    meta = _meta(encoder) | {"transform": asdict(encoder.transform)}
    rows = part_of(reader.shard, part, parts)
    blocks = encode_images(encoder, reader, settings.batch_size, device, threads, settings.precision, rows, stream)
    write_features(folder, len(rows), encoder.dimension, settings.dtype, blocks, meta)


def extract_text_features(
    annotations: str | Path,
    split: str,
    settings: TextModel,
    folder: str | Path,
    threads: int = 1,
    gpu: bool = False,
) -> None:
    """Features of every cleaned caption of a split, in row order; captions that occur twice are encoded once."""
    torch.set_num_threads(threads)
    captions = read_table(annotations, CAPTIONS, ["cleaned", "split"])
    rows = split_rows(captions, split)
    cleaned = captions["cleaned"].take(pa.array(rows)).to_pylist()
    device = choose_device(gpu)
    encoder = load_text_encoder(settings).to(device)
    distinct, where = np.unique(np.array(cleaned, dtype=object), return_inverse=True)
    features = encode_texts(encoder, distinct.tolist(), settings.batch_size, device)
    meta = _meta(encoder) | {"transform": "caption clean-up as published", "distinct_captions": len(distinct)}
    # Rows are gathered a block at a time: a million captions need no second full array.
    blocks = (features[where[start : start + 8192]] for start in range(0, len(where), 8192))
    write_features(folder, len(rows), encoder.dimension, settings.dtype, blocks, meta)


@torch.inference_mode()
def encode_images(
    encoder: ImageEncoder,
    reader: ShardReader,
    batch_size: int,
    device: torch.device,
    threads: int = 1,
    precision: Precision = "fp32",
    rows: range | None = None,
    stream: Stream | None = None,
) -> Iterator[np.ndarray]:
    """float32 features of `rows` (all without it) a batch at a time; the next are decoded while the model runs."""
    rows = range(len(reader)) if rows is None else rows
    for pixels in progress(
        _pixel_batches(reader, encoder.transform, batch_size, threads, rows, stream),
        len(rows),
        "images",
        f"{encoder.name} features",
        step=batch_size,
    ):
        with autocast(device, precision):
            features = encoder(pixels.to(device, non_blocking=True))
        yield features.float().cpu().numpy()


@torch.inference_mode()
def encode_texts(
    encoder: TextEncoder,
    texts: Sequence[str],
    batch_size: int,
    device: torch.device,
    max_tokens: int | None = None,
) -> np.ndarray:
    """float32 [len(texts), dimension]; batches are made of texts of like length, so little padding is computed."""
    tokens = encoder.tokenise(texts, max_tokens)
    by_length = sorted(range(len(texts)), key=lambda index: len(tokens[index]), reverse=True)
    features = np.empty((len(texts), encoder.dimension), dtype=np.float32)
    batches = [by_length[start : start + batch_size] for start in range(0, len(texts), batch_size)]
    for batch in progress(batches, len(texts), "texts", f"{encoder.name} features", step=batch_size):
        padded = pad_tokens([tokens[index] for index in batch], encoder.pad_token)
        features[batch] = encoder({key: value.to(device) for key, value in padded.items()}).float().cpu().numpy()
    return features


def _pixel_batches(
    reader: ShardReader,
    transform: ImageTransform,
    batch_size: int,
    threads: int,
    rows: range,
    stream: Stream | None,
) -> Iterator[torch.Tensor]:
    images: Iterator[tuple[bytes, bool]]
    if stream is None:
        images = ((reader.encoded(row), reader.plain(row)) for row in rows)
    else:
        shards = np.unique(reader.shard[rows.start : rows.stop]).tolist()
        read = read_shards(stream, reader, shards)
        images = ((image.encoded, reader.plain(image.position)) for image in read if image.position in rows)
    with ThreadPoolExecutor(max_workers=threads) as pool:
        waiting: deque[Future[torch.Tensor]] = deque()
        while batch := list(islice(images, batch_size)):
            waiting.append(pool.submit(transform.batch, batch))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _meta(encoder: ImageEncoder | TextEncoder) -> dict[str, Any]:
    from importlib.metadata import version

    packages = ("torch", "torchvision", "transformers", "sentence-transformers", "timm", "numpy")
    return {
        "model": encoder.name,
        "weights_sha256": weights_sha256(encoder),
        "weights_sha256_of": "file" if encoder.weights_file else "tensors",
        "versions": {"cusa": __version__, "python": platform.python_version()}
        | {package: version(package) for package in packages},
    }
