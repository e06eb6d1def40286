"""The plan of a configuration: its runs, the models whose features they read, their benchmarks, and all files.

The rules of the workflow and `cusa check` take this from a plan; they do not compute it themselves. Paths are relative
to the working directory, as in Snakemake.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from cusa.benchmarks import registry
from cusa.common.files import sha256_of_file
from cusa.config.benchmarks import NEEDED_OF_DATASET
from cusa.config.dataset import SPLITS
from cusa.config.experiments import RunConfiguration
from cusa.config.losses import LossConfiguration
from cusa.config.models import ImageModel, TextModel
from cusa.layout import RESULTS, CachedFeatures, DatasetFolder, RunInputs
from cusa.plan.benchmarks import BenchmarkPlan
from cusa.plan.frozen_models import image_models, text_models

VARIANTS = "variants"
TEACHERS_SHARE_NO_SPACE = "The two teachers share no space, so no text finds an image."


@dataclass(frozen=True)
class Plan(BenchmarkPlan):
    """The plan of a configuration, depending on which of its benchmarks' data exist.

    Most properties raise ConfigurationError when a benchmark in `benchmarks.more` is unknown or has wrong settings;
    `check` raises it at once.
    """

    def check(self) -> None:
        """Raise ConfigurationError when a benchmark in `benchmarks.more` is unknown or has wrong settings."""
        for run in self.runs:
            self.benchmarks_of(run)

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
        """All experiments, interpolations, checkpoints and baselines, in the order of the tables in the summary."""
        return [*self.experiments, *self.interpolations, *self.checkpoints, *self.baselines]

    @property
    def interpolations(self) -> list[str]:
        """The experiments whose weights are between those before and after the training of another one."""
        return list(self.configuration.interpolations)

    def seeds_of(self, run: str) -> list[int]:
        """The seeds of a run: all seeds of a trained run, only the first for a checkpoint or a baseline."""
        seeds = self.configuration.seeds
        return seeds if run in (*self.experiments, *self.interpolations) else seeds[:1]

    def run_configuration(self, run: str) -> RunConfiguration:
        """The configuration of a run with its first seed. A checkpoint has no losses here: they are in its file."""
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
        """The path of the file `name` in every run folder, in the order of `runs` and `seeds_of`.

        If `name` is empty, the paths of the folders.
        """
        folders = [self.folder.run(run, seed) for run in self.runs for seed in self.seeds_of(run)]
        return [str(folder / name) for folder in folders]

    def score_files(self, ending: str) -> list[str]:
        """The path of benchmarks/{benchmark}{ending} for every run and every benchmark that scores it."""
        return [
            str(self.folder.run(run, seed) / "benchmarks" / f"{benchmark}{ending}")
            for run in self.runs
            for seed in self.seeds_of(run)
            for benchmark in self.benchmarks_of(run)
        ]

    @property
    def gpus_of_largest_job(self) -> int:
        """The number of GPUs of the largest job on one machine.

        Embedding and extraction use one GPU if `train.gpus` is above 0.
        """
        configuration = self.configuration
        recipes = [configuration.recipe(run).gpus for run in self.experiments]
        return max([int(configuration.train.gpus > 0), *recipes])

    def code_of_image_model(self, model_folder: str) -> str:
        """The SHA-256 of the Python file that an image model is loaded from; empty if there is none."""
        return " ".join(map(sha256_of_file, self.frozen_image_models[model_folder].python_files))

    def benchmarks_of(self, run: str) -> list[str]:
        """The benchmarks that a run is scored on."""
        return [name for name in self.benchmarks if not self._is_unsuited(run, name)]

    def _is_unsuited(self, run: str, benchmark: str) -> bool:
        baseline = self.configuration.baselines.get(run)
        is_teachers = baseline is not None and baseline.baseline == "teachers"
        return is_teachers and registry.across_modalities(self.module_of(benchmark))

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Why data are not scored, by `benchmark, data`, and why a run is not scored, by `run, benchmark`."""
        missing = {
            f"{benchmark}, {data}": why
            for benchmark, settings in self.settings.items()
            for data, why in settings.left_out().items()
        }
        absent = self.configuration.dataset.absent()
        missing |= {
            f"{benchmark}, {data}": absent[data]
            for benchmark, data in NEEDED_OF_DATASET.items()
            if data in absent and benchmark in self.settings
        }
        return missing | {
            f"{run}, {benchmark}": TEACHERS_SHARE_NO_SPACE
            for run in self.baselines
            for benchmark in self.benchmarks
            if self._is_unsuited(run, benchmark)
        }

    @property
    def dataset_files(self) -> list[str]:
        """The files that the annotations are made from, the format's Python file among them."""
        dataset = self.configuration.dataset
        return [*map(os.path.expanduser, dataset.files.values()), *dataset.python_files]

    @property
    def splits(self) -> list[str]:
        """The splits that are stored as shards."""
        return [*SPLITS, *({VARIANTS} & self.provides)]

    @property
    def extra_tables(self) -> list[str]:
        """The tables that the data set's format writes in addition to images and captions."""
        return sorted(self.provides & {"extended_positives", "sentence_pairs"})

    @property
    def text_tables(self) -> list[str]:
        """The tables of the data set whose texts are embedded."""
        return [*self.extra_tables, *self.written_texts]

    def tables(self, *extra: str) -> list[str]:
        """The paths of the tables of images and captions, and of those tables in `extra` that are written."""
        names = ["images", "captions", *(name for name in extra if name in self.text_tables)]
        return [str(self.folder.table(name)) for name in names]

    def training_inputs(self, experiment: str) -> list[str]:
        """The files that training an experiment reads, its student's Python files among them."""
        inputs = RunInputs.of_training(self.run_configuration(experiment))
        return sorted([*self.tables(), *map(str, inputs.paths(self.folder)), *self.student_files(experiment)])

    def interpolation_inputs(self, run: str) -> list[str]:
        """The files that interpolating reads, besides the run: the split that selects, the student's Python files."""
        configuration = self.run_configuration(run)
        inputs = RunInputs.of_split(configuration.student, configuration.train.selection_split)
        return sorted([*self.tables(), *map(str, inputs.paths(self.folder)), *self.student_files(run)])

    def interpolated_run(self, run: str, seed: int | str) -> str:
        """The folder of the run that was trained, whose weights `run` interpolates."""
        return str(self.folder.run(self.configuration.interpolations[run].experiment, seed))

    def student_files(self, run: str) -> list[str]:
        """The Python files of a run's student."""
        return self.configuration.student_of(run).python_files

    @property
    def embedded_together(self) -> list[str]:
        """The data that one job of a run embeds: the test split, and the tables and variants that the format writes.

        They do not depend on the benchmarks that are switched on.
        """
        return ["test", *self.extra_tables, *self.splits[len(SPLITS) :]]

    def inputs_of_embedding(self, run: str, data: Iterable[str]) -> list[str]:
        """The files that embedding all of `data` reads, each once; for the names see `embedding_inputs`."""
        return list(dict.fromkeys(path for name in data for path in self.embedding_inputs(run, name)))

    def embedding_inputs(self, run: str, data: str) -> list[str]:
        """The files that embedding `data` reads.

        `data` is a split or a table of the data set, or the name of a benchmark's own data.
        """
        folder, inputs = self._data_folder(data), self._embedded(run, data)
        if data in self.sentence_pairs or data in self.text_tables:
            table = "sentence_pairs" if data in self.sentence_pairs else data
            return [str(folder.table(table)), *map(str, inputs.paths(folder))]
        return [str(folder.table("images")), str(folder.table("captions")), *map(str, inputs.paths(folder))]

    def embeddings(self, benchmark: str) -> list[str]:
        """The paths of the embeddings that a benchmark scores, with the wildcards {experiment} and {seed}.

        Empty if the benchmark is switched off.
        """
        folder = self.folder.run("{experiment}", "{seed}") / "embeddings"
        return [str(folder / data) for data in self.data_of.get(benchmark, ())]

    def _data_folder(self, data: str) -> DatasetFolder:
        own = data in self.labelled_images or data in self.sentence_pairs
        return self.folder.benchmark_data(data) if own else self.folder

    def _embedded(self, run: str, data: str) -> RunInputs:
        """The shards and cached features that embedding `data` reads."""
        student = self.configuration.student_of(run)
        if data in self.labelled_images:
            return RunInputs.of_split(student, "test", captions=False)
        if data in self.sentence_pairs:
            return RunInputs.of_texts(student, "sentence_pairs")
        return RunInputs.of_split(student, data) if data in self.splits else RunInputs.of_texts(student, data)

    @cached_property
    def frozen_image_models(self) -> dict[str, ImageModel]:
        """Every image model whose features are cached, by the folder of its features."""
        return image_models(*self._run_configurations)

    @cached_property
    def frozen_text_models(self) -> dict[str, TextModel]:
        """Every text model whose features are cached, by the folder of its features."""
        return text_models(*self._run_configurations)

    @cached_property
    def _run_configurations(self) -> tuple[list[RunConfiguration], list[RunConfiguration]]:
        """The configurations of all runs, and of the runs that are trained."""
        names = (self.runs, self.experiments)
        every, trained = ([self.run_configuration(run) for run in each] for each in names)
        return every, trained

    @cached_property
    def stored_features(self) -> list[tuple[DatasetFolder, CachedFeatures]]:
        """All cached features that runs and benchmarks read, each once, with the folder of their data."""
        stored = []
        for run in self.runs:
            if run in self.experiments:
                inputs = RunInputs.of_training(self.run_configuration(run))
                stored += [(self.folder, features) for features in inputs.features]
            for data in dict.fromkeys(data for benchmark in self.benchmarks for data in self.data_of[benchmark]):
                stored += [(self._data_folder(data), features) for features in self._embedded(run, data).features]
        return list(dict.fromkeys(stored))

    def feature_files(self) -> list[str]:
        """One file for each of `stored_features`: the files that the target `features` makes."""
        return sorted(str(RunInputs((), (features,)).paths(folder)[0]) for folder, features in self.stored_features)

    @property
    def reference(self) -> str | None:
        """The run that the others are compared with; None if the configured one is neither trained nor imported."""
        reference = self.configuration.report.reference
        return reference if reference in (*self.experiments, *self.interpolations, *self.checkpoints) else None

    @property
    def gallery_runs(self) -> list[str]:
        """The runs whose results the report's gallery shows side by side."""
        chosen = self.configuration.report.gallery.experiments
        return [name for name in chosen if name in (*self.experiments, *self.interpolations, *self.checkpoints)]

    @property
    def gallery_data(self) -> list[str]:
        """The splits that the report's gallery searches."""
        return ["test", *([VARIANTS] if VARIANTS in self.splits else [])]
