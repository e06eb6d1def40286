"""The model of a run folder, by torch. For the data set's items its embeddings equal those of the workflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cusa.common.compute import Precision, autocast
from cusa.common.images import resize_shorter_side
from cusa.config.dataset_section import MAX_PIXELS
from cusa.config.experiments import RunConfiguration
from cusa.config.losses import HeadName
from cusa.config.models import StudentSettings
from cusa.config.shards import Shards
from cusa.errors import ConfigurationError, DataError
from cusa.layout import DatasetFolder
from cusa.metrics.scores import unit_float32
from cusa.model.interface import (
    HEADS,
    Picture,
    checked_head,
    cleaned_texts,
    cosines,
    listed_pictures,
    opened,
    unreadable,
)
from cusa.model.prefetch import available_cores, prefetched
from cusa.runs.record import RunRecord
from cusa.runs.weights import load_student
from cusa.shards.reading import settings_of
from cusa.shards.writing import encode_image
from cusa.student.encoding import Encoder
from cusa.student.inputs import FeatureInputs, TokenInputs
from cusa.student.student import Student
from cusa.student.tokens import Tokens
from cusa.teachers.encoders import ImageEncoder, TextEncoder
from cusa.teachers.extraction import encode_texts
from cusa.teachers.registry import load_image_encoder, load_text_encoder

MOST_BATCHES_AT_ONCE = 4


@dataclass(frozen=True)
class FrozenTowers:
    """The encoders of a student's frozen towers; None if a tower is trainable, and so is part of the student."""

    image: ImageEncoder | None = None
    text: TextEncoder | None = None

    @classmethod
    def load(cls, settings: StudentSettings) -> FrozenTowers:
        """The frozen towers of a student. Raises ConfigurationError when one of them cannot be loaded."""
        if (towers := settings.towers) is None:
            return cls()
        return cls(
            None if towers.image.trainable else load_image_encoder(towers.image),
            None if towers.text.trainable else load_text_encoder(towers.text),
        )


class Model:
    """The student of a run with everything that it needs for new pictures and texts, frozen towers included.

    `shards` says how the training images were stored, `folder` what the model was loaded from. It is a RetrievalModel.
    """

    def __init__(
        self,
        student: Student,
        frozen: FrozenTowers,
        configuration: RunConfiguration,
        shards: Shards,
        folder: Path,
        weights_sha256: str,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.configuration, self.shards, self.device, self.precision = configuration, shards, device, precision
        self.heads: tuple[HeadName, ...] = HEADS
        self.folder, self.weights_sha256 = folder.absolute(), weights_sha256
        self.encoder = Encoder(student.to(device), device, configuration.train.eval_batch_size, precision)
        self.image_encoder = None if frozen.image is None else frozen.image.to(device)
        self.text_encoder = None if frozen.text is None else frozen.text.to(device)
        transform = student.backbone.image_transform if self.image_encoder is None else self.image_encoder.transform
        assert transform is not None
        self.transform = transform
        # Read here, because it changes the settings of the tokeniser, which threads use later.
        self._vocabulary = student.backbone.vocabulary() if frozen.text is None else frozen.text.vocabulary()

    def encode_image(self, items: Picture | Sequence[Picture], head: HeadName = "cross") -> np.ndarray:
        """Embeddings of pictures, float32 [n, D], normalised, in the order of `items`; see RetrievalModel."""
        pictures = listed_pictures(items)
        if not pictures:
            return np.empty((0, self.dimension), dtype=np.float32)
        (embeddings,) = self.encoder.encode_images(
            _PictureInputs(self, pictures), [checked_head(head, self.heads)]
        ).values()
        return unit_float32(embeddings)

    def encode_text(self, texts: str | Sequence[str], head: HeadName = "cross") -> np.ndarray:
        """Embeddings of texts, float32 [n, D], normalised, in the order of `texts`; see RetrievalModel."""
        cleaned = cleaned_texts(texts, self.configuration.captions)
        if not cleaned:
            return np.empty((0, self.dimension), dtype=np.float32)
        (embeddings,) = self.encoder.encode_texts(self._text_inputs(cleaned), [checked_head(head, self.heads)]).values()
        return unit_float32(embeddings)

    def knows(self, texts: str | Sequence[str]) -> list[bool]:
        """Whether the tokeniser knows a part of each text, in the order of `texts`; see RetrievalModel."""
        cleaned = cleaned_texts(texts, self.configuration.captions)
        return [True] * len(cleaned) if self._vocabulary is None else self._vocabulary.knows(cleaned)

    def similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The cosine of each row of `first` [n, D] with each row of `second` [m, D], float32 [n, m]."""
        return cosines(first, second)

    def pixels(self, picture: Image.Image) -> Tensor:
        """An upright 8-bit RGB image as the student sees it: uint8 [3, H, W].

        It is shrunk and encoded as the shards store images, so that it looks as the training images did.
        """
        if self.shards.shorter_side is None:
            return self.transform.pixels_of(picture)
        shrunk = resize_shorter_side(picture, self.shards.shorter_side)
        if self.shards.image_format == "png":  # encoding it would not change it, but takes most of the time
            return self.transform.pixels_of(shrunk)
        content, _, plain = encode_image(shrunk, self.shards)
        return self.transform.pixels(content, plain)

    def prepared(self, item: Picture, max_pixels: int = MAX_PIXELS) -> Tensor:
        """A picture as the student sees it, uint8 [3, H, W]. Threads may do this ahead of `encode_prepared`.

        Raises DataError if the picture cannot be read, or has more than `max_pixels` pixels.
        """
        with opened(item, max_pixels) as picture:
            return self.pixels(picture)

    def prepared_from_shard(self, encoded: bytes, plain: bool) -> Tensor:
        """A picture that a shard holds, as the student sees it: it has been shrunk and encoded already.

        `plain` is that of the shard's index. Raises DataError if the picture cannot be decoded.
        """
        return self.transform.pixels(encoded, plain)

    def encode_prepared(self, prepared: Sequence[Tensor], head: HeadName = "cross") -> np.ndarray:
        """Embeddings of pictures that `prepared` returned, one batch, float32 [n, D], normalised."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            features = self.encoder.student.backbone.image_features(self.image_inputs(prepared).to(self.device))
            embeddings = self.encoder.student.head(features, checked_head(head, self.heads), "image")
        return unit_float32(embeddings.float().cpu().numpy())

    def image_inputs(self, prepared: Sequence[Tensor]) -> Tensor:
        """Pixels as one batch, uint8 [n, 3, H, W], channels last; of a frozen tower its features, float32 [n, d]."""
        size = (len(prepared), 3, self.transform.crop, self.transform.crop)
        pixels = torch.empty(size, dtype=torch.uint8, memory_format=torch.channels_last)
        for place, picture in enumerate(prepared):
            pixels[place] = torch.as_tensor(picture)
        if self.image_encoder is None:
            return pixels
        with autocast(self.device, self.precision):
            features: Tensor = self.image_encoder(pixels.to(self.device))
        return features.float()

    @contextmanager
    def batches_at_once(self) -> Iterator[tuple[int, Callable[[], None]]]:
        """A block in which threads call `encode_prepared`: how many they should be, and what each calls first.

        On a CPU, a few batches side by side on a share of the cores each are faster than one batch on all cores: its
        threads wait for each other in every operation, and for the cores that decoding has.
        """
        cores = torch.get_num_threads()
        threads = min(MOST_BATCHES_AT_ONCE, cores) if self.device.type == "cpu" else 1
        try:
            yield threads, partial(torch.set_num_threads, max(1, cores // threads))
        finally:
            torch.set_num_threads(cores)

    @property
    def batch_size(self) -> int:
        """The number of items that the model takes at once."""
        return self.encoder.batch_size

    @property
    def dimension(self) -> int:
        """The length D of the embeddings."""
        return self.encoder.student.backbone.dimension

    def _text_inputs(self, cleaned: list[str]) -> TokenInputs | FeatureInputs:
        if self.text_encoder is None:
            return TokenInputs(Tokens.of(*self.encoder.student.backbone.tokenise(cleaned)))
        batch_size = self.configuration.train.eval_batch_size
        towers = self.configuration.student.towers
        assert towers is not None
        precision = towers.text.precision  # the precision of the features that the run was trained on
        return FeatureInputs(encode_texts(self.text_encoder, cleaned, batch_size, self.device, precision=precision))


class _PictureInputs:
    """Pictures as `Encoder.encode_images` reads them, batch after batch; threads prepare those of the next batches."""

    def __init__(self, model: Model, pictures: list[Picture]) -> None:
        self.model, self.pictures = model, pictures
        ahead = min(len(pictures), model.batch_size + 2 * available_cores())
        self.prepared = prefetched(range(len(pictures)), self._prepared, ahead)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, positions: np.ndarray) -> Tensor:
        """The inputs of the positions, which follow those of the call before."""
        found = list(islice(self.prepared, len(positions)))
        if problems := [problem for problem in found if isinstance(problem, str)]:
            raise unreadable(problems, len(self))
        return self.model.image_inputs([picture for picture in found if not isinstance(picture, str)])

    def _prepared(self, position: int) -> Tensor | str:
        """A picture as the student sees it, uint8 [3, H, W], or what is wrong with it."""
        try:
            return self.model.prepared(self.pictures[position])
        except DataError as error:
            return f"item {position}: {error}".rstrip(".")


def load_run(folder: Path, device: str | torch.device | None = None, precision: Precision | None = None) -> Model:
    """The model of a run folder. For its arguments and errors see cusa.model.load."""
    chosen = chosen_device(device)
    student, configuration = load_student(folder)
    shards = settings_of(DatasetFolder.of_run(folder).shards("train"))
    frozen, sha256 = FrozenTowers.load(configuration.student), RunRecord.read(folder).weights_sha256
    precision = precision or configuration.train.precision
    return Model(student, frozen, configuration, shards, folder, sha256, chosen, precision)


def chosen_device(device: str | torch.device | None) -> torch.device:
    """The device that is asked for; for None a GPU, if PyTorch sees one, else the CPU.

    Raises ConfigurationError if a GPU is asked for that does not exist.
    """
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:  # its message lists twenty kinds of device
        raise ConfigurationError(f"device is {device}; expected cpu or cuda.") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(f"device is {device}, but PyTorch sees no GPU; use device='cpu'.")
    return chosen
