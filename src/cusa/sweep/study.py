"""The folder of a sweep, and the results of its trials.

results/{dataset}/sweep/{study}/trials/{trial}/values.json      what the trial tries, written before it trains
                                              /trial.json       what it found, written when it has ended
                                              /seed{n}/         a run folder; only the best trial keeps its weights
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cusa.common.files import read_json, write_json
from cusa.common.pydantic_errors import first_problem
from cusa.errors import DataError
from cusa.runs.record import FINISHED, STATE_FOLDER, WEIGHTS

TRIAL = "trial.json"
VALUES = "values.json"
SCHEMA = 1
State = Literal["finished", "stopped", "diverged", "impossible"]


class SeedResult(BaseModel):
    """The training of a trial with one seed."""

    model_config = ConfigDict(frozen=True)
    seed: int
    r_mean: float = Field(description="Of the validation split in the selected epoch, in per cent.")
    selected_epoch: int = Field(description="Counted from 0.")
    curve: list[float] = Field(description="r_mean of the validation split after each epoch, in per cent.")
    metrics: dict[str, float] = Field(description="All metrics of the selected epoch.")
    seconds: float


class TrialResult(BaseModel):
    """The content of trial.json."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)
    schema_version: int = Field(default=SCHEMA, alias="schema")
    trial: str
    number: int = Field(description="How many trials had begun before it.")
    values: dict[str, Any]
    state: State = Field(
        description="`finished`: trained to its end. `stopped`: hopeless, so stopped early. `diverged`: a loss or an "
        "embedding was not finite. `impossible`: its values contradict each other or the rest of the configuration."
    )
    reason: str | None = Field(default=None, description="Why it did not finish.")
    epochs: int = Field(default=0, description="Epochs that a training to its end has.")
    seeds: list[SeedResult] = []
    same_as: str | None = Field(default=None, description="An earlier trial of the same values, not repeated.")

    @property
    def score(self) -> float | None:
        """The mean r_mean of its seeds in per cent; None if nothing was trained."""
        if not self.seeds:
            return None
        return sum(seed.r_mean for seed in self.seeds) / len(self.seeds)

    @property
    def seconds(self) -> float:
        """How long all seeds have trained."""
        return sum(seed.seconds for seed in self.seeds)


@dataclass(frozen=True)
class TrialFolder:
    """The folder of one trial."""

    folder: Path

    @property
    def name(self) -> str:
        """The name of the trial."""
        return self.folder.name

    def run(self, seed: int) -> Path:
        """The run folder of one of its seeds."""
        return self.folder / f"seed{seed}"

    @property
    def values(self) -> tuple[int, dict[str, Any]] | None:
        """The number of the trial and its values, if it has begun."""
        path = self.folder / VALUES
        if not path.is_file():
            return None
        content = read_json(path)
        return content["number"], content["values"]

    def begin(self, number: int, values: dict[str, Any]) -> None:
        """Keep the number and the values of a trial, so that it continues with them after a kill."""
        write_json(self.folder / VALUES, {"number": number, "values": values})

    @property
    def result(self) -> TrialResult | None:
        """The result of the trial, if it has ended. Raises DataError if trial.json is damaged."""
        path = self.folder / TRIAL
        if not path.is_file():
            return None
        try:
            return TrialResult.model_validate(read_json(path))
        except ValidationError as error:
            key, message = first_problem(error)
            raise DataError(
                f"{path} is not the result of a trial: key `{key}`: "
                f"{message.lower()}. Delete the file; what it has trained is taken again."
            ) from None

    def end(self, result: TrialResult) -> None:
        """Write trial.json."""
        content = result.model_dump(mode="json", by_alias=True)
        write_json(self.folder / TRIAL, {key: value for key, value in content.items() if value is not None})

    def drop_weights(self) -> None:
        """Remove the weights of the trial; the records of its trainings remain."""
        for seed in self.folder.glob("seed*"):
            (seed / WEIGHTS).unlink(missing_ok=True)
            (seed / STATE_FOLDER / FINISHED / WEIGHTS).unlink(missing_ok=True)


@dataclass(frozen=True)
class Study:
    """The folder of one sweep."""

    folder: Path

    def trial(self, name: str) -> TrialFolder:
        """The folder of a trial."""
        return TrialFolder(self.folder / "trials" / name)

    @property
    def begun(self) -> list[TrialFolder]:
        """The trials that have values, in the order in which they have begun."""
        folders = [TrialFolder(path.parent) for path in (self.folder / "trials").glob(f"*/{VALUES}")]
        numbered = {folder: (folder.values or (0, {}))[0] for folder in folders}
        return sorted(folders, key=lambda folder: (numbered[folder], folder.name))

    @property
    def results(self) -> list[TrialResult]:
        """The results of the trials that have ended, in the order in which they began."""
        return [result for folder in self.begun if (result := folder.result) is not None]

    def keep_best_weights(self) -> None:
        """Remove the weights of all trials that have ended but the best."""
        best = best_of(self.results)
        for result in self.results:
            if best is not None and result.trial != best.trial:
                self.trial(result.trial).drop_weights()


def best_of(results: Iterable[TrialResult]) -> TrialResult | None:
    """The trial with the highest score, and the earliest of these; None if nothing was trained to its end.

    A trial that was stopped is not the best: its score is that of fewer epochs, or of fewer seeds.
    """
    finished = [result for result in results if result.state == "finished" and result.same_as is None]
    return max(finished, key=lambda result: (result.score or 0.0, -result.number), default=None)
