"""The targets of the workflow by the names that users type, and what a mistyped one was meant to be.

Snakemake itself says that it has no rule to produce such a word, as a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from cusa.common.workflow_files import workflow_folder
from cusa.errors import ConfigurationError

# What users ask for.
TARGETS = ("all", "annotations", "shards", "features", "models", "scores", "report", "exports", "search", "sweep")
# The target that runs all jobs of a rule: each job makes one file, so such a rule is no target itself.
OF_RULES: Mapping[str, str] = {
    "write_shards": "shards",
    "extract_image_features": "features",
    "extract_text_features": "features",
    "train": "models",
    "interpolate": "models",
    "write_baseline": "models",
    "embed": "scores",
    "evaluate_itr": "scores",
    "export_model": "exports",
    "build_index": "search",
    "run_trial": "sweep",
}


# Options of Snakemake after which a word is a target: those without a value, and those with one.
FLAGS = re.compile(
    r"-[nfFkp]+|--(dry-?run|force|forceall|keep-going|printshellcmds|rerun-incomplete|show-failed-logs|"
    r"use-conda|nolock|unlock|touch|verbose|delete-all-output|delete-temp-output)"
)
WITH_ONE_VALUE = re.compile(r"-[cjdes]|--(cores|jobs|directory|executor|snakefile|profile|workflow-profile)")
ATTACHED = re.compile(r"--[a-z-]+=.*|-[cj][0-9].*")


def require_known_targets(arguments: Sequence[str]) -> None:
    """Raise ConfigurationError for a target that is neither a rule of the workflow nor a file.

    `arguments` are Snakemake's. A word with a slash is the path of a file, which Snakemake looks for itself.
    """
    for target in filter(_is_unknown, _targets(arguments)):
        near = next(iter(get_close_matches(target, [*TARGETS, *OF_RULES], n=1)), None)
        meant = "" if near is None else f"Did you mean {OF_RULES.get(near, near)}? "
        what = "is a rule whose jobs are for one file each" if target in OF_RULES else "is neither a target nor a file"
        raise ConfigurationError(
            f"{target} {what}. {meant}The targets are {', '.join(TARGETS)}, and the paths of files that are made."
        )


def _targets(arguments: Sequence[str]) -> Iterator[str]:
    """The words that are targets for certain: behind other options they may be one more value."""
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


def _is_unknown(word: str) -> bool:
    if "/" in word or word in TARGETS:
        return False
    return word in OF_RULES or not (Path(word).exists() or word in _rules())


def _rules() -> set[str]:
    files = [workflow_folder() / "Snakefile", *(workflow_folder() / "workflow/rules").glob("*.smk")]
    return {name for file in files for name in re.findall(r"^rule (\w+):", file.read_text(encoding="utf-8"), re.M)}
