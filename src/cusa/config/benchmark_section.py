"""The base class of the sections of benchmarks."""

from __future__ import annotations

from pathlib import Path

from cusa.config.paths import exists
from cusa.config.section import Section


class BenchmarkSection(Section):
    """Keys of one benchmark."""

    @property
    def places(self) -> dict[str, str]:
        """The configured places of the benchmark's own data, by their names in metrics and folders."""
        return {}

    @property
    def brings_data(self) -> bool:
        """Whether the benchmark can do without data of the data set itself."""
        return bool(self.places)

    def left_out(self) -> dict[str, str]:
        """Data that are named but are not there, each with a sentence; the rest is evaluated."""
        missing = {name: path for name, path in self.places.items() if not exists(path)}
        return {
            name: f"{path} does not exist (relative paths start at {Path.cwd()})." for name, path in missing.items()
        }

    def available(self) -> dict[str, str]:
        """Data that are named and there."""
        return {name: path for name, path in self.places.items() if exists(path)}
