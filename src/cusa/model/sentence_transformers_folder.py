"""A folder that `cusa export --to sentence-transformers` wrote, as a model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from cusa.common.compute import Precision, autocast
from cusa.common.images import resize_shorter_side
from cusa.common.progress import progress
from cusa.config.losses import HeadName
from cusa.errors import DataError, cause_of
from cusa.metrics.scores import unit_float32
from cusa.model.exported import Exported, ExportedModel, exported_again
from cusa.model.interface import Picture, checked_head, cleaned_texts, listed_pictures, opened, unreadable
from cusa.model.run_model import chosen_device
from cusa.shards.writing import encode_image
from cusa.teachers.token_use import Vocabulary, vocabulary_of
from cusa.teachers.transform import ImageTransform

BATCH = 64


class SentenceTransformersExported(Exported):
    """The content of cusa.json in a folder of sentence-transformers."""

    image: ImageTransform = Field(description="Preprocessing of pictures.")


class SentenceTransformersModel(ExportedModel[SentenceTransformersExported]):
    """A RetrievalModel by sentence-transformers. It holds one head.

    Pictures are prepared as the run does it, and not by the library's image processor, which neither shrinks nor
    encodes them as the training images were, and rounds otherwise. So the embeddings are those of the run.
    """

    def __init__(
        self,
        library: Any,
        about: SentenceTransformersExported,
        folder: Path,
        device: torch.device,
        precision: Precision,
    ) -> None:
        super().__init__(about, folder)
        self.library = library
        self.device, self.precision = device, precision
        self._vocabulary = _vocabulary(getattr(library, "tokenizer", None))

    def encode_image(self, items: Picture | Sequence[Picture], head: HeadName = "cross") -> np.ndarray:
        """Embeddings of pictures, float32 [n, D], normalised, in the order of `items`; see RetrievalModel."""
        checked_head(head, self.about.heads)
        pictures, parts = listed_pictures(items), []
        problems: list[str] = []
        starts = range(0, len(pictures), BATCH)
        for start in progress(starts, len(pictures), "images", "embedding", BATCH):
            places = range(start, min(start + BATCH, len(pictures)))
            batch = [self._prepared(place, pictures[place], problems) for place in places]
            if not problems:
                pixels = torch.stack([picture for picture in batch if picture is not None])
                parts.append(self._encoded({"pixel_values": self.about.image.normalise(pixels), "modality": "image"}))
        if problems:
            raise unreadable(problems, len(pictures))
        return self._joined(parts)

    def encode_text(self, texts: str | Sequence[str], head: HeadName = "cross") -> np.ndarray:
        """Embeddings of texts, float32 [n, D], normalised, in the order of `texts`; see RetrievalModel."""
        checked_head(head, self.about.heads)
        cleaned = cleaned_texts(texts, self.about.captions)
        order = np.argsort([len(text) for text in cleaned], kind="stable")  # of similar length, which saves padding
        # As mappings, so that a text which is also the address of a picture stays a text.
        sorted_texts = [{"text": cleaned[place]} for place in order]
        starts = range(0, len(cleaned), BATCH)
        batches = progress(starts, len(cleaned), "texts", "embedding", BATCH)
        read = self.library.preprocess
        parts = [self._encoded(read(sorted_texts[start : start + BATCH])) for start in batches]
        return self._joined(parts)[np.argsort(order, kind="stable")]

    def knows(self, texts: str | Sequence[str]) -> list[bool]:
        """Whether the tokeniser knows a part of each text, in the order of `texts`; see RetrievalModel."""
        cleaned = cleaned_texts(texts, self.about.captions)
        return [True] * len(cleaned) if self._vocabulary is None else self._vocabulary.knows(cleaned)

    def _prepared(self, place: int, item: Picture, problems: list[str]) -> Tensor | None:
        """A picture as the student saw them, uint8 [3, H, W]; a problem is added if it cannot be read."""
        shards, transform = self.about.shards, self.about.image
        try:
            with opened(item) as picture:
                if shards.shorter_side is None:
                    return transform.pixels_of(picture)
                content, _, plain = encode_image(resize_shorter_side(picture, shards.shorter_side), shards)
            return transform.pixels(content, plain)
        except DataError as error:
            problems.append(f"item {place}: {error}".rstrip("."))
            return None

    @torch.inference_mode()
    def _encoded(self, features: dict[str, Any]) -> np.ndarray:
        moved = {
            name: value.to(self.device) if isinstance(value, Tensor) else value for name, value in features.items()
        }
        with autocast(self.device, self.precision):
            found: Tensor = self.library(moved)["sentence_embedding"]
        return unit_float32(found.float().cpu().numpy())

    def _joined(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), dtype=np.float32)


def _vocabulary(tokeniser: Any) -> Vocabulary | None:
    """The vocabulary of an exported tokeniser without the prompt, which its normaliser puts before every text."""
    if tokeniser is None:
        return None
    found = vocabulary_of(tokeniser, tokeniser.model_max_length)
    if (read := found.start) is None:
        return found
    pairs = zip(*read(["a", "b"]), strict=False)
    prompt = [one for one, other in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    while prompt and prompt[-1] == found.unknown:  # the tokeniser knows neither letter
        prompt.pop()
    return found._replace(start=lambda texts: [row[len(prompt) :] for row in read(texts)])


def load_sentence_transformers(
    folder: Path, device: str | torch.device | None = None, precision: Precision | None = None
) -> SentenceTransformersModel:
    """The model of an exported folder of sentence-transformers. For its arguments and errors see cusa.model.load.

    `precision` None is fp32. Raises DataError for folders of sentence-transformers that `cusa export` did not write.
    """
    about, chosen = SentenceTransformersExported.read(folder), chosen_device(device)
    from sentence_transformers import SentenceTransformer

    try:
        library = SentenceTransformer(str(folder), device=str(chosen), local_files_only=True)
    except Exception as error:  # the library raises errors of any type for unexpected files
        raise DataError(
            f"{folder} cannot be loaded by sentence-transformers ({cause_of(error)}); {exported_again(folder)}"
        ) from error
    return SentenceTransformersModel(library, about, folder, chosen, precision or "fp32")
