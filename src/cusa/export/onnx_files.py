"""Writes a folder that onnx loads without this library."""

from __future__ import annotations

from pathlib import Path

from cusa.errors import ConfigurationError
from cusa.model.exported import Exported
from cusa.model.run_model import Model


def write_onnx(model: Model, about: Exported, folder: Path, int8: bool, data: Path | None) -> list[str]:
    """Write a model with the head `about.heads` to a folder that is empty; `about` is to be written there too.

    Returns what is worth telling, a line each.
    """
    raise ConfigurationError(f"{folder}: exports to onnx are not there yet.")
