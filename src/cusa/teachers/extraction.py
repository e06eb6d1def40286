"""Runs a frozen encoder once over a split and stores the features."""

from __future__ import annotations

import logging
import platform
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cusa import __version__
from cusa.annotations.caption_variants import caption_variants
from cusa.annotations.captions import sampled_positions
from cusa.annotations.tables import CAPTIONS, TEXT_TABLES, cleaning_of, distinct_texts, read_table, split_rows
from cusa.common.compute import Precision, autocast, choose_device
from cusa.common.draws import hashed, uniform
from cusa.common.progress import progress
from cusa.common.registry import loaded_versions
from cusa.common.transfer import on_host, pinned
from cusa.config.captions import CaptionCleaning
from cusa.config.models import ImageModel, TextModel
from cusa.config.shards import Stream
from cusa.config.views import ImageViews, TextViews
from cusa.errors import ConfigurationError, DataError
from cusa.layout import DatasetFolder
from cusa.shards.reading import ShardReader, read_shards
from cusa.shards.verifying import require_intact
from cusa.teachers.augmentation import DRAWS, AugmentedTransform
from cusa.teachers.encoders import ImageEncoder, TextEncoder, pad_tokens, weights_sha256
from cusa.teachers.registry import load_image_encoder, load_text_encoder
from cusa.teachers.store import FILE, SHA256_OF, TENSORS, write_features
from cusa.teachers.token_use import MULTILINGUAL, token_use
from cusa.teachers.transform import ImageTransform

log = logging.getLogger(__name__)
StoredImage = tuple[int, bytes, bool]  # position in the split, bytes of the file, and whether it is plain
IMAGE_VIEWS, CAPTION_VIEWS = 1, 2  # the purpose of random numbers: the first key of the function that draws them


def part_of(shard_of_row: np.ndarray, part: int, parts: int) -> range:
    """The rows of one of `parts` parts, `part` counted from 0: consecutive, in parts of nearly equal length.

    `shard_of_row` [rows] is each row's shard, ascending. Parts end at the ends of shards if there are enough shards.
    Raises ConfigurationError if there is no such part.
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
    verify: bool = False,
) -> None:
    """Write the features of a split's images, or of one part of them (see `part_of`), in the order of the index.

    With ImageViews as `settings`, those of the views of each image: view v of image i has the row i * views + v.
    `shards` is the split's folder; with `stream` only the index is read from it. `verify` compares its tar files with
    the sha256 that was written for each. Raises ConfigurationError if the encoder cannot be loaded, and DataError
    if shards or disk space are missing.
    """
    if verify and stream is None:
        require_intact(shards)
    torch.set_num_threads(threads)
    device = choose_device(gpu)
    encoder = load_image_encoder(settings).to(device)
    reader = ShardReader(shards)
    meta = _meta(encoder) | {"transform": asdict(encoder.transform)}
    encoder.fuse()
    rows = part_of(reader.shard, part, parts)
    views = settings if isinstance(settings, ImageViews) else None
    batch_size, precision = settings.batch_size, settings.precision
    blocks = encode_images(encoder, reader, batch_size, device, threads, precision, rows, stream, views)
    count = len(rows) * (views.views if views else 1)
    write_features(folder, count, encoder.dimension, settings.dtype, blocks, meta)


def extract_text_features(
    annotations: str | Path,
    split: str,
    settings: TextModel,
    folder: str | Path,
    threads: int = 1,
    gpu: bool = False,
) -> None:
    """Write the features of a split's cleaned captions, in row order; equal captions are encoded once.

    With TextViews as `settings`, those of the variants of each caption: variant v of caption i has the row
    i * views + v. Raises as `extract_image_features` does.
    """
    torch.set_num_threads(threads)
    captions = read_table(annotations, CAPTIONS, ["caption", "cleaned", "split"])
    rows = split_rows(captions, split)
    cleaned = captions["cleaned"].take(pa.array(rows)).to_pylist()
    if isinstance(settings, TextViews):
        texts = captions["caption"].take(pa.array(rows)).to_pylist()
        cleaned = _variants(texts, cleaned, cleaning_of(annotations), settings)
    device = choose_device(gpu)
    encoder = load_text_encoder(settings).to(device)
    distinct, positions = np.unique(np.array(cleaned, dtype=object), return_inverse=True)
    features = encode_texts(encoder, distinct.tolist(), settings.batch_size, device, precision=settings.precision)
    meta = _meta_of_texts(encoder) | {"transform": str(cleaning_of(annotations)), "distinct_captions": len(distinct)}
    if warnings := log_token_use(encoder, captions, rows):
        meta["warnings"] = warnings
    # Rows are gathered in blocks, so that a million captions need no second array.
    blocks = (features[positions[start : start + 8192]] for start in range(0, len(positions), 8192))
    write_features(folder, len(cleaned), encoder.dimension, settings.dtype, blocks, meta)


def extract_table_features(
    annotations: str | Path,
    table: str,
    settings: TextModel,
    folder: str | Path,
    threads: int = 1,
    gpu: bool = False,
) -> None:
    """Write the features of the distinct texts of one of TEXT_TABLES, in the order of `distinct_texts`.

    All runs with this frozen tower read them. Raises as `extract_image_features` does.
    """
    torch.set_num_threads(threads)
    texts = distinct_texts(DatasetFolder(Path(annotations).parent), table)
    if not texts:
        raise DataError(f"{Path(annotations) / TEXT_TABLES[table]} has no texts, so there is nothing to embed.")
    device = choose_device(gpu)
    encoder = load_text_encoder(settings).to(device)
    features = encode_texts(encoder, texts, settings.batch_size, device, precision=settings.precision)
    meta = _meta_of_texts(encoder) | {"transform": "the texts of the table, each once, sorted"}
    write_features(folder, len(texts), encoder.dimension, settings.dtype, [features], meta)


def _variants(texts: list[str], cleaned: list[str], cleaning: CaptionCleaning, settings: TextViews) -> list[str]:
    """The variants of some captions, those of a caption one after the other."""
    variants = []
    for number, (text, clean) in enumerate(zip(texts, cleaned, strict=True)):
        seeds = hashed(CAPTION_VIEWS, number, np.arange(settings.views))
        same = [text] * settings.views, [clean] * settings.views
        variants += caption_variants(*same, cleaning, settings.augmentation, seeds)
    return variants


def log_token_use(encoder: TextEncoder, captions: pa.Table, rows: np.ndarray) -> list[str]:
    """Log the token use of an encoder on some rows of captions.parquet, and return the warnings."""
    if not len(rows):
        return []
    sample = captions.take(pa.array(rows[sampled_positions(len(rows))]))
    pairs = list(zip(sample["caption"].to_pylist(), sample["cleaned"].to_pylist(), strict=True))
    use = token_use(pairs, len(rows), encoder.tokenise, encoder.vocabulary())
    log.info("%s: %s", encoder.name, use.sentence())
    for warning in (warnings := list(use.warnings(MULTILINGUAL).values())):
        log.warning("%s: %s", encoder.name, warning)
    return warnings


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
    views: ImageViews | None = None,
) -> Iterator[np.ndarray]:
    """Features of `rows`, all if it is None: float32 [batch, dimension], a batch at a time.

    With `views`, the features of changed pictures, those of a picture one after the other. The next batches are decoded
    while the model runs, and a GPU computes the next ones while the features of a batch are copied and written.
    """
    rows = range(len(reader)) if rows is None else rows
    images = batch_size if views is None else max(1, batch_size // views.views)
    read = partial(_pixels, encoder.transform, views)
    batches = progress(
        _pixel_batches(reader, lambda stored: pinned(read(stored), device), images, threads, rows, stream),
        len(rows),
        "images",
        f"{encoder.name} features",
        step=images,
    )

    def features() -> Iterator[list[torch.Tensor]]:
        for pixels in batches:
            with autocast(device, precision):
                found = encoder(pixels.to(device, non_blocking=True))
            yield [found.float()]

    for (batch,) in on_host(features()):
        yield batch.numpy()


@torch.inference_mode()
def encode_texts(
    encoder: TextEncoder,
    texts: Sequence[str],
    batch_size: int,
    device: torch.device,
    max_tokens: int | None = None,
    precision: Precision = "fp32",
) -> np.ndarray:
    """Features of texts, float32 [texts, dimension]. Texts of similar length share a batch, which saves padding.

    A GPU computes the next batches while the features of a batch are copied.
    """
    tokens = encoder.tokenise(texts, max_tokens)
    by_length = sorted(range(len(texts)), key=lambda index: len(tokens[index]), reverse=True)
    features = np.empty((len(texts), encoder.dimension), dtype=np.float32)
    batches = [by_length[start : start + batch_size] for start in range(0, len(texts), batch_size)]

    def found() -> Iterator[list[torch.Tensor]]:
        for batch in progress(batches, len(texts), "texts", f"{encoder.name} features", step=batch_size):
            padded = pad_tokens([tokens[index] for index in batch], encoder.pad_token)
            inputs = {key: pinned(value, device).to(device, non_blocking=True) for key, value in padded.items()}
            with autocast(device, precision):
                encoded = encoder(inputs)
            yield [encoded.float()]

    for batch, (encoded,) in zip(batches, on_host(found()), strict=True):
        features[batch] = encoded.numpy()
    return features


def _pixels(transform: ImageTransform, views: ImageViews | None, images: list[StoredImage]) -> torch.Tensor:
    """The pixels of some images, or of their views, uint8 [B, 3, crop, crop]."""
    encoded = [(image, plain) for _, image, plain in images]
    if views is None:
        return transform.batch(encoded)
    rows = np.repeat([row for row, _, _ in images], views.views)
    image_of_view = np.repeat(np.arange(len(images)), views.views)
    draws = uniform(hashed(IMAGE_VIEWS, rows, np.tile(np.arange(views.views), len(images))), DRAWS)
    return AugmentedTransform(transform, views.augmentation).batch(encoded, image_of_view, draws)


def _pixel_batches(
    reader: ShardReader,
    read: Callable[[list[StoredImage]], torch.Tensor],
    batch_size: int,
    threads: int,
    rows: range,
    stream: Stream | None,
) -> Iterator[torch.Tensor]:
    """The pixels that `read` gives for `batch_size` images at a time."""
    images: Iterator[StoredImage]
    if stream is None:
        images = ((row, reader.encoded(row), reader.plain(row)) for row in rows)
    else:
        shards = np.unique(reader.shard[rows.start : rows.stop]).tolist()
        stored = ((image.position, image.encoded) for image in read_shards(stream, reader, shards))
        images = ((row, encoded, reader.plain(row)) for row, encoded in stored if row in rows)
    with ThreadPoolExecutor(max_workers=threads) as pool:
        waiting: deque[Future[torch.Tensor]] = deque()
        while batch := list(islice(images, batch_size)):
            waiting.append(pool.submit(read, batch))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _meta_of_texts(encoder: TextEncoder) -> dict[str, Any]:
    return _meta(encoder) | ({"prompt": encoder.prompt} if encoder.prompt else {})


def _meta(encoder: ImageEncoder | TextEncoder) -> dict[str, Any]:
    from importlib.metadata import version

    packages = ("torch", "torchvision", "transformers", "sentence-transformers", "timm", "numpy")
    return {
        "model": encoder.name,
        "weights_sha256": weights_sha256(encoder),
        SHA256_OF: FILE if encoder.weights_file else TENSORS,
        "versions": {"cusa": __version__, "python": platform.python_version()}
        | {package: version(package) for package in packages}
        | loaded_versions(),
    }
