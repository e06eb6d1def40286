"""The two graphs of a model, from pixels and from tokens to normalised embeddings, as ONNX files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cusa.config.losses import HeadName
from cusa.errors import ConfigurationError, cause_of
from cusa.model.run_model import Model

OPSET = 18
LARGEST_FILE = 2**31 - 2**24  # bytes; protobuf allows 2 GiB, so larger weights are in a second file


class ImageGraph(nn.Module):
    """uint8 pixels [B, 3, H, W] to embeddings [B, D] of each head, normalised; a frozen tower is part of it."""

    def __init__(self, model: Model, heads: tuple[HeadName, ...]) -> None:
        super().__init__()
        self.student, self.frozen, self.heads = model.encoder.student, model.image_encoder, heads

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The embeddings of each head, in the order of `heads`."""
        images = pixels if self.frozen is None else self.frozen(pixels)
        features = self.student.backbone.image_features(images)
        return tuple(_normalised(self.student.head(features, head, "image")) for head in self.heads)


class TextGraph(nn.Module):
    """Tokens, int64 [B, T], to embeddings [B, D] of each head, normalised; a frozen tower is part of it."""

    def __init__(self, model: Model, heads: tuple[HeadName, ...]) -> None:
        super().__init__()
        self.student, self.frozen, self.heads = model.encoder.student, model.text_encoder, heads

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """The embeddings of each head, in the order of `heads`."""
        tokens = {"input_ids": input_ids, "attention_mask": attention_mask}
        features = self.student.backbone.text_features(tokens if self.frozen is None else self.frozen(tokens))
        return tuple(_normalised(self.student.head(features, head, "text")) for head in self.heads)


def write_image_graph(model: Model, heads: tuple[HeadName, ...], path: Path) -> None:
    """Write the graph of pictures: input `pixels`, uint8 [batch, 3, H, W], an output for each head."""
    side = model.transform.crop
    pixels = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    _write(ImageGraph(model, heads), {"pixels": pixels}, {"pixels": ("batch",)}, path)


def write_text_graph(
    model: Model, heads: tuple[HeadName, ...], tokens: dict[str, Tensor], fixed_length: bool, path: Path
) -> None:
    """Write the graph of texts: inputs `input_ids` and `attention_mask`, int64 [batch, tokens], an output a head.

    `tokens` are those of two texts. With `fixed_length` the number of tokens is fixed to theirs.
    """
    axes = ("batch",) if fixed_length else ("batch", "tokens")
    _write(TextGraph(model, heads), tokens, dict.fromkeys(tokens, axes), path)


def _normalised(embeddings: Tensor) -> Tensor:
    return nn.functional.normalize(embeddings.float(), dim=1)


def _write(
    graph: ImageGraph | TextGraph, inputs: dict[str, Tensor], axes: dict[str, tuple[str, ...]], path: Path
) -> None:
    """Write a graph, with the named leading axes of each input free. Raises ConfigurationError if it has no ONNX."""
    size = sum(tensor.nbytes for tensor in graph.state_dict().values())
    free = {name: torch.export.Dim(name) for name in dict.fromkeys(axis for each in axes.values() for axis in each)}
    try:
        with _quiet():
            torch.onnx.export(
                graph.eval(),
                (),
                path,
                kwargs=inputs,
                input_names=list(inputs),
                output_names=list(graph.heads),
                dynamic_shapes={name: {place: free[axis] for place, axis in enumerate(axes[name])} for name in inputs},
                opset_version=OPSET,
                dynamo=True,
                external_data=size > LARGEST_FILE,
                verbose=False,
            )
    except Exception as error:  # the exporter raises errors of any type for models that it cannot express
        raise ConfigurationError(
            f"{path.name}: this model cannot be expressed in ONNX ({cause_of(error)}). Export it with --to safetensors "
            "or sentence-transformers, or report the model to PyTorch."
        ) from error


@contextmanager
def _quiet() -> Iterator[Any]:
    """Hide the exporter's messages for its developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
