"""Holds an exported folder to the run: loads it as users do, and compares its embeddings with ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cusa.annotations.captions import clean_caption
from cusa.annotations.tables import CAPTIONS, IMAGES, read_table
from cusa.common.images import decoded_rgb, resize_shorter_side
from cusa.config.losses import HeadName
from cusa.errors import ConfigurationError, DataError
from cusa.layout import DatasetFolder
from cusa.metrics.scores import unit_float32
from cusa.model.run_model import Model
from cusa.shards.writing import encode_image

TOLERANCE = 1e-5  # of the numbers of normalised embeddings
SAME_PIXELS = 1e-3  # normalised pixels that differ less were prepared in the same way; a level is 0.01 or more
PICTURES, TEXTS = 32, 256
SPLITS = ("test", "val", "train")
ODD_TEXTS = (
    "  A Man's BEST-friend,\t\n sits/stands!!  ",
    "<PERSON> and <person>",
    "\u039f\u0394\u039f\u03a3 \u03a3\u0391\u03a3.",
    "\u0130stanbul, Stra\u00dfe, \u00c9COLE, e\u0301cole",
    "a\x1cb\x85c\xa0d\u3000e\u2028f",
    "\u706b\u8eca \U0001f469\u200d\U0001f9bd Woman",
    "a [SEP] b </s> c <|endoftext|> d",
    "caf\u00c3\u00a9 &amp; bar",
    " ".join(f"Word{number}" for number in range(100)),
)


def measure(model: Model, folder: Path, head: HeadName) -> list[str]:
    """Compare the folder's embeddings with those of `model` for pictures and captions of the run's data set.

    Returns what was found, a line each. If the data set is not at hand, pictures are drawn. Raises
    ConfigurationError if the folder does not give the run's embeddings.
    """
    from sentence_transformers import SentenceTransformer

    exported = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    originals, captions = _pictures(model), _captions(model)
    stored = [as_stored(model, picture) for picture in originals or _drawn(model)]
    lines = [_compare_stored(model, exported, stored, head)]
    if originals:
        lines.append(_compare_originals(model, exported, originals, head))
    return [*lines, *_compare_texts(model, exported, captions, head)]


def _compare_stored(model: Model, exported: Any, stored: Sequence[Image.Image], head: HeadName) -> str:
    """The result of a comparison on pictures of the size and encoding of the shards."""
    pixels = torch.stack([model.transform.pixels_of(picture) for picture in stored])
    with torch.inference_mode():
        images = pixels if model.image_encoder is None else model.image_encoder(pixels)
        ours = unit_float32(model.encoder.student.encode_image(images, head).float().numpy())
    normalised = model.transform.normalise(pixels)
    with torch.inference_mode():
        on_equal_pixels = exported({"pixel_values": normalised, "modality": "image"})["sentence_embedding"].numpy()
    theirs = exported.encode(list(stored), show_progress_bar=False)
    read = exported.preprocess(list(stored))["pixel_values"]
    shift = (read - normalised).abs().amax(dim=(1, 2, 3)).numpy() > SAME_PIXELS
    wrong = max(np.abs(ours - on_equal_pixels).max(), np.abs(ours - theirs)[~shift].max(initial=0))
    if wrong > TOLERANCE:
        raise ConfigurationError(
            f"the exported image tower gives other embeddings than the run (a difference of {wrong:.1e}, allowed are "
            f"{TOLERANCE:.0e}), so plain sentence-transformers cannot hold it; export with --to onnx instead."
        )
    line = (
        f"{len(stored) - int(shift.sum())} pictures as the shards store them: embeddings equal the run's, the largest "
        f"difference on equal pixels is {wrong:.1e}."
    )
    if shift.any():
        cosines = np.sum(ours * theirs, axis=1)[shift]
        line += (
            f" {int(shift.sum())} more are cropped or resized one pixel apart, because the library rounds otherwise: "
            f"their cosine with the run's embedding is {cosines.mean():.4f} on average, at least {cosines.min():.4f}."
        )
    return line


def _compare_originals(model: Model, exported: Any, originals: Sequence[Image.Image], head: HeadName) -> str:
    """The difference by shrinking and encoding pictures again, which plain sentence-transformers does not do."""
    ours = model.encode_image(list(originals), head)
    cosines = np.sum(ours * exported.encode(list(originals), show_progress_bar=False), axis=1)
    shards = model.shards
    how = "as they are"
    if shards.shorter_side is not None:
        quality = "" if shards.image_format == "png" else f" with quality {shards.quality}"
        how = f"without being shrunk to a shorter side of {shards.shorter_side} and encoded as {shards.image_format}"
        how += f"{quality} first, as cusa does"
    return (
        f"{len(originals)} pictures {how}: the cosine with the run's embedding is {cosines.mean():.4f} on average, at "
        f"least {cosines.min():.4f}."
    )


def _compare_texts(model: Model, exported: Any, captions: Sequence[str], head: HeadName) -> list[str]:
    """The result of a comparison on captions that are not cleaned."""
    lines = []
    for texts, name in ((captions, "captions of the data set"), (ODD_TEXTS, "odd captions")):
        if not texts:
            continue
        ours = model.encode_text(list(texts), head)
        theirs = exported.encode([{"text": text} for text in texts], show_progress_bar=False)
        apart = np.abs(ours - theirs).max(axis=1)
        other = [text for text, difference in zip(texts, apart, strict=True) if difference > TOLERANCE]
        if texts is captions and 2 * len(other) > len(texts):
            raise ConfigurationError(
                f"the exported text tower gives other embeddings than the run for {len(other)} of {len(texts)} "
                f"captions, for instance {other[0]!r:.60}, so plain sentence-transformers cannot hold it; export with "
                "--to onnx instead."
            )
        equal = apart[apart <= TOLERANCE].max(initial=0)
        line = (
            f"{len(texts) - len(other)} of {len(texts)} {name}, not cleaned: embeddings equal the run's, the largest "
        )
        line += f"difference is {equal:.1e}."
        if other:
            line += f" Others: {'; '.join(f'{text!r:.60}' for text in other[:5])}."
        lines.append(line)
    return lines


def as_stored(model: Model, picture: Image.Image) -> Image.Image:
    """A picture after it was shrunk, encoded and decoded as in the shards."""
    if model.shards.shorter_side is None:
        return picture
    content, _, _ = encode_image(resize_shorter_side(picture, model.shards.shorter_side), model.shards)
    with decoded_rgb(content) as decoded:
        return decoded.copy()


def _pictures(model: Model) -> list[Image.Image]:
    """At most PICTURES pictures of the data set that are still where they were, evenly spread."""
    found = []
    for path in _column(model, IMAGES, "image_path", PICTURES):
        try:
            with decoded_rgb(path) as picture:
                found.append(picture.copy())
        except DataError:  # it is measured on those that can be read
            continue
    return found


def _captions(model: Model) -> list[str]:
    cleaning = model.configuration.captions
    return [text for text in _column(model, CAPTIONS, "caption", TEXTS) if clean_caption(text, cleaning)]


def _column(model: Model, table: str, column: str, count: int) -> list[Any]:
    """At most `count` values of a column, evenly spread over a split that training did not see, if there is one."""
    annotations = DatasetFolder.of_run(model.folder).annotations
    try:
        rows = read_table(annotations, table, [column, "split"])
    except DataError:
        return []
    values, splits = rows[column].to_pylist(), rows["split"].to_pylist()
    for split in SPLITS:
        if members := [value for value, found in zip(values, splits, strict=True) if found == split]:
            return members[:: max(1, len(members) // count)][:count]
    return []


def _drawn(model: Model) -> list[Image.Image]:
    """Pictures of smooth colours, for a run whose data set is not at hand."""
    side, generator = model.shards.shorter_side or model.transform.resize, np.random.default_rng(0)
    small = [Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)) for _ in range(8)]
    return [picture.resize((side * 4 // 3 // 4 * 4, side), Image.Resampling.BICUBIC) for picture in small]
