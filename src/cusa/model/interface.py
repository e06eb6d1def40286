"""The interface of every model that `cusa.load` returns, and the reading of pictures and texts for all of them.

This module imports no torch, so that a model which does not need it starts fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, get_args
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image

from cusa.annotations.captions import clean_caption
from cusa.common.files import expanded
from cusa.common.image_files import file_problem
from cusa.common.images import decoded_rgb, upright_rgb
from cusa.common.text import unstorable
from cusa.config.captions import CaptionCleaning
from cusa.config.dataset_section import MAX_PIXELS
from cusa.config.losses import HeadName
from cusa.errors import ConfigurationError, DataError
from cusa.metrics.scores import unit_float32

Picture = str | Path | bytes | Image.Image | np.ndarray
HEADS: tuple[HeadName, ...] = get_args(HeadName)
A_PICTURE = "a path, bytes, a PIL image or a numpy array"
EXAMPLES = 5


class RetrievalModel(Protocol):
    """A model that embeds pictures and texts in one space.

    `head` is `cross` for retrieval across modalities, `uni` for image-image and text-text retrieval. A folder that was
    exported may hold one head only; asking for the other raises ConfigurationError.
    """

    @property
    def dimension(self) -> int:
        """The length D of the embeddings."""
        ...

    @property
    def weights_sha256(self) -> str:
        """The SHA-256 of the run's best.safetensors; exports of a run have that of the run."""
        ...

    @property
    def folder(self) -> Path:
        """The folder that the model was loaded from, absolute."""
        ...

    def encode_image(self, items: Picture | Sequence[Picture], head: HeadName = "cross") -> np.ndarray:
        """Embeddings of pictures, float32 [n, D], normalised, in the order of `items`.

        An item is a path, a file:// URL, the bytes of a picture file, a PIL image, or a uint8 array [H, W], [H, W, 3]
        or [H, W, 4]. One item gives [1, D]. Raises DataError that names the items which cannot be read.
        """
        ...

    def encode_text(self, texts: str | Sequence[str], head: HeadName = "cross") -> np.ndarray:
        """Embeddings of texts, float32 [n, D], normalised, in the order of `texts`. One text gives [1, D].

        Texts are cleaned as the captions of the training data were. Raises DataError that names the texts which have no
        word.
        """
        ...

    def knows(self, texts: str | Sequence[str]) -> list[bool]:
        """Whether the model's tokeniser knows a part of each text, in the order of `texts`. One text gives one.

        False for a text of which every token is the unknown token, without the prompt and special tokens. The model
        reads all such texts of one length alike, so their embeddings mean nothing. If the vocabulary is not available,
        every text counts as known. Raises DataError that names the texts which have no word.
        """
        ...

    def similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The cosine of each row of `first` [n, D] with each row of `second` [m, D], float32 [n, m]."""
        ...


def checked_head(head: str, available: Sequence[HeadName] = HEADS) -> HeadName:
    """A head by its name. Raises ConfigurationError if there is none, or the model does not hold it."""
    if head not in HEADS:
        raise ConfigurationError(f"head is {head!r}; expected 'cross' or 'uni'.")
    if head not in available:
        raise ConfigurationError(
            f"head is {head!r}, but the exported model holds the head {', '.join(available)} only; export the run "
            f"again with --head {head}, or load the run folder."
        )
    return head


def listed_pictures(items: Picture | Sequence[Picture]) -> list[Picture]:
    """One picture or several as a list. Raises DataError if it is neither."""
    return (
        [items] if isinstance(items, Picture) else _listed(items, f"a picture or a list of pictures, each {A_PICTURE}")
    )


def _listed(items: Any, expected: str) -> list[Any]:
    if isinstance(items, Mapping | bytes | bytearray) or not isinstance(items, Iterable):
        raise DataError(f"{items!r:.80} is a {type(items).__name__}; expected {expected}.")
    return list(items)


def cleaned_texts(texts: str | Sequence[str], cleaning: CaptionCleaning) -> list[str]:
    """One text or several, cleaned. Raises DataError that names those which are not text or have no word."""
    originals = [texts] if isinstance(texts, str) else _listed(texts, "a text or a list of texts")
    if wrong := [f"{place}: {text!r:.80}" for place, text in enumerate(originals) if not isinstance(text, str)]:
        raise DataError(f"{len(wrong)} of {len(originals):,} items are not text: {examples(wrong)}.")
    if broken := [f"{place}: {what}" for place, text in enumerate(originals) if (what := unstorable(text)) is not None]:
        raise DataError(f"{len(broken)} of {len(originals):,} items are not text: {examples(broken)}.")
    cleaned = [clean_caption(text, cleaning) for text in originals]
    if empty := [f"{place}: {originals[place]!r:.80}" for place, text in enumerate(cleaned) if not text]:
        raise DataError(f"{len(empty)} of {len(cleaned):,} texts have no word after clean-up: {examples(empty)}.")
    return cleaned


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The cosine of each row of `first` [n, D] with each row of `second` [m, D], float32 [n, m].

    Raises DataError if they have other shapes.
    """
    one, other = np.atleast_2d(first), np.atleast_2d(second)
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise DataError(
            f"embeddings of the shapes {list(np.shape(first))} and {list(np.shape(second))} cannot be compared; "
            "expected [n, D] and [m, D], of one model."
        )
    return np.asarray(unit_float32(one) @ unit_float32(other).T)


@contextmanager
def opened(item: Picture, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """A picture as upright 8-bit RGB, of at most `max_pixels` if it comes from a file or bytes.

    Raises DataError if it cannot be read, is larger, or is something else.
    """
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim not in (2, 3) or (item.ndim == 3 and item.shape[2] not in (3, 4)):
            raise DataError(
                f"an array of shape {list(item.shape)} and type {item.dtype}; expected uint8 [H, W], [H, W, 3] or "
                "[H, W, 4]"
            )
        item = Image.fromarray(item)
    if isinstance(item, Image.Image):
        if not (item.width and item.height):
            raise DataError(f"a picture of {item.width} x {item.height} pixels; expected one at least each way")
        yield upright_rgb(item)
        return
    source = item if isinstance(item, bytes) else _path(item)
    if isinstance(source, Path) and (found := file_problem(source)) is not None:
        raise DataError(f"{source}: {found[0]}")
    with decoded_rgb(source, max_pixels, "the picture") as picture:
        yield picture


def unreadable(problems: Sequence[str], count: int) -> DataError:
    """The error for pictures that cannot be read, `problems` of `count`."""
    return DataError(f"{len(problems)} of {count:,} pictures cannot be read: {examples(problems)}.")


def examples(problems: Sequence[str]) -> str:
    """The first few problems, and how many more there are."""
    more = f" and {len(problems) - EXAMPLES} more" if len(problems) > EXAMPLES else ""
    return "; ".join(problems[:EXAMPLES]) + more


def _path(item: str | Path) -> Path:
    if isinstance(item, Path):
        return item
    if not isinstance(item, str):
        raise DataError(f"a {type(item).__name__}; expected {A_PICTURE}")
    address = urlsplit(item) if "://" in item[:16] else None
    if address is None:
        return expanded(item)
    if address.scheme != "file":
        raise DataError(f"{item:.80} is not a local file; download the picture and give its path")
    return Path(unquote(address.path))
