"""The complete configuration, its checks across sections, and the files that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, model_validator

from cusa.config.adaptation import adapter_sides
from cusa.config.augmentation import VIEWS
from cusa.config.benchmarks import NEEDED_OF_DATASET, WITHOUT_DATASET, Benchmarks
from cusa.config.captions import CaptionCleaning, Captions
from cusa.config.dataset import Dataset
from cusa.config.experiments import Checkpoint, Experiment, RunConfiguration, teachers_read
from cusa.config.extraction import Extraction
from cusa.config.interpolation import Interpolation
from cusa.config.models import StudentSettings, Teachers
from cusa.config.nearest_key import hint
from cusa.config.paths import expand_variables
from cusa.config.report import Report, unknown_runs
from cusa.config.search import Exports, Search
from cusa.config.section import Name, ProblemsError, Section, Seed, added_key, validate
from cusa.config.shards import Shards, ShardWriting, Stream, require_local
from cusa.config.sweep import Sweep
from cusa.config.training import Train
from cusa.config.views import views_of_training
from cusa.errors import ConfigurationError


class Configuration(Section):
    """All sections of the configuration: the content of config/config.yaml merged with the overlays."""

    dataset: Dataset
    captions: Captions = Captions()
    shards: Shards = Shards()
    teachers: Teachers
    extraction: Extraction = Extraction()
    stream: Stream | None = Field(
        default=None, description="null reads the shards of the train split by row from a local disk."
    )
    student: StudentSettings
    train: Train
    experiments: dict[Name, Experiment | None] = Field(
        min_length=1, description="The losses of each experiment, by name; null removes an experiment."
    )
    checkpoints: dict[Name, Checkpoint | None] = Field(
        default={}, description="Published checkpoints, by name; they are scored, not trained."
    )
    seeds: list[Seed] = Field(default=[23], min_length=1, description="Every experiment is trained once per seed.")
    benchmarks: Benchmarks = Benchmarks()
    report: Report = Report()
    search: Search | None = Field(default=None, description="Indexes to search with the models; null builds none.")
    exports: Exports | None = Field(default=None, description="Models for other programs; null exports none.")
    sweep: Sweep | None = added_key(None, "A search over settings of one experiment; null makes none.")

    @model_validator(mode="after")
    def _check_combination(self) -> Configuration:
        if not (self.active_experiments or self.baselines or self.active_checkpoints):
            raise ValueError("experiments: all are null and there is no checkpoint; give at least one of either")
        require_local(self.shards, self.stream)
        if self.dataset.name == "benchmark-data":
            raise ValueError("dataset.name: `benchmark-data` is the folder of the benchmarks' data; use another name")
        if both := sorted(set(self.experiments) & set(self.active_checkpoints)):
            raise ValueError(f"checkpoints: {both} are names of experiments too; rename them")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} repeats a seed; list each seed once")
        if problems := [
            *self._benchmarks_without_data(),
            *self._impossible_experiments(),
            *self._impossible_uses(),
        ]:
            raise ProblemsError(problems)
        return self

    def _benchmarks_without_data(self) -> Iterator[str]:
        for benchmark, data in NEEDED_OF_DATASET.items():
            section = self.benchmarks.sections[benchmark]
            if section is not None and not section.brings_data and data not in self.dataset.provides:
                yield (
                    f"Configuration key `benchmarks.{benchmark}` needs {data.replace('_', ' ')}, which the format "
                    f"`{self.dataset.format}` does not provide; {WITHOUT_DATASET[benchmark]}, or set "
                    f"benchmarks.{benchmark}: null."
                )

    def _impossible_experiments(self) -> Iterator[str]:
        for name, baseline in self.baselines.items():
            if baseline.baseline == "zero_shot" and self.student_of(name).towers is not None:
                yield (
                    f"Configuration key `experiments.{name}`: a pair of towers has random projections before training, "
                    "so it cannot be scored as zero_shot; give the experiment a student with a `name`."
                )
        for name, interpolation in self.interpolations.items():
            if interpolation.experiment not in self.active_experiments:
                yield (
                    f"Configuration key `experiments.{name}.interpolate.experiment` is {interpolation.experiment}, "
                    f"which is none of the experiments that are trained ({', '.join(self.active_experiments)}); "
                    f"{hint(interpolation.experiment, self.active_experiments)}"
                )
            elif not self.student_of(name).trained_sides:
                yield (
                    f"Configuration key `experiments.{name}.interpolate`: both sides of {interpolation.experiment} "
                    "are frozen, so its training changes no weight that was there before; leave it out."
                )
        recipes = {}
        for name in self.active_experiments:
            if (towers := self.student_of(name).towers) is not None and towers.dimension is None:
                yield (
                    f"Configuration key `experiments.{name}`: towers.dimension is null, so nothing can be trained; "
                    "give the number of dimensions."
                )
            try:
                recipe = self.recipe(name)
            except ConfigurationError as error:
                yield from str(error).splitlines()
                continue
            if self.stream is not None and recipe.hard_negatives is not None:
                yield (
                    f"Configuration key `train.hard_negatives` (experiment {name}) chooses the pairs of a batch, but "
                    "`stream` reads them in the order of the shards; set one of the two to null."
                )
            yield from self._impossible_recipe(name, recipe)
            recipes[name] = recipe
        yield from self._keys_without_effect(recipes)

    def _impossible_recipe(self, name: str, recipe: Train) -> Iterator[str]:
        """Settings with which a training would fail or learn nothing, whatever the data."""
        compared = recipe.pairs_compared
        if compared is not None and compared < 2:
            yield (
                f"Configuration key `train.batch_size` (experiment {name}) is {recipe.batch_size}, but every loss "
                "compares a pair with the others of its batch, so nothing would be learned; write 2 at least."
            )
        if recipe.checkpoint_towers and not self.student_of(name).trained_sides:
            yield (
                f"Configuration key `train.checkpoint_towers` (experiment {name}) is true, but both towers are frozen "
                "and read no picture or caption while training, so it would save no memory; set it to false."
            )

    def _keys_without_effect(self, recipes: Mapping[str, Train]) -> Iterator[str]:
        """Keys of `train` that the recipes of some experiments set, but that change nothing in any of them."""
        students = [self.student_of(name) for name in recipes]
        decays = any(recipe.layer_decay != 1 for recipe in recipes.values())
        if decays and not any(student.trained_sides - adapter_sides(student.adapt) for student in students):
            yield (
                "Configuration key `train.layer_decay` lowers the rates of pre-trained layers, but no experiment "
                "trains one: the sides of every student are frozen or have adapters; set layer_decay: 1, or train a "
                "tower."
            )
        changes = [recipe.augmentation for recipe in recipes.values() if recipe.augmentation is not None]
        if any(augmentation.views != VIEWS for augmentation in changes) and not any(
            any(views_of_training(self.run(name, self.seeds[0]))) for name in recipes
        ):
            yield (
                "Configuration key `train.augmentation.views` is the number of changed pictures or captions whose "
                "features are cached for a frozen tower, but no tower that reads changed ones is frozen; leave it out."
            )

    def _impossible_uses(self) -> Iterator[str]:
        if self.sweep is not None and self.sweep.experiment not in self.active_experiments:
            yield (
                f"Configuration key `sweep.experiment` is {self.sweep.experiment}, which is none of the experiments "
                f"that are trained ({', '.join(self.active_experiments) or 'there are none'}); "
                f"{hint(self.sweep.experiment, self.active_experiments)}"
            )
        yield from unknown_runs(self.report, [*self.experiments, *self.checkpoints])
        runs = [*self.named_experiments, *self.active_checkpoints]
        for key, section in (("search", self.search), ("exports", self.exports)):
            for name in (section and section.experiments) or []:
                if name not in runs:
                    yield (
                        f"Configuration key `{key}.experiments` names {name}, which is none of the experiments, "
                        f"checkpoints and baselines ({', '.join(runs)}); {hint(name, runs)}"
                    )
                elif name in self.baselines and self.baselines[name].baseline == "teachers":
                    yield (
                        f"Configuration key `{key}.experiments` names {name}, but the two teachers share no space, so "
                        "no text finds an image; leave it out."
                    )
        if self.search is None or self.search.queries == "run":
            return
        if self.exports is not None and self.exports.head not in (None, self.search.head):
            yield (
                f"Configuration key `search.head` is {self.search.head}, but exports.head is {self.exports.head}, and "
                "an export embeds the queries; give both the same, or exports.head: null, or search.queries: run."
            )

    @property
    def cleaning(self) -> CaptionCleaning:
        """How captions are cleaned: by the section `captions`, or else the default of the format."""
        return self.captions.cleaning(self.dataset)

    @property
    def shard_writing(self) -> ShardWriting:
        """The settings for writing shards."""
        return ShardWriting(
            **self.shards.model_dump(exclude={"pixels", "verify", "watch_images"}), max_pixels=self.dataset.max_pixels
        )

    @property
    def active_checkpoints(self) -> dict[str, Checkpoint]:
        """The checkpoints that are not null."""
        return {name: checkpoint for name, checkpoint in self.checkpoints.items() if checkpoint is not None}

    def student_of(self, run: str) -> StudentSettings:
        """The student of an experiment or of a checkpoint."""
        if run in self.active_checkpoints:
            return StudentSettings(name=self.active_checkpoints[run].student)
        experiment = self.named_experiments[self._trained_as(run)]
        if experiment.baseline == "teachers":
            return self.teachers.as_student
        student = experiment.student or self.student
        return student if experiment.baseline is None else student.whole

    def recipe(self, experiment: str) -> Train:
        """The training recipe of an experiment: the common recipe, with the experiment's own keys replaced.

        Raises ConfigurationError when these keys are wrong.
        """
        own = self.named_experiments[experiment := self._trained_as(experiment)].train
        if own is None:
            return self.train
        if own.get("nodes", self.train.nodes) != self.train.nodes:
            raise ConfigurationError(
                f"Configuration key `experiments.{experiment}.train.nodes` is {own['nodes']}, but train.nodes is "
                f"{self.train.nodes}; the number of machines has to be the same for all experiments, so leave it out."
            )
        return validate(Train, self.train.model_dump() | own, at=f"experiments.{experiment}.train")

    @property
    def active_experiments(self) -> dict[str, Experiment]:
        """The experiments that are trained: those that are neither null nor baselines nor interpolations."""
        made = (*self.baselines, *self.interpolations)
        return {name: experiment for name, experiment in self.named_experiments.items() if name not in made}

    @property
    def interpolations(self) -> dict[str, Interpolation]:
        """The experiments whose weights are between those before and after the training of another one."""
        named = self.named_experiments.items()
        return {name: experiment.interpolate for name, experiment in named if experiment.interpolate is not None}

    def _trained_as(self, run: str) -> str:
        """The experiment whose student and recipe a run has: itself, or the one that it interpolates."""
        interpolation = self.interpolations.get(run)
        return run if interpolation is None else interpolation.experiment

    @property
    def baselines(self) -> dict[str, Experiment]:
        """The experiments that are scored without training."""
        return {
            name: experiment for name, experiment in self.named_experiments.items() if experiment.baseline is not None
        }

    @property
    def named_experiments(self) -> dict[str, Experiment]:
        """The experiments that are not null: those that are trained, and the baselines."""
        return {name: experiment for name, experiment in self.experiments.items() if experiment is not None}

    def run(self, experiment: str, seed: int) -> RunConfiguration:
        """The configuration of one run. It has only the keys that the result of the run depends on."""
        chosen, recipe = self.named_experiments[self._trained_as(experiment)], self.recipe(experiment)
        return RunConfiguration(
            dataset=self.dataset.name,
            experiment=experiment,
            seed=seed,
            student=self.student_of(experiment),
            losses=chosen.losses,
            teachers=self.teachers if teachers_read(chosen.losses, recipe) else None,
            train=recipe,
            stream=self.stream,
            captions=self.cleaning,
            interpolate=self.interpolations.get(experiment),
        )


def load(mapping: Mapping[str, Any]) -> Configuration:
    """Validate the merged YAML mapping. Raises ConfigurationError with one line per problem, which names its key.

    A null in `dataset` removes a key that another file set. This is needed because overlays are merged key by key, and
    another format does not accept the keys of the first. Environment variables in paths are replaced.
    """
    mapping = expand_variables(mapping)
    if isinstance(dataset := mapping.get("dataset"), Mapping):
        mapping = {**mapping, "dataset": {key: value for key, value in dataset.items() if value is not None}}
    return validate(Configuration, mapping)
