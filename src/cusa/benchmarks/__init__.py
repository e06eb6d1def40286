"""Benchmarks on cached embeddings, one module each. No torch: a job starts in about a second.

A module has `SETTINGS`, its section of the configuration; `ACROSS_MODALITIES`, whether it compares images with texts;
`data(provides, settings)`, the embedded data it needs; and `evaluate(folder, run, settings)`. It may have
`check(folder, settings)`, which raises DataError where the annotations alone tell that the data cannot be scored.
Adding a benchmark means adding a module here; docs/new-benchmark.md goes through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np

from cusa import __version__
from cusa.benchmarks import published_results
from cusa.config import BenchmarkSection
from cusa.errors import ConfigurationError, DataError
from cusa.files import read_json, whole_file, write_json
from cusa.layout import DatasetFolder

SCHEMA = 2


@dataclass(frozen=True)
class Result:
    """What a benchmark found; metrics are in percent unless their name says rank.

    Where one benchmark scores several data sets, a metric is called `{data}/{metric}`, and `sizes` gives each data
    set's (queries, gallery). `per_query` holds, for metrics that are means over queries, what each query contributes
    (float64, from 0 to 1), so that two runs can be compared query by query. `published_as` says which benchmark and
    metric of the paper's tables a metric is.
    """

    metrics: Mapping[str, float]
    protocol: str
    n_queries: int
    n_gallery: int
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    per_query: Mapping[str, np.ndarray] = field(default_factory=dict)
    published_as: Mapping[str, tuple[str, str]] = field(default_factory=dict)


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


def evaluate(
    benchmark: str,
    folder: DatasetFolder,
    run_folder: str | Path,
    output: str | Path,
    queries: str | Path,
    settings: BenchmarkSection,
) -> None:
    """Score a run on one benchmark; write its JSON to `output` and the outcomes of its queries (npz) to `queries`."""
    module = _module(benchmark)
    run = Run(Path(run_folder))
    about = run.about
    result: Result = module.evaluate(folder, run, settings)
    configuration = about["configuration"]
    protocol = result.protocol
    if configuration["train"]["select_on"] != "val":
        protocol += " The epoch was selected on the test set, as published, which leaks it."
    with whole_file(queries) as temporary, temporary.open("wb") as file:
        outcomes: Any = {name: values.astype(np.float32) for name, values in result.per_query.items()}
        np.savez_compressed(file, **outcomes)
    written = {each.name: getattr(result, each.name) for each in fields(result)}
    del written["per_query"], written["published_as"]  # the first went into `queries`, the second into `published`
    write_json(
        output,
        {
            "schema": SCHEMA,
            "benchmark": benchmark,
            "dataset": configuration["dataset"],
            "experiment": configuration["experiment"],
            "seed": configuration["seed"],
            **written,
            "protocol": protocol,
            "published": published_results.figures(configuration, result.published_as),
            "weights_sha256": about["weights_sha256"],
            "versions": {"cusa": __version__, "numpy": np.__version__},
        },
    )


def check(benchmark: str, folder: DatasetFolder, settings: BenchmarkSection) -> str | None:
    """What a benchmark found out about a data set's annotations, a sentence; None where it asks nothing of them.

    Raises DataError where they cannot be scored.
    """
    found: str | None = _module(benchmark).check(folder, settings) if checks(benchmark) else None
    return found


def checks(benchmark: str) -> bool:
    """Whether a benchmark looks at the annotations before anything is trained."""
    return hasattr(_module(benchmark), "check")


def names() -> list[str]:
    """Every benchmark there is: the modules of this package that score something."""
    found = (module.name for module in iter_modules(__path__))
    return [name for name in found if hasattr(import_module(f"{__name__}.{name}"), "SETTINGS")]


def _module(benchmark: str) -> Any:
    if benchmark not in names():
        raise ConfigurationError(
            f"Configuration key `benchmarks.more.{benchmark}`: there is no src/cusa/benchmarks/{benchmark}.py with "
            f"SETTINGS; the benchmarks are {', '.join(names())}."
        )
    return import_module(f"{__name__}.{benchmark}")


def settings_of(benchmark: str) -> type[BenchmarkSection]:
    """The section of the configuration that a benchmark reads."""
    module = _module(benchmark)
    section: type[BenchmarkSection] = module.SETTINGS
    return section


def across_modalities(benchmark: str) -> bool:
    """Whether a benchmark compares images with texts; the others stay within one modality."""
    module = _module(benchmark)
    across: bool = module.ACROSS_MODALITIES
    return across


def data_of(benchmark: str, provides: frozenset[str], settings: BenchmarkSection) -> tuple[str, ...]:
    """The embedded data a benchmark scores: splits and tables of the data set, and data of the benchmark's own.

    `provides` is what the data set's format offers besides splits.
    """
    module = _module(benchmark)
    data: tuple[str, ...] = module.data(provides, settings)
    return data
