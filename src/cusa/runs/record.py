"""The files of a run folder: run.json, history.parquet and embeddings; best.safetensors is in runs/weights.py.

This module does not import torch, so that the jobs of benchmarks start in about a second.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cusa.common.files import atomic_file, made_again, read_array, read_json, write_json
from cusa.common.pydantic_errors import first_problem
from cusa.common.workflow_files import workflow_command
from cusa.config.experiments import RunConfiguration
from cusa.errors import DataError

WEIGHTS = "best.safetensors"
RUN = "run.json"
HISTORY = "history.parquet"
SCHEMA = 1
# The folder in which training keeps its state, see training/state.py.
STATE_FOLDER = "state"
# Folders of a run in which the workflow makes folders that commands make too.
PARTS_OF_RUN = ("gallery", "search", "exports")
STATE_FILE = "last.pt"
FINISHED = "finished"
# Names of the weights that `student.adapt` has frozen: in a run's data, and in the metadata of its weights.
FROZEN_WEIGHTS = "frozen weights of the student"
BASE_SHA256 = "base_sha256"


def trained_again(path: str | Path) -> str:
    """The advice for a damaged file of a run that was trained."""
    return f"delete {path}, and the same command trains the run again."


def made_of_run_again(path: str | Path, otherwise: str) -> str:
    """The advice for a damaged folder of a run, or a file in one: a gallery, an index or an export.

    If the workflow has made it, as runs/{experiment}/seed{n}/{kind}/{name}, the workflow makes it again. `otherwise` is
    the advice if a command has made it.
    """
    path = Path(path).absolute()
    by_workflow = any(
        folder.parent.name in PARTS_OF_RUN and (folder.parents[1] / RUN).is_file() for folder in (path, path.parent)
    )
    return made_again(path) if by_workflow else otherwise


class ImportedFile(BaseModel):
    """The file that a run was imported from."""

    model_config = ConfigDict(frozen=True)
    file: str
    sha256: str


class RunRecord(BaseModel):
    """The content of run.json: the configuration and data of a run, how it was made, and the epoch of its weights.

    Keys that only trained runs or only imported runs have are None in the other runs, and are left out of the file.
    Unknown keys, which later releases may add, are ignored.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True, protected_namespaces=())

    schema_version: int = Field(default=SCHEMA, alias="schema")
    configuration: RunConfiguration
    selected_epoch: int = Field(description="Counted from 0; -1 for a baseline, which is not trained.")
    selected_because: str
    selection_metrics: dict[str, float] | None = None
    imported_from: ImportedFile | None = None
    temperatures: dict[str, float] | None = None
    epochs: int = Field(description="Number of epochs that were trained.")
    training_pairs: int | None = None
    trained_parameters: int | None = Field(
        default=None, description="Number of weights that training changed, where `student.adapt` has frozen others."
    )
    data: dict[str, str] | None = Field(
        default=None,
        description="SHA-256 of the tables, shards and features that training read, by their path, and of the frozen "
        "weights of the student, where there are any.",
    )
    notes: list[str] | None = Field(
        default=None, description="What may make the results worse than need be, a sentence each; none is left out."
    )
    stopped_because: str | None = Field(
        default=None, description="Why a trial of a sweep was stopped before its last epoch; see cusa/sweep/pruning.py."
    )
    processes: int
    device: str
    seconds: float
    finished: str | None = Field(default=None, description="When training finished: UTC, ISO 8601.")
    weights_sha256: str
    versions: dict[str, str]

    @classmethod
    def read(cls, folder: str | Path) -> RunRecord:
        """Read the run.json of a run folder. Raises DataError when it does not exist or is not a valid record."""
        path = Path(folder) / RUN
        again = trained_again(path)
        if not path.is_file():
            raise DataError(
                f"{path} does not exist; run `{workflow_command('models')}` first, or name a run folder: "
                "results/{dataset}/runs/{experiment}/seed{n}."
            )
        try:
            return cls.model_validate(read_json(path, again))
        except ValidationError as error:
            key, message = first_problem(error)
            raise DataError(
                f"{path} is not the record of a run: key `{key}`: {message.lower()}. It was written by another "
                f"program or release; {again}"
            ) from None

    def write(self, folder: str | Path) -> None:
        """Write the run.json of a run folder atomically."""
        content = self.model_dump(mode="json", by_alias=True)
        write_json(Path(folder) / RUN, {key: value for key, value in content.items() if value is not None})

    def head_used(self, family: str) -> str:
        """Name the output of the student that is scored for a `family` of heads (`cross` or `uni`).

        This is the head, or, if no such head was trained, the features before the heads.
        """
        trained = family in self.configuration.losses.heads
        return f"{family} head" if trained else f"features before the heads (no {family} head was trained)"


@dataclass(frozen=True)
class RunFolder:
    """The parts of a run folder that benchmarks read: its record and its embeddings."""

    folder: Path

    @cached_property
    def record(self) -> RunRecord:
        """The content of run.json."""
        return RunRecord.read(self.folder)

    def embeddings(self, data: str, name: str, rows: int) -> np.ndarray:
        """The memory-mapped array embeddings/{data}/{name}.npy, float32 [rows, D].

        Raises DataError when it is missing, has another number of rows, or values that are not finite.
        """
        path = self.folder / "embeddings" / data / f"{name}.npy"
        if not path.parent.is_dir():
            raise DataError(f"{path} does not exist; run `{workflow_command('scores')}` to make it.")
        again = made_again(path.parent)
        array = read_array(path, again)
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
            raise DataError(f"{path} holds {array.dtype} of shape {array.shape}; expected float32 [{rows}, D]; {again}")
        if len(array) != rows:
            raise DataError(f"{path} has {len(array)} rows, but the data has {rows}; {again}")
        if not (finite := np.isfinite(array).all(axis=1)).all():
            raise DataError(
                f"{path} has values that are not finite in {int((~finite).sum()):,} of {rows:,} rows, the first in row "
                f"{int(finite.argmin())} (counted from 0): the model has diverged, or its precision is too low for "
                f"these data. Train it again with a lower train.lr or train.precision: fp32; delete {path.parent} if "
                "the weights are sound."
            )
        return array

    def head_used(self, family: str) -> str:
        """The output of the student that the embeddings of a family come from; see RunRecord.head_used."""
        return self.record.head_used(family)


def drop_finished(run: str | Path) -> None:
    """Remove the state of a finished training. Call this only when Snakemake has recorded the outputs of the training.

    The state of an unfinished training is kept, which may have another configuration.
    """
    folder = Path(run) / STATE_FOLDER
    if (folder / FINISHED).is_dir():
        shutil.rmtree(folder / FINISHED if (folder / STATE_FILE).exists() else folder, ignore_errors=True)


def write_history(path: str | Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as one Parquet table with a column for each key; values that a row does not have are null."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary)
