"""The section `sweep`: a search over settings of one experiment."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from cusa.config.section import AnyValue, Count, Name, Number, Section, Seed, Share
from cusa.config.training import OPERATIONAL

# Keys of `train` that define how and where a training runs, or its score. A sweep must not change them.
NOT_SWEPT = (*OPERATIONAL, "gpus", "cpu_processes", "nodes", "select_on")
MOST_TRIALS = 10_000  # each is a job; a grid of several long lists is soon one of millions


class Range(Section):
    """The numbers between two ends that a trial may take, the ends included."""

    low: int | Number = Field(description="The smallest number. If low, high and step are integers, so are the values.")
    high: int | Number = Field(description="The largest number.")
    log: bool = Field(default=False, description="Drawn by the logarithm, as learning rates should be.")
    step: int | Number | None = Field(default=None, description="Distance between the numbers; null takes any.")

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}; low has to be less than high")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}, which has no logarithm; give a number above 0, or leave out log")
        if self.step is not None and (self.log or self.step <= 0):
            raise ValueError("step has to be above 0, and is not possible beside log: true; leave out one of them")
        if self.step is not None:
            steps = (self.high - self.low) / self.step
            if not math.isclose(steps, round(steps), abs_tol=1e-9) or round(steps) < 1:
                raise ValueError(
                    f"from low, {self.low}, no whole number of steps of {self.step} leads to high, {self.high}; change "
                    "one of the three"
                )
        return self

    @property
    def is_whole(self) -> bool:
        """Whether the numbers are integers."""
        return all(isinstance(end, int) for end in (self.low, self.high, self.step or 1))


def _kind(value: Any) -> str:
    return "choices" if isinstance(value, list) else "range"


def _compared(value: Any) -> str:
    """A text that is the same for values that are equal; 1 and 1.0 are, 1 and true are not."""
    return repr(float(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def _without_nulls(space: Any) -> Any:
    """The space without the keys that another file has set to null, which removes them."""
    if not isinstance(space, Mapping):
        return space
    kept = {key: value for key, value in space.items() if value is not None}
    for key, value in kept.items():
        if not isinstance(value, list | Mapping | Range):
            raise ValueError(f"`{key}` is {value!r}; expected a list of values, or a mapping with low and high")
    return kept


Choices = Annotated[list[AnyValue], Field(min_length=1)]
Values = Annotated[Annotated[Choices, Tag("choices")] | Annotated[Range, Tag("range")], Discriminator(_kind)]
Space = Annotated[dict[str, Values], BeforeValidator(_without_nulls), Field(min_length=1)]


class Pruning(Section):
    """When a trial is stopped because it is hopeless: its best r_mean so far is below the median of the others'."""

    startup_trials: Count = Field(default=5, description="Trials that have to be there before any is stopped.")
    warmup: Share = Field(default=0.2, description="Share of its epochs that every trial is trained for.")


class Sweep(Section):
    """A search over settings of one experiment: one job per trial, scored by the r_mean of the validation split."""

    experiment: Name = Field(description="The experiment whose settings vary.")
    space: Space = Field(
        description="What varies, by its key in the complete configuration: a list, or {low, high, log, step}."
    )
    method: Literal["grid", "random", "tpe"] = Field(
        default="grid",
        description="`grid` tries all combinations of the lists; `random` draws; `tpe` is Optuna's tree-structured "
        "Parzen estimator, which draws where earlier trials were good. The last two need the extra `sweep`.",
    )
    trials: Count | None = Field(
        default=None, description="Trials of `random` and `tpe`; more can be added later. A grid has all of them."
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = Field(
        default=None,
        description="Seeds that every trial is trained with; its score is their mean. null takes the first of `seeds`.",
    )
    draw_seed: Seed = Field(default=0, description="Seed of `random` and `tpe`.")
    parallel: Count = Field(
        default=1, description="Trials of `tpe` that may run at the same time; they do not learn from each other."
    )
    pruning: Pruning | None = Field(
        default=Pruning(), description="When hopeless trials are stopped; null trains all of them to their end."
    )

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        if self.method == "grid":
            if self.trials is not None:
                raise ValueError("trials is for random and tpe, and a grid has all combinations; leave it out")
            if self.draw_seed:
                raise ValueError("draw_seed is for random and tpe, and a grid draws nothing; leave it out")
            for key, values in self.space.items():
                if isinstance(values, Range):
                    raise ValueError(f"space.{key} is a range, but a grid needs lists; give a list, or method: tpe")
        elif self.trials is None:
            raise ValueError(f"trials is missing, which {self.method} needs; give the number of trials")
        if self.method != "tpe" and self.parallel != 1:
            raise ValueError(
                f"parallel is for tpe; the option --cores says how many trials of {self.method} run at once"
            )
        if self.seeds is not None and len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {self.seeds} repeats a seed; list each once")
        for key, values in self.space.items():
            self._check_key(key)
            if isinstance(values, list) and len({_compared(value) for value in values}) != len(values):
                raise ValueError(f"space.{key} has a value twice; list each once")
        for first, second in itertools.permutations(self.space, 2):
            one, two = (self._in_experiment(key).split(".") for key in (first, second))
            if two[: len(one)] == one:
                raise ValueError(
                    f"space has the keys `{first}` and `{second}`, which set the same value, so that one of them has "
                    "no effect; leave one out"
                )
        if (count := self._count()) > MOST_TRIALS:
            raise ValueError(
                f"{count:,} trials are too many, at most {MOST_TRIALS:,}; give fewer values, or method: tpe"
            )
        return self

    def _count(self) -> int:
        """The number of trials."""
        lists = (values for values in self.space.values() if isinstance(values, list))
        return math.prod(map(len, lists)) if self.trials is None else self.trials

    def _in_experiment(self, key: str) -> str:
        """A key of the space without the name of the experiment."""
        return key.removeprefix(f"experiments.{self.experiment}.")

    def _check_key(self, key: str) -> None:
        """Raise ValueError unless a key of the space is one that changes what the experiment learns."""
        own = f"experiments.{self.experiment}."
        if key.startswith("experiments.") and not key.startswith(own):
            raise ValueError(
                f"experiment is `{self.experiment}`, but space has the key `{key}` of another one; name one experiment "
                "that exists in both"
            )
        if not key.startswith(("train.", "student.", own)):
            raise ValueError(
                f"space has the key `{key}`; expected one that begins with `train.`, `student.` or `{own}`, as "
                "`train.lr` does"
            )
        inner = self._in_experiment(key).split(".")
        if inner[0] == "train" and inner[1:] and inner[1] in NOT_SWEPT:
            raise ValueError(f"space has the key `{key}`, which changes nothing that is learned; leave it out")
