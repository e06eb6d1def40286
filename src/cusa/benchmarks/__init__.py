"""Benchmarks on cached embeddings, one module each. No torch: a job starts in about a second.

A module has `DATA`, the embedded data it needs, and `evaluate(folder, run)`. Adding a benchmark means
adding a module, one line in MODULES and its section in the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from cusa import __version__
from cusa.errors import DataError
from cusa.files import read_json, write_json
from cusa.layout import DatasetFolder

MODULES = {
    "itr": "cusa.benchmarks.itr",
    "eccv_caption": "cusa.benchmarks.eccv_caption",
    "image_retrieval": "cusa.benchmarks.image_retrieval",
    "sts": "cusa.benchmarks.sts",
}
SCHEMA = 1


@dataclass(frozen=True)
class Result:
    """What a benchmark found; metrics are in percent unless their name says rank."""

    metrics: Mapping[str, float]
    protocol: str
    n_queries: int
    n_gallery: int


@dataclass(frozen=True)
class Run:
    """A run folder as benchmarks see it: its embeddings and what trained it."""

    folder: Path

    @property
    def about(self) -> dict[str, Any]:
        """The content of run.json."""
        content: dict[str, Any] = read_json(self.folder / "run.json")
        return content

    def embeddings(self, data: str, name: str, rows: int) -> np.ndarray:
        """The array `{data}/{name}.npy`, [rows, D]. Raises DataError when it is missing or of another length."""
        path = self.folder / "embeddings" / data / f"{name}.npy"
        if not path.is_file():
            raise DataError(f"{path} does not exist; run `snakemake scores` to have it made.")
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        if len(array) != rows:
            raise DataError(
                f"{path} has {len(array)} rows, but the data has {rows}; delete {path.parent} and run "
                "`snakemake scores` again."
            )
        return array

    def head_used(self, family: str) -> str:
        """`cross` or `uni`, or a note that the features before the heads stand in for a head that does not exist."""
        losses = self.about["configuration"]["losses"]
        uses_head = ("uni_softlabel",) if family == "uni" else ("contrastive", "cross_softlabel")
        trained = any(losses[name] is not None for name in uses_head)
        return f"{family} head" if trained else f"features before the heads (no {family} head was trained)"


def evaluate(benchmark: str, folder: DatasetFolder, run_folder: str | Path, output: str | Path) -> None:
    """Score a run on one benchmark and write its JSON."""
    module: Any = import_module(MODULES[benchmark])
    run = Run(Path(run_folder))
    about = run.about
    result: Result = module.evaluate(folder, run)
    configuration = about["configuration"]
    protocol = result.protocol
    if configuration["train"]["select_on"] != "val":
        protocol += " The epoch was selected on the test set, as published, which leaks it."
    write_json(
        output,
        {
            "schema": SCHEMA,
            "benchmark": benchmark,
            "dataset": configuration["dataset"],
            "experiment": configuration["experiment"],
            "seed": configuration["seed"],
            **asdict(result),
            "protocol": protocol,
            "weights_sha256": about["weights_sha256"],
            "versions": {"cusa": __version__, "numpy": np.__version__},
        },
    )


def data_of(benchmark: str) -> tuple[str, ...]:
    """The embedded data a benchmark scores: splits, or tables of texts."""
    module: Any = import_module(MODULES[benchmark])
    data: tuple[str, ...] = module.DATA
    return data
