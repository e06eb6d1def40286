"""A folder that `cusa export --to onnx` wrote, as a model: onnxruntime, tokenizers, Pillow and numpy, and no torch."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from cusa.common.images import decoded_rgb, resize_shorter_side
from cusa.common.onnx_runtime import import_onnxruntime
from cusa.common.progress import progress
from cusa.config.dataset_section import MAX_PIXELS
from cusa.config.losses import HeadName
from cusa.errors import ConfigurationError, DataError, cause_of
from cusa.metrics.scores import unit_float32
from cusa.model.exported import EXPORT, Exported, ExportedModel, exported_again
from cusa.model.interface import Picture, checked_head, cleaned_texts, listed_pictures, opened, unreadable
from cusa.shards.writing import encode_image
from cusa.teachers.token_use import known_rows, own_tokens, unknown_token
from cusa.teachers.transform import ImageTransform

if TYPE_CHECKING:
    import torch

    from cusa.common.compute import Precision

IMAGE_FILE, TEXT_FILE, TOKENISER_FILE = "image.onnx", "text.onnx", "tokenizer.json"
BATCH = 32  # items a forward pass
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class TextPreparation(BaseModel):
    """How cleaned texts become the inputs of text.onnx."""

    model_config = ConfigDict(frozen=True)

    max_tokens: int = Field(description="Texts are truncated to this many tokens, special ones included.")
    pad_token: int = Field(description="The id that shorter texts of a batch are padded with.")
    fixed_length: bool = Field(description="Whether all texts are padded to max_tokens, as SigLIP needs it.")
    prompt: str = Field(description='What is put before every text; "" for nothing.')


class Int8Measurement(BaseModel):
    """The loss by quantised weights: R@1 in percent on `images` and `captions` of a data set's val split."""

    model_config = ConfigDict(frozen=True)

    data: str
    split: str
    images: int
    captions: int
    fp32: dict[str, float]
    int8: dict[str, float]
    loss: dict[str, float] = Field(description="fp32 - int8 in percentage points: i2t_r1, t2i_r1.")


class Int8(BaseModel):
    """The files with 8-bit weights, and their loss. `measured` is None if it could not be measured; `note` says why."""

    model_config = ConfigDict(frozen=True)

    files: tuple[str, ...]
    measured: Int8Measurement | None
    note: str


class OnnxExported(Exported):
    """The content of cusa.json in an onnx folder."""

    opset: int
    image: ImageTransform = Field(description="Preprocessing of pictures; mean and std are applied inside image.onnx.")
    text: TextPreparation
    int8: Int8 | None = Field(default=None, description="None where all weights are float32.")


class OnnxModel(ExportedModel[OnnxExported]):
    """An exported model that onnxruntime runs. It is a RetrievalModel."""

    def __init__(self, folder: Path, device: str) -> None:
        """Open the files of a folder. Raises DataError if one is missing or damaged."""
        super().__init__(OnnxExported.read(folder), folder)
        self.device = device
        self.image, self.text = Session(folder / IMAGE_FILE, device), Session(folder / TEXT_FILE, device)
        self.tokeniser = _read_tokeniser(folder / TOKENISER_FILE)
        self.unknown_token = unknown_token(self.tokeniser)

    def encode_image(self, items: Picture | Sequence[Picture], head: HeadName = "cross") -> np.ndarray:
        """Embeddings of pictures, float32 [n, D], normalised, in the order of `items`; see RetrievalModel."""
        pictures, head = listed_pictures(items), checked_head(head, self.about.heads)
        embeddings = np.empty((len(pictures), self.dimension), dtype=np.float32)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for rows in batches(np.arange(len(pictures)), "images"):
                found = list(pool.map(self._pixels_or_problem, rows.tolist(), [pictures[row] for row in rows]))
                if problems := [problem for problem in found if isinstance(problem, str)]:
                    raise unreadable(problems, len(pictures))
                embeddings[rows] = self.image.run(head, {"pixels": np.stack([np.asarray(each) for each in found])})
        return unit_float32(embeddings)

    def prepared(self, item: Picture, max_pixels: int = MAX_PIXELS) -> np.ndarray:
        """A picture as image.onnx reads it, uint8 [3, H, W]. Threads may do this ahead of `encode_prepared`.

        Raises DataError if the picture cannot be read, or has more than `max_pixels` pixels.
        """
        with opened(item, max_pixels) as picture:
            return self.pixels(picture)

    def prepared_from_shard(self, encoded: bytes, plain: bool) -> np.ndarray:
        """A picture that a shard holds, which has been shrunk and encoded already, as image.onnx reads it."""
        with decoded_rgb(encoded) as picture:
            return self.about.image.array_of(picture)

    def encode_prepared(self, prepared: Sequence[np.ndarray], head: HeadName = "cross") -> np.ndarray:
        """Embeddings of pictures that `prepared` returned, one batch, float32 [n, D], normalised."""
        return unit_float32(self.image.run(checked_head(head, self.heads), {"pixels": np.stack(prepared)}))

    @property
    def batch_size(self) -> int:
        """The number of items that the model takes at once."""
        return BATCH

    def encode_text(self, texts: str | Sequence[str], head: HeadName = "cross") -> np.ndarray:
        """Embeddings of texts, float32 [n, D], normalised, in the order of `texts`; see RetrievalModel."""
        cleaned, head = cleaned_texts(texts, self.about.captions), checked_head(head, self.about.heads)
        tokens = self.tokenise(cleaned)
        embeddings = np.empty((len(tokens), self.dimension), dtype=np.float32)
        # Texts of similar length share a batch, which saves padding.
        order = np.argsort([len(row) for row in tokens], kind="stable")
        for rows in batches(order, "texts"):
            embeddings[rows] = self.text.run(head, padded([tokens[row] for row in rows], self.about.text.pad_token))
        return unit_float32(embeddings)

    def knows(self, texts: str | Sequence[str]) -> list[bool]:
        """Whether the tokeniser knows a part of each text, in the order of `texts`; see RetrievalModel."""
        cleaned = cleaned_texts(texts, self.about.captions)
        return known_rows(own_tokens(self.tokeniser, cleaned), self.unknown_token)

    def pixels(self, picture: Image.Image) -> np.ndarray:
        """An upright 8-bit RGB image as image.onnx reads it: uint8 [3, H, W].

        It is shrunk and encoded as the shards stored the training images, so that it looks as they did.
        """
        shards = self.about.shards
        if shards.shorter_side is not None:
            content, _, _ = encode_image(resize_shorter_side(picture, shards.shorter_side), shards)
            with Image.open(io.BytesIO(content)) as stored:
                picture = stored.convert("RGB")
        return self.about.image.array_of(picture)

    def tokenise(self, cleaned: Sequence[str]) -> list[list[int]]:
        """The token ids of cleaned texts, special tokens included, truncated."""
        preparation = self.about.text
        encoded = self.tokeniser.encode_batch([preparation.prompt + text for text in cleaned])
        ids: list[list[int]] = [each.ids for each in encoded]
        if preparation.fixed_length:
            ids = [[*row, *[preparation.pad_token] * (preparation.max_tokens - len(row))] for row in ids]
        return ids

    def _pixels_or_problem(self, position: int, item: Picture) -> np.ndarray | str:
        try:
            with opened(item) as picture:
                return self.pixels(picture)
        except DataError as error:
            return f"item {position}: {error}".rstrip(".")


def load_onnx(folder: Path, device: str | torch.device | None = None, precision: Precision | None = None) -> OnnxModel:
    """The model of an exported onnx folder. For its arguments and errors see cusa.model.load."""
    try:
        onnxruntime = import_onnxruntime()
        import tokenizers  # noqa: F401 (asked for here, so that the message is one for both)
    except ImportError as error:
        raise ConfigurationError(f"{folder} needs the package {error.name}; run pip install 'cusa[onnx]'.") from None
    if precision is not None:
        raise ConfigurationError(
            f"precision is {precision}, but the arithmetic of {folder} is fixed in its files; leave it out, or load "
            "the run folder."
        )
    available = onnxruntime.get_available_providers()
    chosen = str(device or ("cuda" if PROVIDERS["cuda"] in available else "cpu"))
    if (kind := chosen.partition(":")[0]) not in PROVIDERS:
        raise ConfigurationError(f"device is {device}; expected cpu or cuda.")
    if PROVIDERS[kind] not in available:
        raise ConfigurationError(
            f"device is {device}, but this onnxruntime has no CUDA; install onnxruntime-gpu, or use device='cpu'."
        )
    return OnnxModel(folder, chosen)


def padded(tokens: Sequence[Sequence[int]], pad_token: int) -> dict[str, np.ndarray]:
    """`input_ids` and `attention_mask`, int64 [B, T], padded to the longest of the texts."""
    lengths = np.array([len(row) for row in tokens])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_token, dtype=np.int64)
    ids[mask] = np.concatenate([np.asarray(row, dtype=np.int64) for row in tokens])
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}


class Session:
    """One onnx file in onnxruntime on `cpu`, `cuda` or `cuda:1`; `threads` None takes a thread for each core."""

    def __init__(self, path: Path, device: str, threads: int | None = None) -> None:
        onnxruntime = import_onnxruntime()

        if not path.is_file():
            raise DataError(
                f"{path} does not exist; {path.parent}/{EXPORT} says that it does; {exported_again(path.parent)}"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or 0
        # Threads that wait for work would else keep a core busy, which others need: the server, for one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        kind, _, number = device.partition(":")
        provider = (PROVIDERS[kind], {"device_id": number} if kind == "cuda" and number else {})
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=[provider])
        except Exception as error:  # onnxruntime has a class of errors for each reason, which it does not export
            raise DataError(f"{path} cannot be loaded ({cause_of(error)}); {exported_again(path.parent)}") from error
        self.inputs = {each.name for each in self.session.get_inputs()}

    def run(self, head: HeadName, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """The embeddings [B, D] of one head. A graph lacks the inputs that its model does not read."""
        taken = {name: array for name, array in inputs.items() if name in self.inputs}
        (embeddings,) = self.session.run([head], taken)
        return np.asarray(embeddings)


def _read_tokeniser(path: Path) -> Any:
    from tokenizers import Tokenizer

    if not path.is_file():
        raise DataError(
            f"{path} does not exist; {path.parent}/{EXPORT} says that it does; {exported_again(path.parent)}"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises Exception itself
        raise DataError(f"{path} cannot be read ({cause_of(error)}); {exported_again(path.parent)}") from error


def batches(order: np.ndarray, unit: str) -> Iterator[np.ndarray]:
    """The rows of `order`, int64 [n], in batches, with progress on long input."""
    parts = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    return progress(parts, len(order), unit, "embedding", BATCH)
