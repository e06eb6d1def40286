"""A folder that `cusa export --to onnx` wrote, as a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cusa.errors import ConfigurationError
from cusa.model.interface import RetrievalModel

if TYPE_CHECKING:
    import torch

    from cusa.common.compute import Precision


def load_onnx(
    folder: Path, device: str | torch.device | None = None, precision: Precision | None = None
) -> RetrievalModel:
    """The model of an exported folder of onnx. For its arguments and errors see cusa.model.load."""
    raise ConfigurationError(f"{folder}: folders of onnx cannot be loaded yet.")
