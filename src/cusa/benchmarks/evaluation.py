"""Benchmarks on cached embeddings, one module each. No torch: a job starts in about a second.

A module has `SETTINGS`, its section of the configuration; `ACROSS_MODALITIES`, whether it compares images with texts;
`data(provides, settings)`, the embedded data it needs; and `evaluate(folder, run, settings)`. It may have
`check(folder, settings)`, which raises DataError where the annotations alone show that the data cannot be scored.
Installed packages and Python files add benchmarks without a change here; docs/extending.md shows one.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from cusa import __version__
from cusa.benchmarks import published_results
from cusa.benchmarks.benchmark import Result
from cusa.benchmarks.registry import benchmark_module
from cusa.common.files import whole_file, write_json
from cusa.config.benchmarks import BenchmarkSection
from cusa.layout import DatasetFolder
from cusa.runs.record import RunFolder

SCHEMA = 2


def evaluate(
    benchmark: str,
    folder: DatasetFolder,
    run_folder: str | Path,
    output: str | Path,
    queries: str | Path,
    settings: BenchmarkSection,
    file: str | None = None,
) -> None:
    """Score a run on one benchmark; write its JSON to `output` and the outcomes of its queries (npz) to `queries`.

    `benchmark` is its name, and `file` its Python file where it has one. Raises ConfigurationError where there is no
    such benchmark, and DataError where the embeddings or the annotations are missing or do not fit.
    """
    module = benchmark_module(file or benchmark)
    run = RunFolder(Path(run_folder))
    result: Result = module.evaluate(folder, run, settings)
    configuration = run.record.configuration
    protocol = result.protocol
    if configuration.train.select_on != "val":
        protocol += " The epoch was selected on the test set, as published, which leaks it."
    with whole_file(queries) as temporary, temporary.open("wb") as npz:
        outcomes: Any = {name: values.astype(np.float32) for name, values in result.per_query.items()}
        np.savez_compressed(npz, **outcomes)
    written = {each.name: getattr(result, each.name) for each in fields(result)}
    del written["per_query"], written["published_as"]  # written to `queries`, and under `published`
    write_json(
        output,
        {
            "schema": SCHEMA,
            "benchmark": benchmark,
            "dataset": configuration.dataset,
            "experiment": configuration.experiment,
            "seed": configuration.seed,
            **written,
            "protocol": protocol,
            "published": published_results.figures(configuration, result.published_as),
            "weights_sha256": run.record.weights_sha256,
            "versions": {"cusa": __version__, "numpy": np.__version__},
        },
    )
