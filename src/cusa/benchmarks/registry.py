"""The registered benchmarks, and the properties that each module declares.

`module` is the name of a benchmark of cusa, the name that an installed package registers, or the path of a Python file.
Every function raises ConfigurationError if there is no such benchmark, or its module cannot be loaded (see
Registry.load).
"""

from __future__ import annotations

from typing import Any

from cusa.benchmarks.queries import Queries
from cusa.common.registry import Registry, call_part
from cusa.config.benchmarks import OWN_BENCHMARKS, BenchmarkSection
from cusa.errors import ConfigurationError
from cusa.layout import DatasetFolder

BENCHMARKS = Registry(
    kind="benchmark",
    group="cusa.benchmarks",
    modules={name: f"cusa.benchmarks.{name}" for name in OWN_BENCHMARKS},
    needs=("SETTINGS", "ACROSS_MODALITIES", "data", "evaluate"),
)


def names() -> list[str]:
    """Every benchmark that has a name: those of cusa, then those of installed packages."""
    return BENCHMARKS.names()


def benchmark_module(module: str) -> Any:
    """The module of a benchmark."""
    return BENCHMARKS.load(module, "" if module in OWN_BENCHMARKS else "benchmarks.more")


def settings_of(module: str) -> type[BenchmarkSection]:
    """The section of the configuration that a benchmark reads."""
    section: type[BenchmarkSection] = benchmark_module(module).SETTINGS
    if not (isinstance(section, type) and issubclass(section, BenchmarkSection)):
        raise ConfigurationError(
            f"SETTINGS of the benchmark {module} is {section!r}; expected a subclass of "
            "cusa.config.benchmarks.BenchmarkSection."
        )
    return section


def across_modalities(module: str) -> bool:
    """Whether a benchmark compares images with texts; the others stay within one modality."""
    across: bool = benchmark_module(module).ACROSS_MODALITIES
    return across


def data_of(module: str, provides: frozenset[str], settings: BenchmarkSection) -> tuple[str, ...]:
    """The embedded data that a benchmark scores: splits and tables of the data set, and data of the benchmark's own.

    `provides` is what the data set's format offers besides splits.
    """
    data: tuple[str, ...] = call_part(benchmark_module(module).data, provides, settings)
    return data


def queries_of(module: str, folder: DatasetFolder, metric: str) -> Queries | None:
    """The queries of a metric, in the order of its outcomes; None if the benchmark does not list them."""
    loaded = benchmark_module(module)
    if not hasattr(loaded, "queries"):
        return None
    queries: Queries | None = call_part(loaded.queries, folder, metric)
    return queries


def checks(module: str) -> bool:
    """Whether a benchmark reads the annotations before anything is trained."""
    return hasattr(benchmark_module(module), "check")


def check(module: str, folder: DatasetFolder, settings: BenchmarkSection) -> str | None:
    """A benchmark's sentence about a data set's annotations; None if the benchmark has no check.

    Raises DataError if they cannot be scored.
    """
    sentence: str | None = benchmark_module(module).check(folder, settings) if checks(module) else None
    return sentence


def write_texts(module: str, folder: DatasetFolder, settings: BenchmarkSection) -> None:
    """Write the table of texts that a benchmark embeds besides captions; only some benchmarks have one.

    Raises DataError if they do not fit the data.
    """
    benchmark_module(module).write_texts(folder, settings)
