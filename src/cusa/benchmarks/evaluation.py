"""Scoring a run on a benchmark, from its cached embeddings.

A benchmark is a module with `SETTINGS`, its section of the configuration; `ACROSS_MODALITIES`, whether it compares
images with texts; `data(provides, settings)`, the embedded data that it needs; and `evaluate(folder, run, settings)`,
which returns a Result. It may have `check(folder, settings)`, which raises DataError if the annotations show that the
data cannot be scored, and `queries(folder, metric)`, which says what the queries are (see queries.py). No module
imports torch, so a job starts in about a second. Installed packages and Python files add benchmarks without a change
here; docs/extending.md shows one.
"""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path

import numpy as np

from cusa import __version__
from cusa.benchmarks import outcomes_file, published_results
from cusa.benchmarks.benchmark import Result
from cusa.benchmarks.registry import benchmark_module
from cusa.common.files import write_json
from cusa.common.progress import stopwatch
from cusa.config.benchmarks import BenchmarkSection
from cusa.layout import DatasetFolder
from cusa.runs.record import RunFolder

log = logging.getLogger(__name__)
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
    """Score a run on one benchmark; write its JSON to `output` and its statistics (npz) to `queries`.

    `benchmark` is its name, and `file` its Python file if it has one. A metric that the data do not define is null
    in the JSON, and the key `undefined`, which only such a file has, gives its reason. Raises ConfigurationError if
    there is no such benchmark, and DataError if the embeddings or the annotations are missing or do not fit.
    """
    done = stopwatch(log)
    module = benchmark_module(file or benchmark)
    run = RunFolder(Path(run_folder))
    result: Result = module.evaluate(folder, run, settings)
    configuration = run.record.configuration
    protocol = result.protocol
    if configuration.train.select_on != "val":
        protocol += " The epoch was selected on the test set, as published, which leaks it."
    outcomes_file.save(queries, result.statistics)
    written = {each.name: getattr(result, each.name) for each in fields(result)}
    # `queries` has the statistics; `published` has the figures that `published_as` names.
    del written["statistics"], written["published_as"]
    written["undefined"] = result.reasons()
    written["metrics"] = dict(result.metrics) | dict.fromkeys(written["undefined"])
    if not written["undefined"]:
        del written["undefined"]
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
            **({"notes": notes} if (notes := run.record.notes) else {}),
            "versions": {"cusa": __version__, "numpy": np.__version__},
        },
    )
    done(
        f"{benchmark} of {configuration.experiment}, seed {configuration.seed}: {len(written['metrics'])} metrics of "
        f"{result.n_queries:,} queries in a gallery of {result.n_gallery:,}"
    )
