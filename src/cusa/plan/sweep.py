"""The plan of the section `sweep`: its trials, what they read, and the files that they make."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cusa.common.files import quoted_path
from cusa.config.configuration import Configuration
from cusa.config.sweep import Sweep
from cusa.config.training import Train
from cusa.errors import ConfigurationError
from cusa.layout import RunInputs
from cusa.plan.plan import Plan
from cusa.plan.recorded_jobs import RecordedJobs
from cusa.report.sweep import FIGURE
from cusa.sweep.space import configuration_at, corners, digest, grid, seeds_of, study_name
from cusa.sweep.study import TRIAL, Study
from cusa.sweep.summary import SUMMARY, TABLE


@dataclass(frozen=True)
class SweepPlan:
    """The plan of the section `sweep` of a configuration; without this section, nothing is made."""

    plan: Plan

    @property
    def sweep(self) -> Sweep | None:
        """The section `sweep`; None if nothing is searched for."""
        return self.plan.configuration.sweep

    @property
    def configuration(self) -> Configuration:
        """The complete configuration."""
        return self.plan.configuration

    @property
    def recipe(self) -> Train:
        """The recipe of the experiment that is swept; without a sweep the common one."""
        configuration = self.configuration
        return configuration.train if self.sweep is None else configuration.recipe(self.sweep.experiment)

    @cached_property
    def study(self) -> Study | None:
        """The folder of the sweep; None if there is none."""
        if self.sweep is None:
            return None
        earlier = self.plan.folder.study(study_name(self.configuration, as_written=True))
        return Study(earlier if earlier.is_dir() else self.plan.folder.study(study_name(self.configuration)))

    @cached_property
    def points(self) -> dict[str, dict[str, Any] | None]:
        """The trials by name, in their order. Those of a grid have values, the others draw them.

        The name of a grid's trial is a digest of its values, so that it stays the same in a larger grid.
        """
        if self.sweep is None:
            return {}
        if self.sweep.method == "grid":
            return {digest(point): point for point in grid(self.sweep)}
        return {f"{number:04d}": None for number in range(self.sweep.trials or 0)}

    def check(self) -> None:
        """Raise ConfigurationError for values that cannot be tried, before anything is trained.

        Of a grid all trials are checked. Of the other methods each key is checked alone, at the ends of its range:
        values that contradict each other make a trial impossible, and its result says so.
        """
        if self.sweep is None:
            return
        if self.sweep.method != "grid" and find_spec("optuna") is None:
            raise ConfigurationError(
                f"Configuration key `sweep.method` is {self.sweep.method}, which needs the package optuna, but it is "
                "not installed; pip install 'cusa[sweep]', or set sweep.method: grid."
            )
        if problems := list(dict.fromkeys([*self._useless_keys(), *self._impossible_points()])):
            raise ConfigurationError("\n".join(problems))

    def _impossible_points(self) -> Iterator[str]:
        assert self.sweep is not None
        experiment = self.sweep.experiment
        known = set(self.plan.training_inputs(experiment))
        for point in grid(self.sweep) if self.sweep.method == "grid" else corners(self.sweep):
            shown = ", ".join(f"{key}: {value}" for key, value in point.items())
            try:
                run = configuration_at(self.configuration, point).run(experiment, 0)
            except ConfigurationError as error:
                yield f"Configuration key `sweep.space`, with {shown}: {error}"
                continue
            if more := sorted(set(map(str, RunInputs.of_training(run).paths(self.plan.folder))) - known):
                yield (
                    f"Configuration key `sweep.space`, with {shown}: the training reads {more[0]}, which experiment "
                    f"{experiment} does not read, so nothing makes it; compare it as an experiment of its own."
                )

    def _useless_keys(self) -> Iterator[str]:
        """Keys of which no value changes the training, for instance because the experiment sets the key itself."""
        assert self.sweep is not None
        experiment = self.sweep.experiment
        for key in self.sweep.space:
            try:
                runs = {
                    configuration_at(self.configuration, point).run(experiment, 0).as_json()
                    for point in corners(self.sweep)
                    if key in point
                }
            except ConfigurationError:
                continue  # which is a sentence of its own
            values = self.sweep.space[key]
            if len(runs) == 1 and not (isinstance(values, list) and len(values) == 1):
                yield (
                    f"Configuration key `sweep.space.{key}` changes nothing, because experiments.{experiment} has a "
                    f"value of its own; write `experiments.{experiment}.{key}`."
                )

    def sentence(self) -> str:
        """A sentence with the number of trials and the keys that are searched."""
        assert self.sweep is not None
        seeds, keys = len(seeds_of(self.configuration)), len(self.sweep.space)
        return (
            f"{len(self.points)} trials of {self.sweep.experiment} ({self.sweep.method}, {keys} "
            f"key{'s' * (keys > 1)}), each trained with {seeds} seed{'s' * (seeds > 1)}"
        )

    def results(self) -> list[str]:
        """The trial.json of all trials."""
        return [] if self.study is None else [str(self.study.trial(name).folder / TRIAL) for name in self.points]

    def summary_files(self) -> list[str]:
        """The tables of the trials and the overlay of the best: what the target `sweep` makes."""
        return [] if self.study is None else [str(self.study.folder / name) for name in SUMMARY]

    @property
    def figures(self) -> list[str]:
        """The figures that the report has of the sweep."""
        return [] if self.study is None else [FIGURE]

    @property
    def report_option(self) -> str:
        """The option that tells the report of the sweep, after a blank; empty without one."""
        return "" if self.study is None else f" --sweep {quoted_path(str(self.study.folder / TABLE))}"

    def earlier(self, trial: str) -> list[str]:
        """The result that a trial of `tpe` waits for and learns from: that of the trial `parallel` places before."""
        if self.study is None or self.sweep is None or self.sweep.method != "tpe":
            return []
        names = list(self.points)
        before = names.index(trial) - self.sweep.parallel
        return [str(self.study.trial(names[before]).folder / TRIAL)] if before >= 0 else []

    def waited_for(self, trial: str, jobs: RecordedJobs) -> list[str]:
        """The results that a trial waits for. A finished trial keeps those that it waited for."""
        assert self.study is not None
        output = self.study.trial(trial).folder / TRIAL
        if output.is_file() and (recorded := jobs.inputs(str(output))) is not None:
            return [file for file in recorded if Path(file).name == TRIAL]
        return self.earlier(trial)

    def inputs(self) -> list[str]:
        """The files that every trial reads."""
        return [] if self.sweep is None else self.plan.training_inputs(self.sweep.experiment)

    def configuration_json(self) -> str:
        """The part of the configuration that a trial needs, as one line for its job."""
        if self.sweep is None:
            return "{}"
        needed = {"dataset", "captions", "teachers", "stream", "student", "train", "seeds", "sweep"}
        content = self.configuration.model_dump(mode="json", include=needed)
        experiment = self.configuration.experiments[self.sweep.experiment]
        assert experiment is not None
        content["experiments"] = {self.sweep.experiment: experiment.model_dump(mode="json")}
        return json.dumps(content)

    def point_json(self, trial: str) -> str:
        """The values of a grid's trial as one line for its job; null if the trial draws them."""
        return json.dumps(self.points[trial], sort_keys=True)
