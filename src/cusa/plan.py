"""What a configuration asks for: its runs, the models whose features they read, and the benchmarks they are scored on.

The rules of the workflow and `cusa check` ask a plan and compute none of this themselves. Paths are relative to the
working directory, as Snakemake wants them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cusa.benchmarks import registry
from cusa.common.registry import is_file, python_files
from cusa.config.benchmarks import BenchmarkSection, ImageRetrieval, SentenceSimilarity
from cusa.config.configuration import Configuration
from cusa.config.dataset import SPLITS
from cusa.config.experiments import RunConfiguration
from cusa.config.losses import LossConfiguration
from cusa.config.models import ImageModel, TextModel
from cusa.config.section import validate
from cusa.layout import CachedFeatures, DatasetFolder, Modality, RunInputs

RESULTS = Path("results")
VARIANTS = "variants"
TEACHERS_SHARE_NO_SPACE = "The two teachers share no space, so no text finds an image."


@dataclass(frozen=True)
class Plan:
    """Everything that follows from a configuration, and from which of its benchmarks' data exist.

    Raises ConfigurationError where a benchmark that was added is unknown, or its settings are wrong.
    """

    configuration: Configuration

    def check(self) -> None:
        """Raise ConfigurationError where a benchmark that was added is unknown, or its settings are wrong."""
        assert self.settings is not None

    @cached_property
    def folder(self) -> DatasetFolder:
        """The folder of the data set."""
        return DatasetFolder(RESULTS / self.configuration.dataset.name)

    @property
    def experiments(self) -> list[str]:
        """The experiments that are trained."""
        return list(self.configuration.active_experiments)

    @property
    def checkpoints(self) -> list[str]:
        """The published checkpoints that are imported."""
        return list(self.configuration.active_checkpoints)

    @property
    def baselines(self) -> list[str]:
        """The experiments that are scored without training."""
        return list(self.configuration.baselines)

    @property
    def runs(self) -> list[str]:
        """All of them, in the order of the tables."""
        return [*self.experiments, *self.checkpoints, *self.baselines]

    def seeds_of(self, run: str) -> list[int]:
        """The seeds of a run: every one for an experiment, the first for what is not trained."""
        seeds = self.configuration.seeds
        return seeds if run in self.experiments else seeds[:1]

    def run_configuration(self, run: str) -> RunConfiguration:
        """What a run depends on, with its first seed. The losses of a checkpoint stand in its file, so it has none."""
        configuration = self.configuration
        if run not in self.checkpoints:
            return configuration.run(run, self.seeds_of(run)[0])
        return RunConfiguration(
            dataset=configuration.dataset.name,
            experiment=run,
            seed=self.seeds_of(run)[0],
            student=configuration.student_of(run),
            losses=LossConfiguration(),
            teachers=None,
            train=configuration.train,
        )

    def run_files(self, name: str = "") -> list[str]:
        """One file of every run folder, in the order of `runs` and `seeds_of`; without `name` the folders."""
        folders = [self.folder.run(run, seed) for run in self.runs for seed in self.seeds_of(run)]
        return [str(folder / name) for folder in folders]

    def score_files(self, ending: str) -> list[str]:
        """benchmarks/{benchmark}{ending} of every run that is scored on the benchmark."""
        return [
            str(self.folder.run(run, seed) / "benchmarks" / f"{benchmark}{ending}")
            for run in self.runs
            for seed in self.seeds_of(run)
            for benchmark in self.benchmarks_of(run)
        ]

    @property
    def gpus_of_largest_job(self) -> int:
        """GPUs of the largest job on one machine; embedding and extraction take one where `train.gpus` is above 0."""
        configuration = self.configuration
        recipes = [configuration.recipe(run).gpus for run in self.experiments]
        return max([int(configuration.train.gpus > 0), *recipes])

    @cached_property
    def settings(self) -> dict[str, BenchmarkSection]:
        """The settings of every benchmark that is not null, by name; those that the user added come last."""
        benchmarks = self.configuration.benchmarks
        known = {name: section for name, section in benchmarks.sections.items() if section is not None}
        return known | {
            name: validate(registry.settings_of(added.module), added.settings, at=f"benchmarks.more.{name}")
            for name, added in benchmarks.added.items()
        }

    @property
    def added(self) -> list[str]:
        """The benchmarks of `benchmarks.more` that are not null."""
        return list(self.configuration.benchmarks.added)

    def module_of(self, benchmark: str) -> str:
        """The module of a benchmark, as the registry takes it: its name, or the path of its Python file."""
        added = self.configuration.benchmarks.added
        return added[benchmark].module if benchmark in added else benchmark

    def benchmark_arguments(self, benchmark: str) -> str:
        """How the scripts are given a benchmark: its name, and `--file` where it is a Python file."""
        module = self.module_of(benchmark)
        return shlex.join([benchmark, "--file", module]) if is_file(module) else benchmark

    def benchmark_files(self, benchmark: str) -> list[str]:
        """The benchmark's Python file, where it has one."""
        return python_files(self.module_of(benchmark))

    @cached_property
    def data_of(self) -> dict[str, tuple[str, ...]]:
        """The embedded data that each benchmark scores; empty where none of its data exist."""
        provides = self.configuration.dataset.provides
        return {
            name: registry.data_of(self.module_of(name), provides, settings) for name, settings in self.settings.items()
        }

    @property
    def benchmarks(self) -> list[str]:
        """The benchmarks that have something to score. The others are left out, and the summary says so."""
        return [name for name, data in self.data_of.items() if data]

    def benchmarks_of(self, run: str) -> list[str]:
        """The benchmarks that a run is scored on."""
        return [name for name in self.benchmarks if not self._is_unsuited(run, name)]

    def _is_unsuited(self, run: str, benchmark: str) -> bool:
        baseline = self.configuration.baselines.get(run)
        is_teachers = baseline is not None and baseline.baseline == "teachers"
        return is_teachers and registry.across_modalities(self.module_of(benchmark))

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Why something is not scored, by `benchmark, data` and by `run, benchmark`."""
        missing = {
            f"{benchmark}, {data}": why
            for benchmark, settings in self.settings.items()
            for data, why in settings.left_out().items()
        }
        return missing | {
            f"{run}, {benchmark}": TEACHERS_SHARE_NO_SPACE
            for run in self.baselines
            for benchmark in self.benchmarks
            if self._is_unsuited(run, benchmark)
        }

    @property
    def checked_benchmarks(self) -> list[str]:
        """The benchmarks that look at the annotations before anything is trained."""
        return [name for name in self.benchmarks if registry.checks(self.module_of(name))]

    @property
    def labelled_images(self) -> dict[str, str]:
        """Labelled images that exist, by name: their folder or file."""
        section = self.settings.get("image_retrieval")
        return section.available() if isinstance(section, ImageRetrieval) else {}

    @property
    def sentence_pairs(self) -> dict[str, str]:
        """Sentence pairs that exist, by name: their folder or file."""
        section = self.settings.get("sts")
        return section.available() if isinstance(section, SentenceSimilarity) else {}

    @property
    def dataset_files(self) -> list[str]:
        """The files that the annotations are made from, the format's Python file among them."""
        dataset = self.configuration.dataset
        return [*map(os.path.expanduser, dataset.files.values()), *dataset.python_files]

    @property
    def splits(self) -> list[str]:
        """The splits that are stored as shards."""
        return [*SPLITS, *([VARIANTS] if VARIANTS in self.data_of.get("image_retrieval", ()) else [])]

    @property
    def extra_tables(self) -> list[str]:
        """Tables that the format writes beyond images and captions."""
        return sorted(self.configuration.dataset.provides & {"extended_positives", "sentence_pairs"})

    def tables(self, *extra: str) -> list[str]:
        """The tables of images and captions, and those of `extra` that the format writes."""
        names = ["images", "captions", *(name for name in extra if name in self.extra_tables)]
        return [str(self.folder.table(name)) for name in names]

    def training_inputs(self, experiment: str) -> list[str]:
        """The files that training an experiment reads, its student's Python files among them."""
        inputs = RunInputs.of_training(self.run_configuration(experiment))
        return sorted([*self.tables(), *map(str, inputs.paths(self.folder)), *self.student_files(experiment)])

    def student_files(self, run: str) -> list[str]:
        """The Python files of a run's student."""
        return self.configuration.student_of(run).python_files

    def embedding_inputs(self, run: str, data: str) -> list[str]:
        """The files that embedding `data` reads: a split or a table of the data set, or a benchmark's own data."""
        folder, inputs = self._data_folder(data), self._embedded(run, data)
        if data in self.sentence_pairs:
            return [str(folder.table("sentence_pairs"))]
        if data in self.extra_tables:
            return [str(folder.table(data))]
        return [str(folder.table("images")), str(folder.table("captions")), *map(str, inputs.paths(folder))]

    def embeddings(self, benchmark: str) -> list[str]:
        """The embeddings that a benchmark scores, with the wildcards of a run; none where it is switched off."""
        folder = self.folder.run("{experiment}", "{seed}") / "embeddings"
        return [str(folder / data) for data in self.data_of.get(benchmark, ())]

    def _data_folder(self, data: str) -> DatasetFolder:
        own = data in self.labelled_images or data in self.sentence_pairs
        return self.folder.benchmark_data(data) if own else self.folder

    def _embedded(self, run: str, data: str) -> RunInputs:
        """Shards and cached features that embedding `data` reads; texts that are no split's captions need none."""
        student = self.configuration.student_of(run)
        if data in self.labelled_images:
            return RunInputs.of_split(student, "test", captions=False)
        return RunInputs.of_split(student, data) if data in self.splits else RunInputs()

    @cached_property
    def frozen_image_models(self) -> dict[str, ImageModel]:
        """Every image model whose features are cached, by the folder of its features."""
        chosen: dict[str, ImageModel] = {}
        for model in self._frozen("image"):
            plain = ImageModel(**model.model_dump(include=set(ImageModel.model_fields)))
            if (other := chosen.get(model.folder)) is not None:
                dtype = _widest(plain.dtype, other.dtype, "float32")
                precision = _widest(plain.precision, other.precision, "fp32")
                plain = plain.model_copy(update={"dtype": dtype, "precision": precision})
            chosen[model.folder] = plain
        return chosen

    @cached_property
    def frozen_text_models(self) -> dict[str, TextModel]:
        """Every text model whose features are cached, by the folder of its features."""
        chosen: dict[str, TextModel] = {}
        for model in self._frozen("text"):
            plain = TextModel(**model.model_dump(include=set(TextModel.model_fields)))
            if (other := chosen.get(model.folder)) is not None:
                plain = plain.model_copy(update={"dtype": _widest(plain.dtype, other.dtype, "float32")})
            chosen[model.folder] = plain
        return chosen

    def _frozen(self, modality: Modality) -> Iterator[ImageModel | TextModel]:
        """Teachers in use, then frozen towers of the students.

        A tower that is also the teacher shares its features, in the wider of the two types and arithmetics.
        """
        runs = [self.run_configuration(run) for run in self.runs]
        yield from (getattr(run.teachers, modality) for run in runs if run.teachers is not None)
        towers = [getattr(run.student.towers, modality) for run in runs if run.student.towers is not None]
        yield from (tower for tower in towers if not tower.trainable)

    @cached_property
    def stored_features(self) -> list[tuple[DatasetFolder, CachedFeatures]]:
        """All features that some run or benchmark reads, each once, and the folder of the data they are of."""
        stored = []
        for run in self.runs:
            if run in self.experiments:
                inputs = RunInputs.of_training(self.run_configuration(run))
                stored += [(self.folder, features) for features in inputs.features]
            for data in dict.fromkeys(data for benchmark in self.benchmarks for data in self.data_of[benchmark]):
                stored += [(self._data_folder(data), features) for features in self._embedded(run, data).features]
        return list(dict.fromkeys(stored))

    def feature_files(self) -> list[str]:
        """The files of `stored_features`: what the target `features` builds."""
        return sorted(str(RunInputs((), (features,)).paths(folder)[0]) for folder, features in self.stored_features)

    @property
    def reference(self) -> str | None:
        """The run that the others are compared with; None where the configured one is not trained or imported."""
        reference = self.configuration.report.reference
        return reference if reference in (*self.experiments, *self.checkpoints) else None

    @property
    def gallery_runs(self) -> list[str]:
        """The runs whose answers the report shows side by side."""
        chosen = self.configuration.report.gallery.experiments
        return [name for name in chosen if name in (*self.experiments, *self.checkpoints)]

    @property
    def gallery_data(self) -> list[str]:
        """The splits that the report's gallery searches."""
        return ["test", *([VARIANTS] if VARIANTS in self.splits else [])]


def _widest(own: Any, other: Any, widest: str) -> Any:
    return widest if widest in (own, other) else own
