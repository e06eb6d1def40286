"""Detects the kind of model in a folder by its files, and loads it. Only the kinds that need torch import it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cusa.common.files import expanded
from cusa.common.workflow_files import workflow_command
from cusa.errors import ConfigurationError, DataError
from cusa.model.exported import EXPORT, Exported, ExportFormat
from cusa.model.interface import RetrievalModel
from cusa.runs.record import RUN

if TYPE_CHECKING:
    import torch

    from cusa.common.compute import Precision

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")  # those of cusa.common.compute, which imports torch
MODULES = "modules.json"  # of every folder that sentence-transformers saved


def load(
    folder: str | Path, device: str | torch.device | None = None, precision: Precision | None = None
) -> RetrievalModel:
    """The model of a folder, ready to embed new pictures and texts.

    The folder is that of a run, results/{dataset}/runs/{experiment}/seed{n}, or one that `cusa export` wrote. `device`
    is `cpu` or `cuda`; None takes a GPU if there is one. `precision` is that of the towers; None takes that of the run.
    An onnx folder imports no torch; it takes the device and the precision that its files are made for. Raises DataError
    when the folder is missing or damaged, ConfigurationError when one of its pre-trained parts cannot be loaded.
    """
    if not isinstance(folder, str | os.PathLike):
        raise ConfigurationError(f"folder is {folder!r}; expected the path of a run or of an exported folder.")
    folder = expanded(folder)
    if precision not in (None, *PRECISIONS):
        raise ConfigurationError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}, or None.")
    kind = kind_of(folder)
    if kind == "run":
        from cusa.model.run_model import load_run

        return load_run(folder, device, precision)
    if kind == "safetensors":
        from cusa.model.safetensors_folder import load_safetensors

        return load_safetensors(folder, device, precision)
    if kind == "onnx":
        from cusa.model.onnx_folder import load_onnx

        return load_onnx(folder, device, precision)
    from cusa.model.sentence_transformers_folder import load_sentence_transformers

    return load_sentence_transformers(folder, device, precision)


def kind_of(folder: Path) -> Literal["run"] | ExportFormat:
    """The kind of model in a folder, by its files. Raises DataError if it holds none."""
    if (folder / RUN).is_file():
        return "run"
    if (folder / EXPORT).is_file():
        return Exported.read(folder).format
    if (folder / MODULES).is_file():
        return "sentence-transformers"
    expected = (
        f"expected a run folder, results/{{dataset}}/runs/{{experiment}}/seed{{n}}, which has {RUN} (run "
        f"`{workflow_command('models')}` first), or a folder that `cusa export` wrote, which has {EXPORT}. Of a "
        "pre-trained model, `cusa import-model NAME --output FOLDER` makes a run folder."
    )
    if not folder.is_dir():
        raise DataError(f"{folder} {'is a file' if folder.exists() else 'does not exist'}; {expected}")
    raise DataError(f"{folder} holds no model that cusa knows (neither {RUN} nor {EXPORT}); {expected}")
