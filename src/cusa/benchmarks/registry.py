"""Which benchmarks there are, and what each says about itself."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from cusa import benchmarks
from cusa.config.benchmarks import BenchmarkSection
from cusa.errors import ConfigurationError
from cusa.layout import DatasetFolder


def check(benchmark: str, folder: DatasetFolder, settings: BenchmarkSection) -> str | None:
    """What a benchmark found out about a data set's annotations, a sentence; None where it asks nothing of them.

    Raises DataError where they cannot be scored.
    """
    found: str | None = benchmark_module(benchmark).check(folder, settings) if checks(benchmark) else None
    return found


def checks(benchmark: str) -> bool:
    """Whether a benchmark looks at the annotations before anything is trained."""
    return hasattr(benchmark_module(benchmark), "check")


def names() -> list[str]:
    """Every benchmark there is: the modules of this package that score something."""
    found = (module.name for module in iter_modules(benchmarks.__path__))
    return [name for name in found if hasattr(import_module(f"{benchmarks.__name__}.{name}"), "SETTINGS")]


def benchmark_module(benchmark: str) -> Any:
    """The module of a benchmark. Raises ConfigurationError where there is none."""
    if benchmark not in names():
        raise ConfigurationError(
            f"Configuration key `benchmarks.more.{benchmark}`: there is no src/cusa/benchmarks/{benchmark}.py with "
            f"SETTINGS; the benchmarks are {', '.join(names())}."
        )
    return import_module(f"{benchmarks.__name__}.{benchmark}")


def settings_of(benchmark: str) -> type[BenchmarkSection]:
    """The section of the configuration that a benchmark reads."""
    module = benchmark_module(benchmark)
    section: type[BenchmarkSection] = module.SETTINGS
    return section


def across_modalities(benchmark: str) -> bool:
    """Whether a benchmark compares images with texts; the others stay within one modality."""
    module = benchmark_module(benchmark)
    across: bool = module.ACROSS_MODALITIES
    return across


def data_of(benchmark: str, provides: frozenset[str], settings: BenchmarkSection) -> tuple[str, ...]:
    """The embedded data a benchmark scores: splits and tables of the data set, and data of the benchmark's own.

    `provides` is what the data set's format offers besides splits.
    """
    module = benchmark_module(benchmark)
    data: tuple[str, ...] = module.data(provides, settings)
    return data
