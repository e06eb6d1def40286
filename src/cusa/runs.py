"""A run folder: best.safetensors, run.json and history.parquet, written by training and read by everything after."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cusa import __version__
from cusa.config import RunConfiguration, validate
from cusa.errors import DataError
from cusa.files import read_json, sha256_of_file, whole_file, write_json
from cusa.student import FrozenDimensions, Student, build_student

WEIGHTS = "best.safetensors"
RUN = "run.json"
HISTORY = "history.parquet"
# What training keeps beside the three, see state.py.
STATE_FOLDER = "state"
STATE_FILE = "last.pt"
FINISHED = "finished"
SCHEMA = 1
STUDENT_PREFIX = "student."


def save_weights(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a state dict as safetensors, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with whole_file(path) as temporary:
        save_file(plain, temporary, metadata)


def load_student(folder: str | Path) -> tuple[Student, RunConfiguration]:
    """The trained student of a run folder, in eval mode on the CPU, and the configuration it was trained with."""
    configuration = read_run(folder)
    path = Path(folder) / WEIGHTS
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run `snakemake models` first.") from None
    except SafetensorError as error:
        raise DataError(f"{path} is not a complete safetensors file ({error}); train the run again.") from None
    weights = {
        name.removeprefix(STUDENT_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(STUDENT_PREFIX)
    }
    projections = {
        modality: weights.get(f"backbone.{modality}_projection.weight", torch.empty(0, 0)).shape[1]
        for modality in ("image", "text")
    }
    student = build_student(configuration.student, configuration.losses, FrozenDimensions(**projections))
    try:
        student.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} does not fit the student that {folder}/{RUN} describes: {reason[:400]}") from None
    return student.eval(), configuration


def read_run(folder: str | Path) -> RunConfiguration:
    """The configuration in a run folder's run.json."""
    path = Path(folder) / RUN
    if not path.is_file():
        raise DataError(f"{path} does not exist; run `snakemake models` first.")
    return validate(RunConfiguration, read_json(path)["configuration"])


def drop_finished(run: str | Path) -> None:
    """Remove the state of a training that has finished; called when its outputs have been taken note of."""
    folder = Path(run) / STATE_FOLDER
    if (folder / FINISHED).is_dir() and not (folder / STATE_FILE).exists():
        shutil.rmtree(folder, ignore_errors=True)


def write_baseline(folder: str | Path, configuration: RunConfiguration) -> None:
    """Make a run folder of a student as it is before training, on which `embed` and every benchmark work.

    The configuration has no loss, so the student has no heads and its features themselves are scored.
    """
    folder = Path(folder)
    student = build_student(configuration.student, configuration.losses)
    tensors = {f"{STUDENT_PREFIX}{name}": tensor for name, tensor in student.state_dict().items()}
    # The teachers as a pair of towers have no weights of their own, and a file without a tensor cannot be read.
    save_weights(folder / WEIGHTS, tensors | {"trained": torch.tensor(False)}, {})
    write_history(folder / HISTORY, [{"kind": "baseline", "epoch": 0, "step": 0}])
    write_json(
        folder / RUN,
        {
            "schema": SCHEMA,
            "configuration": configuration.model_dump(mode="json"),
            "selected_epoch": -1,
            "selected_because": "not trained",
            "temperatures": {},
            "epochs": 0,
            "processes": 0,
            "device": "not trained",
            "seconds": 0.0,
            "weights_sha256": sha256_of_file(folder / WEIGHTS),
            "versions": versions(),
        },
    )


def write_history(path: str | Path, rows: list[dict[str, Any]]) -> None:
    """Write rows with differing keys as one table; absent values are null."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    with whole_file(path) as temporary:
        pq.write_table(table, temporary)


def versions() -> dict[str, str]:
    """What a result depends on besides its configuration."""
    packages = (
        "torch",
        "torchvision",
        "transformers",
        "sentence-transformers",
        "timm",
        "numpy",
        "safetensors",
    )
    return {
        "cusa": __version__,
        "python": platform.python_version(),
        "cuda": str(torch.version.cuda),
        **{package: version(package) for package in packages},
    }
