"""How each file was made, from Snakemake's records, and parameters that keep their recorded text.

Snakemake makes a file again if the parameters or inputs of its job differ from the record. A parameter that does not
change the result is no reason for that: it has its new text in the command, but keeps its old text in the record.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from cusa.config.operational import same_result
from cusa.plan.reasons import with_reason, without_reason

Value = TypeVar("Value")
Recall = Callable[[str], Iterable[str] | None]  # returns the record of the file at a path; None if there is no record


class Recorded(str):
    """A part of a command whose `repr`, which Snakemake records, is another text: `recorded`."""

    recorded: str

    def __new__(cls, text: str, recorded: str) -> Recorded:
        """The text of the command, and that of the record."""
        value = super().__new__(cls, text)
        value.recorded = recorded
        return value

    def __repr__(self) -> str:
        return repr(self.recorded)


@dataclass(frozen=True)
class RecordedJobs:
    """The jobs that made the files that are there; paths are those of outputs."""

    recall_params: Recall  # as Python literals
    recall_inputs: Recall  # paths

    def params(self, output: str, kind: type[Value]) -> list[Value]:
        """The parameters of a type with which an output was made; none if that is not known."""
        return values_of(self.recall_params(output), kind)

    def inputs(self, output: str) -> list[str] | None:
        """The inputs that an output was made from; None if that is not known."""
        names = self.recall_inputs(output)
        return None if names is None else list(names)

    def made_with(self, param: str, output: str) -> bool:
        """Whether an output was made with a parameter."""
        return repr(param) in (self.recall_params(output) or [])

    def section(self, text: str, output: str, of_train: str | None = None, reason: str = "") -> Recorded:
        """A section of the configuration, as JSON. If only keys without effect differ, the record keeps its old text.

        For `of_train` see `same_result`. A `reason` to run the job again all the same is recorded with the section.
        """
        recorded = self.params(output, str)
        before = (each for each in recorded if same_result(without_reason(each), text, of_train))
        return Recorded(text, recorded=with_reason(next(before, text), reason))

    def option(self, text: str, output: str, beginning: str) -> Recorded:
        """An option without effect on the result: the record keeps the old one that starts with `beginning`, if any."""
        recorded = self.params(output, str)
        before = (each for each in recorded if each.startswith(beginning))
        return Recorded(text, recorded=next(before, "") if recorded else text)


def values_of(params: Iterable[str] | None, kind: type[Value]) -> list[Value]:
    """The parameters of a type among those of a record, which are Python literals; none of None."""
    values = map(literal_eval, params or [])
    return [value for value in values if isinstance(value, kind)]
