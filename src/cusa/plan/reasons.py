"""Why a job runs again, in words: the configuration keys whose values differ from those of its existing outputs.

Snakemake would show the parameters of the job, before and now, which are whole sections of the configuration as JSON.
"""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cusa.config.operational import differences

MOST_CHANGES = 8
REASON = "\n"  # separates a parameter, which is one line, from the reason to run its job again
SHOWN = 80  # characters of a parameter that is not a section
# The sections that parameters of rules hold; a parameter of another rule is shown by its own name.
SECTIONS = {
    "write_shards": "shards",
    "write_shards_part": "shards",
    "join_shards": "shards",
    "write_benchmark_shards": "shards",
    "render_report": "report.gallery",
    "build_index": "search.index",
}
EVALUATE = "evaluate_"
WHOLE = "configuration"  # the parameter whose keys are those of the configuration


def changed_keys(rule: str, before: Iterable[str], now: Mapping[str, str]) -> str:
    """`train.epochs was 30, is 4` for each key that differs, separated by semicolons; the last of many are counted.

    `before` are parameters that an output was made with, and `now` those of today by name, without those that are the
    same; all are Python literals, as Snakemake records them.
    """
    texts = [value for text in now.values() if isinstance(value := literal_eval(text), str)]
    changes = [reason for text in texts if (reason := text.partition(REASON)[2])]
    changes += _changes(rule, [_read(text) for text in before], {name: _read(text) for name, text in now.items()})
    more = f"; and {len(changes) - MOST_CHANGES} more" if len(changes) > MOST_CHANGES else ""
    return "; ".join(changes[:MOST_CHANGES]) + more


def _changes(rule: str, before: list[Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name, value in now.items():
        was = next((each for each in before if type(each) is type(value)), None)
        if was is not None:
            before.remove(was)
        if was == value:
            continue
        if isinstance(value, dict) and isinstance(was, dict):
            old, new = (_as_section(rule, name, each) for each in (was, value))
            # A key without effect on results can be a reason to look at the data again.
            yield from differences(old, new) or differences(old, new, of_any_effect=True)
        else:
            yield f"{name} is {_shown(value)}" if was is None else f"{name} was {_shown(was)}, is {_shown(value)}"
    yield from (f"{_shown(each)} was given, and is not" for each in before)


def _read(text: str) -> Any:
    """The value of a parameter; a section if it is the JSON of one."""
    value = literal_eval(text)
    if not isinstance(value, str):
        return value
    value = without_reason(value)
    if value.startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def with_reason(text: str, reason: str) -> str:
    """A parameter of one line as it is recorded if there is a `reason` to run its job again; the same without one.

    `text` is what was recorded before, which may have a reason too. The record is always another text.
    """
    if not reason:
        return text
    new = f"{without_reason(text)}{REASON}{reason}"
    return f"{new} again" if new == text else new


def without_reason(text: str) -> str:
    """A parameter without the reason that is recorded with it."""
    return text.partition(REASON)[0]


def _as_section(rule: str, parameter: str, value: dict[str, Any]) -> dict[str, Any]:
    """A section below the key that it has in the configuration."""
    if parameter == WHOLE or (parameter == "dataset" and "format" not in value):
        return value
    if parameter == "settings" and rule.startswith(EVALUATE):
        return {f"benchmarks.{rule.removeprefix(EVALUATE)}": value}
    return {SECTIONS.get(rule, parameter): value}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
