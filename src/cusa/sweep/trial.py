"""One trial of a sweep: choose its values, train with each seed, and write the result.

Everything can be killed at any time. The values of a trial are on disk before it trains, a training continues from its
state, and what was trained to its end is not trained again.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from cusa.annotations.tables import cleaning_of
from cusa.common.files import read_parquet
from cusa.common.versions import versions
from cusa.config.configuration import Configuration
from cusa.config.experiments import RunConfiguration
from cusa.config.training import OPERATIONAL
from cusa.errors import ConfigurationError, DataError, TrainingError
from cusa.layout import DatasetFolder
from cusa.runs.record import HISTORY, RUN, STATE_FOLDER, RunRecord
from cusa.sweep.pruning import reason_to_stop
from cusa.sweep.sampling import next_values, write_storage
from cusa.sweep.space import Point, present_point, run_at, seeds_of, sweep_of
from cusa.sweep.study import SeedResult, Study, TrialResult
from cusa.training.distributed import Group
from cusa.training.interruption import Stop
from cusa.training.loading import data_digests
from cusa.training.loop import joined, train_in

log = logging.getLogger(__name__)
DIVERGED = "diverged.txt"


def run_trial(
    configuration: Configuration,
    folder: DatasetFolder,
    study: str | Path,
    name: str,
    point: Point | None = None,
    threads: int = 1,
) -> None:
    """Run the trial `name` of a sweep to its end, or continue it, and write its trial.json.

    `configuration` has the section `sweep`, and `study` is the folder of the sweep. `point` are the values of a grid's
    trial; without it they are drawn. `threads` are the CPU threads of all processes together. Raises StoppedError after
    SIGTERM, and what a training raises; but a training that diverges is a result.
    """
    settings = configuration.recipe(sweep_of(configuration).experiment)
    with joined(settings.gpus > 0, threads) as (group, stop):
        _Trial(configuration, folder, Study(Path(study)), name, group, stop).run(point)


class _Trial:
    """One process's part in a trial."""

    def __init__(
        self, configuration: Configuration, folder: DatasetFolder, study: Study, name: str, group: Group, stop: Stop
    ) -> None:
        self.configuration, self.folder, self.study, self.group, self.stop = configuration, folder, study, group, stop
        self.sweep, self.trial = sweep_of(configuration), study.trial(name)

    def run(self, point: Point | None) -> None:
        number, values = self.group.broadcast(self._begin(point) if self.group.is_main else None)
        if self.group.is_main:
            log.info("trial %s: %s", self.trial.name, ", ".join(f"{key} {value}" for key, value in values.items()))
        result = self.group.broadcast(self._repeated(number, values) if self.group.is_main else None)
        if result is None:
            result = self._train(number, values)
        if self.group.is_main:
            self._end(result)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A lock: one trial of the sweep at a time draws values or removes weights. A kill releases it."""
        self.study.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.study.folder / "lock"):
            yield

    def _begin(self, point: Point | None) -> tuple[int, dict[str, Any]]:
        """The number and the values of the trial: those it had before, those of a grid, or new ones."""
        with self._alone():
            if (before := self.trial.values) is not None:
                return before
            number = len(self.study.begun)
            if point is not None:
                values = dict(point)
            elif number == 0 and (present := present_point(self.configuration)) is not None:
                values = present  # the first trial is the present configuration, as the baseline
            else:
                values = next_values(self.sweep, self.study, number)
            self.trial.begin(number, values)
            return number, values

    def _repeated(self, number: int, values: dict[str, Any]) -> TrialResult | None:
        """The result of an earlier trial of the same values, as this trial's, if there is one."""
        for earlier in self.study.results:
            if earlier.number < number and earlier.same_as is None and earlier.values == values:
                return earlier.model_copy(update={"trial": self.trial.name, "number": number, "same_as": earlier.trial})
        return None

    def _train(self, number: int, values: dict[str, Any]) -> TrialResult:
        """Train with one seed after the other, until the trial is hopeless."""
        nothing = TrialResult(trial=self.trial.name, number=number, values=values, state="impossible")
        try:
            runs = [run_at(self.configuration, values, seed) for seed in seeds_of(self.configuration)]
        except ConfigurationError as error:
            return nothing.model_copy(update={"reason": str(error)})
        epochs = runs[0].train.epochs
        seeds: list[SeedResult] = []
        reason = None
        for position, run in enumerate(runs):
            try:
                record = self._train_seed(position, run)
            except TrainingError as error:
                return nothing.model_copy(update={"state": "diverged", "reason": str(error), "epochs": epochs})
            if self.group.is_main:
                seeds.append(_seed_result(self.trial.run(run.seed), record))
            reason = record.stopped_because
            if reason is not None:
                break
        state = "finished" if reason is None else "stopped"
        return nothing.model_copy(update={"state": state, "reason": reason, "epochs": epochs, "seeds": seeds})

    def _train_seed(self, position: int, run: RunConfiguration) -> RunRecord:
        """Train with one seed, unless that was done before. Raises TrainingError if the training diverges."""
        folder = self.trial.run(run.seed)
        if (before := self.group.broadcast(self._diverged_before() if self.group.is_main else None)) is not None:
            raise TrainingError(before)
        if self.group.broadcast(self.group.is_main and self._is_done(folder, run)):
            return RunRecord.read(folder)
        try:
            train_in(self.group, self.stop, run, self.folder, folder, partial(self._why_hopeless, position, run))
        except TrainingError as error:
            shutil.rmtree(folder / STATE_FOLDER, ignore_errors=True)
            if self.group.world_size > 1:
                # The other processes wait for this one and are killed with it, so the error is saved for the next
                # start.
                (self.trial.folder / DIVERGED).write_text(str(error), encoding="utf-8")
                raise DataError(f"{error} The same command continues the sweep without this trial.") from None
            raise
        self.group.broadcast(None)  # rank 0 has written the record
        return RunRecord.read(folder)

    def _diverged_before(self) -> str | None:
        """The divergence that one of several processes saved at the last start of the trial; reading it removes it."""
        path = self.trial.folder / DIVERGED
        if not path.is_file():
            return None
        error = path.read_text(encoding="utf-8")
        path.unlink()
        return error

    def _is_done(self, folder: Path, run: RunConfiguration) -> bool:
        """Whether a run folder has the record of this training on these data; its weights may be gone."""
        if not ((folder / RUN).is_file() and (folder / HISTORY).is_file()):
            return False
        record = RunRecord.read(folder)
        run = run.model_copy(update={"captions": cleaning_of(self.folder.annotations)})
        operational = {"train": set(OPERATIONAL)}
        return (
            record.configuration.as_json(without=operational) == run.as_json(without=operational)
            and record.data == data_digests(run, self.folder)
            and record.processes == self.group.world_size
            and record.versions == versions()
        )

    def _why_hopeless(self, position: int, run: RunConfiguration, curve: list[float]) -> str | None:
        if self.sweep.pruning is None:
            return None
        others = [result for result in self.study.results if result.trial != self.trial.name]
        return reason_to_stop(curve, run.train.epochs, position, others, self.sweep.pruning)

    def _end(self, result: TrialResult) -> None:
        """Write trial.json and Optuna's storage, and keep the weights of the best trial only."""
        with self._alone():
            self.trial.end(result)
            self.study.keep_best_weights()
            if self.sweep.method != "grid":
                write_storage(self.sweep, self.study)
        score = "no score" if result.score is None else f"r_mean {result.score:.2f} on val"
        log.info("trial %s: %s, %s", self.trial.name, result.state, score)


def _seed_result(folder: Path, record: RunRecord) -> SeedResult:
    """The result of one training of a trial, from its record and its history."""
    rows = read_parquet(folder / HISTORY).select(["kind", "epoch", "r_mean"]).to_pylist()
    metrics = record.selection_metrics
    if metrics is None or "r_mean" not in metrics:
        raise DataError(f"{folder / RUN} has no validation metrics; delete {folder} to train the trial again.")
    return SeedResult(
        seed=record.configuration.seed,
        r_mean=metrics["r_mean"],
        selected_epoch=record.selected_epoch,
        curve=[row["r_mean"] for row in rows if row["kind"] == "epoch"],
        metrics=metrics,
        seconds=record.seconds,
    )
