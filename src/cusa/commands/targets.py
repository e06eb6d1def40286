"""The workflow's targets by name, and suggestions for mistyped ones.

Snakemake's own message about a mistyped target is that no rule produces such a file.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from cusa.common.workflow_files import workflow_folder
from cusa.errors import ConfigurationError
from cusa.layout import RESULTS

# The target that runs the jobs of each file with rules.
OF_FILES: Mapping[str, str] = {
    "annotations": "annotations",
    "shards": "shards",
    "teachers": "features",
    "student_inputs": "models",
    "training": "models",
    "embeddings": "scores",
    "benchmarks": "scores",
    "report": "report",
    "exports": "exports",
    "search": "search",
    "sweep": "sweep",
}
# The benchmarks' own data are stored by the rules beside those of the data set, but only scores read them.
OF_RULES = dict.fromkeys(("convert_labelled_images", "convert_sentence_pairs", "write_benchmark_shards"), "scores")

RULE = re.compile(r"^(?:use )?rule (?:\w+ as )?(\w+)(?: with)?:\n((?:(?: .*)?\n)*)", re.M)
# Snakemake wants the wildcards of a rule's outputs in the path of its log too.
LOG_WITH_WILDCARDS = re.compile(r"^    log:\n(?: {8}.*\n)*? {8}.*\{[a-z]\w*\}", re.M)
# Options of Snakemake after which a word is a target: those without a value, and those with one.
FLAGS = re.compile(
    r"-[nfFkp]+|--(dry-?run|force|forceall|keep-going|printshellcmds|rerun-incomplete|show-failed-logs|"
    r"use-conda|nolock|unlock|touch|verbose|delete-all-output|delete-temp-output)"
)
WITH_ONE_VALUE = re.compile(r"-[cjdes]|--(cores|jobs|directory|executor|snakefile|profile|workflow-profile)")
ATTACHED = re.compile(r"--[a-z-]+=.*|-[cj][0-9].*")
CONFIGURATIONS = (".yaml", ".yml")


def require_known_targets(arguments: Sequence[str], directory: str | Path = "") -> None:
    """Raise ConfigurationError for a target that is neither a rule of the workflow nor a file in `directory`.

    So is a configuration file, which no rule makes, and which `--configfile` was to name.

    `arguments` are Snakemake's. A word with a slash is the path of a file, which Snakemake looks for itself.
    """
    for target in _targets(arguments):
        is_result = RESULTS in Path(target).parents  # such as the best.yaml of a sweep
        if target.endswith(CONFIGURATIONS) and not is_result and (Path(directory) / target).is_file():
            raise ConfigurationError(
                f"{target} is a configuration file, not a target; name it by `--configfile {shlex.quote(target)}`."
            )
        if "/" in target or target in targets():
            continue
        rules = rules_with_targets()
        makes_files = target in rules and rules[target].has_wildcards
        if not makes_files and (target in rules or (Path(directory) / target).exists()):
            continue
        near = next(iter(get_close_matches(target, [*targets(), *rules], n=1)), None)
        meant = "" if near is None else f"Did you mean {rules[near].target if near in rules else near}? "
        what = "is a rule whose jobs are for one file each" if makes_files else "is neither a target nor a file"
        raise ConfigurationError(
            f"{target} {what}. {meant}The targets are {', '.join(targets())}, and the paths of files that are made."
        )


@dataclass(frozen=True)
class RuleOfFile:
    """A rule that makes files: the target that runs its jobs, and whether a job is for one file of many."""

    target: str
    has_wildcards: bool


@cache
def targets() -> tuple[str, ...]:
    """The targets for users: the rules of the Snakefile itself, in their order."""
    return tuple(name for name, _ in RULE.findall((workflow_folder() / "Snakefile").read_text(encoding="utf-8")))


@cache
def rules_with_targets() -> dict[str, RuleOfFile]:
    """The rules below workflow/rules by their names."""
    found = {}
    for file, target in OF_FILES.items():
        text = (workflow_folder() / f"workflow/rules/{file}.smk").read_text(encoding="utf-8")
        for name, body in RULE.findall(text):
            found[name] = RuleOfFile(OF_RULES.get(name, target), LOG_WITH_WILDCARDS.search(body) is not None)
    return found


def _targets(arguments: Sequence[str]) -> Iterator[str]:
    """The words that are certainly targets. A word after another option may be one more value of that option."""
    is_value = may_be_value = False
    for number, argument in enumerate(arguments):
        if argument == "--":
            yield from arguments[number + 1 :]
            return
        if argument.startswith("-"):
            is_value = WITH_ONE_VALUE.fullmatch(argument) is not None
            known = is_value or FLAGS.fullmatch(argument) or ATTACHED.fullmatch(argument)
            may_be_value = not known
        elif not (is_value or may_be_value):
            yield argument
        else:
            is_value = False
