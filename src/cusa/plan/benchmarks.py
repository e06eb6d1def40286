"""The benchmarks of a plan: their settings, their modules, and the data that they score."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

from cusa.benchmarks import registry
from cusa.common.files import expand_home
from cusa.common.registry import python_files
from cusa.config.benchmarks import (
    BenchmarkSection,
    ExtendedPositives,
    ImageRetrieval,
    SentenceSimilarity,
    ZeroShotClassification,
)
from cusa.config.classification import Classification
from cusa.config.configuration import Configuration
from cusa.config.section import validate


@dataclass(frozen=True)
class BenchmarkPlan:
    """The plan of the section `benchmarks`, depending on which of its data exist."""

    configuration: Configuration

    @cached_property
    def settings(self) -> dict[str, BenchmarkSection]:
        """The settings of every benchmark that is not null, by name; those in `benchmarks.more` come last."""
        benchmarks = self.configuration.benchmarks
        known = {name: section for name, section in benchmarks.sections.items() if section is not None}
        return known | {
            name: validate(registry.settings_of(added.module), added.settings, at=f"benchmarks.more.{name}")
            for name, added in benchmarks.added.items()
        }

    @property
    def provides(self) -> frozenset[str]:
        """What the data set offers besides captioned images."""
        dataset = self.configuration.dataset
        return dataset.provides - dataset.absent().keys()

    @property
    def added(self) -> list[str]:
        """The benchmarks of `benchmarks.more` that are not null."""
        return list(self.configuration.benchmarks.added)

    def module_of(self, benchmark: str) -> str:
        """The module of a benchmark, as the registry takes it: its name, or the path of its Python file."""
        added = self.configuration.benchmarks.added
        return added[benchmark].module if benchmark in added else benchmark

    def settings_json(self, benchmark: str) -> str:
        """The settings of a benchmark as one line for its job, with the key `file` if it is in a Python file.

        `{}` if the benchmark is off.
        """
        if benchmark not in self.settings:
            return "{}"
        settings, files = self.settings[benchmark], self.benchmark_files(benchmark)
        if not files:
            return settings.as_json()
        return json.dumps({**settings.model_dump(mode="json"), "file": files[0]}, sort_keys=True)

    def benchmark_files(self, benchmark: str) -> list[str]:
        """The benchmark's Python file, if it has one."""
        return python_files(self.module_of(benchmark))

    @cached_property
    def data_of(self) -> dict[str, tuple[str, ...]]:
        """The names of the embedded data that each benchmark scores; empty if none of its data exist."""
        return {
            name: registry.data_of(self.module_of(name), self.provides, settings)
            for name, settings in self.settings.items()
        }

    @property
    def benchmarks(self) -> list[str]:
        """The benchmarks that have data to score. The others are left out, and the summary says so."""
        return [name for name, data in self.data_of.items() if data]

    @property
    def checked_benchmarks(self) -> list[str]:
        """The benchmarks that check the annotations before anything is trained."""
        return [name for name in self.benchmarks if registry.checks(self.module_of(name))]

    @cached_property
    def labelled_images(self) -> dict[str, str]:
        """The folder or file of all labelled images that are named and exist, by name."""
        images: dict[str, str] = {}
        for section in self.settings.values():
            if isinstance(section, ImageRetrieval | Classification):
                images |= section.available()
        return images

    @cached_property
    def sentence_pairs(self) -> dict[str, str]:
        """The folder or file of all sentence pairs that are named and exist, by name."""
        section = self.settings.get("sts")
        return section.available() if isinstance(section, SentenceSimilarity) else {}

    @cached_property
    def written_texts(self) -> dict[str, str]:
        """The tables of texts that benchmarks write, each with its benchmark."""
        owners = {"class_prompts": "zero_shot_classification", "judged_pairs": "eccv_caption"}
        return {table: owner for table, owner in owners.items() if table in self.data_of.get(owner, ())}

    def images_of(self, benchmark: str) -> list[str]:
        """The labelled images that a benchmark scores or learns from, by name: those that exist."""
        section = self.settings.get(benchmark)
        return list(section.available()) if isinstance(section, ImageRetrieval | Classification) else []

    def text_sources(self, benchmark: str) -> list[str]:
        """The user's files that the texts of a benchmark come from."""
        section, files = self.settings.get(benchmark), list[str]()
        if isinstance(section, ExtendedPositives) and section.positives is not None:
            files = [section.positives]
        if isinstance(section, ZeroShotClassification):
            files = list(section.name_files.values())
        return [expand_home(file) for file in files]
