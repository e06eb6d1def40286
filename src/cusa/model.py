"""A trained model in use: embeddings of pictures and texts that belong to no data set.

`cusa.load` returns a Model. For the pictures and captions of the data set, its embeddings equal those of the workflow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import get_args
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cusa.annotations.captions import clean_caption
from cusa.common.compute import Precision, autocast
from cusa.common.image_files import file_problem
from cusa.common.images import decoded_rgb, resize_shorter_side, upright_rgb
from cusa.config.dataset_section import MAX_PIXELS
from cusa.config.experiments import RunConfiguration
from cusa.config.shards import Shards
from cusa.errors import ConfigurationError, DataError
from cusa.layout import DatasetFolder
from cusa.metrics.scores import unit_float32
from cusa.runs.weights import load_student
from cusa.shards.reading import settings_of
from cusa.shards.writing import encode_image
from cusa.student.encoding import Encoder
from cusa.student.inputs import FeatureInputs, TokenInputs
from cusa.student.student import HeadName, Student
from cusa.teachers.encoders import ImageEncoder, TextEncoder
from cusa.teachers.extraction import encode_texts
from cusa.teachers.registry import load_image_encoder, load_text_encoder

Picture = str | Path | bytes | Image.Image | np.ndarray
EXAMPLES = 5


class Model:
    """The student of a run with everything that it needs for new pictures and texts, frozen towers included."""

    def __init__(
        self,
        student: Student,
        configuration: RunConfiguration,
        shards: Shards,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.configuration, self.shards, self.device, self.precision = configuration, shards, device, precision
        self.encoder = Encoder(student.to(device), device, configuration.train.eval_batch_size, precision)
        self.image_encoder: ImageEncoder | None = None
        self.text_encoder: TextEncoder | None = None
        if (towers := configuration.student.towers) is not None:
            self.image_encoder = None if towers.image.trainable else load_image_encoder(towers.image).to(device)
            self.text_encoder = None if towers.text.trainable else load_text_encoder(towers.text).to(device)
        transform = student.backbone.image_transform if self.image_encoder is None else self.image_encoder.transform
        assert transform is not None
        self.transform = transform

    def encode_image(self, items: Picture | Sequence[Picture], head: HeadName = "cross") -> np.ndarray:
        """Embeddings of pictures, float32 [n, D], normalised, in the order of `items`.

        An item is a path, a file:// URL, the bytes of a picture file, a PIL image, or a uint8 array [H, W], [H, W, 3]
        or [H, W, 4]. One item gives [1, D]. `head` is `cross` for retrieval across modalities, `uni` for image-image
        retrieval. Raises DataError that names the items which cannot be read.
        """
        pictures: list[Picture] = [items] if isinstance(items, Picture) else list(items)
        if not pictures:
            return np.empty((0, self.dimension), dtype=np.float32)
        (embeddings,) = self.encoder.encode_images(_PictureInputs(self, pictures), [_checked(head)]).values()
        return unit_float32(embeddings)

    def encode_text(self, texts: str | Sequence[str], head: HeadName = "cross") -> np.ndarray:
        """Embeddings of texts, float32 [n, D], normalised, in the order of `texts`. One text gives [1, D].

        Texts are cleaned as the captions of the training data were. `head` is `cross` for retrieval across modalities,
        `uni` for text-text retrieval. Raises DataError that names the texts which have no word.
        """
        originals = [texts] if isinstance(texts, str) else list(texts)
        if not originals:
            return np.empty((0, self.dimension), dtype=np.float32)
        if wrong := [f"{place}: {text!r:.80}" for place, text in enumerate(originals) if not isinstance(text, str)]:
            raise DataError(f"{len(wrong)} of {len(originals):,} items are no text: {_examples(wrong)}.")
        cleaned = [clean_caption(text, self.configuration.captions) for text in originals]
        if empty := [f"{place}: {originals[place]!r:.80}" for place, text in enumerate(cleaned) if not text]:
            raise DataError(f"{len(empty)} of {len(cleaned):,} texts have no word after clean-up: {_examples(empty)}.")
        (embeddings,) = self.encoder.encode_texts(self._text_inputs(cleaned), [_checked(head)]).values()
        return unit_float32(embeddings)

    def similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The cosine of each row of `first` [n, D] with each row of `second` [m, D], float32 [n, m]."""
        return np.asarray(unit_float32(np.atleast_2d(first)) @ unit_float32(np.atleast_2d(second)).T)

    def pixels(self, picture: Image.Image) -> Tensor:
        """An upright 8-bit RGB image as the student sees it: uint8 [3, H, W].

        It is shrunk and encoded as the shards store images, so that it looks as the training images did.
        """
        if self.shards.shorter_side is None:
            return self.transform.pixels_of(picture)
        content, _, plain = encode_image(resize_shorter_side(picture, self.shards.shorter_side), self.shards)
        return self.transform.pixels(content, plain)

    @property
    def dimension(self) -> int:
        """The length D of the embeddings."""
        return self.encoder.student.backbone.dimension

    def _text_inputs(self, cleaned: list[str]) -> TokenInputs | FeatureInputs:
        if self.text_encoder is None:
            return TokenInputs(*self.encoder.student.backbone.tokenise(cleaned))
        batch_size = self.configuration.train.eval_batch_size
        return FeatureInputs(encode_texts(self.text_encoder, cleaned, batch_size, self.device))


class _PictureInputs:
    """Pictures as `Encoder.encode_images` reads them: pixels, or the features of a frozen tower, by position."""

    def __init__(self, model: Model, pictures: list[Picture]) -> None:
        self.model, self.pictures = model, pictures
        self.pool = ThreadPoolExecutor(max_workers=os.cpu_count())

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, positions: np.ndarray) -> Tensor:
        model = self.model
        found = list(self.pool.map(self._pixels, positions.tolist()))
        if problems := [problem for problem in found if isinstance(problem, str)]:
            raise DataError(f"{len(problems)} of {len(self):,} pictures cannot be read: {_examples(problems)}.")
        size = (len(found), 3, model.transform.crop, model.transform.crop)
        pixels = torch.empty(size, dtype=torch.uint8, memory_format=torch.channels_last)
        for place, picture in enumerate(found):
            pixels[place] = torch.as_tensor(picture)
        if model.image_encoder is None:
            return pixels
        with autocast(model.device, model.precision):
            features: Tensor = model.image_encoder(pixels.to(model.device))
        return features.float()

    def _pixels(self, position: int) -> Tensor | str:
        """A picture as the student sees it, uint8 [3, H, W], or what is wrong with it."""
        try:
            with _opened(self.pictures[position]) as picture:
                return self.model.pixels(picture)
        except DataError as error:
            return f"item {position}: {error}".rstrip(".")


@contextmanager
def _opened(item: Picture) -> Iterator[Image.Image]:
    """A picture as upright 8-bit RGB. Raises DataError where it cannot be read, or is something else."""
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim not in (2, 3) or (item.ndim == 3 and item.shape[2] not in (3, 4)):
            raise DataError(
                f"an array of shape {list(item.shape)} and type {item.dtype}; expected uint8 [H, W], [H, W, 3] or "
                "[H, W, 4]"
            )
        item = Image.fromarray(item)
    if isinstance(item, Image.Image):
        yield upright_rgb(item)
        return
    source = item if isinstance(item, bytes) else _path(item)
    if isinstance(source, Path) and (found := file_problem(source)) is not None:
        raise DataError(f"{source}: {found[0]}")
    with decoded_rgb(source, MAX_PIXELS) as picture:
        yield picture


def _path(item: str | Path) -> Path:
    if isinstance(item, Path):
        return item
    if not isinstance(item, str):
        raise DataError(f"a {type(item).__name__}; expected a path, bytes, a PIL image or a numpy array")
    address = urlsplit(item) if "://" in item[:16] else None
    if address is None:
        return Path(item).expanduser()
    if address.scheme != "file":
        raise DataError(f"{item:.80} is no local file; download the picture and give its path")
    return Path(unquote(address.path))


def load(folder: str | Path, device: str | torch.device | None = None, precision: Precision | None = None) -> Model:
    """The model of a run folder, results/{dataset}/runs/{experiment}/seed{n}, ready to embed new pictures and texts.

    `device` is `cpu` or `cuda`; None takes a GPU if PyTorch sees one. `precision` is that of the towers; None takes
    that of the run. Raises DataError when the run is missing or damaged, ConfigurationError when one of its
    pre-trained parts cannot be loaded.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(f"device is {device}, but PyTorch sees no GPU; use device='cpu'.")
    student, configuration = load_student(folder)
    shards = settings_of(DatasetFolder.of_run(folder).shards("train"))
    return Model(student, configuration, shards, chosen, precision or configuration.train.precision)


def _checked(head: str) -> HeadName:
    if head not in get_args(HeadName):
        raise ConfigurationError(f"head is {head!r}; expected 'cross' or 'uni'.")
    return head  # type: ignore[return-value]


def _examples(problems: list[str]) -> str:
    more = f" and {len(problems) - EXAMPLES} more" if len(problems) > EXAMPLES else ""
    return "; ".join(problems[:EXAMPLES]) + more
